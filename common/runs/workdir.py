"""Whose a work directory is: a run goes into a new folder or into that of a run.

What a run left is known by its contents, not by its names, which other programs have
as well.
"""

from pathlib import Path
from typing import Any

from common.commands import cli, reading
from common.errors import UsageError
from common.runs import checkpoints
from common.runs import config as configs
from common.runs.metrics import FILE_NAME, read_metrics

_GROUPS = ("data", "model", "train")


def check(workdir: Path) -> None:
    """Asks, before any work, whether a run may write to a folder; makes nothing.

    >>> check(Path("workdir/none"))

    Raises:
        UsageError: It cannot be written, or holds files of another program, or has lost
            the checkpoints of its run.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UsageError(f"--workdir: expected a folder, found a file: {workdir}")
    is_run = checkpoints.has_checkpoint(workdir) and _is_of_run(workdir / "checkpoints")
    config = None if is_run else _read_config(workdir / "config.json")
    foreign = None if is_run else _foreign(workdir, config)
    if foreign is not None:
        raise UsageError(
            f"{workdir}: expected a new folder, or one of a run, found {foreign} that "
            "no run wrote; give another --workdir"
        )
    for name in ("config.json", FILE_NAME):
        cli.check_output(workdir / name)
    if config is not None:
        _check_not_lost(workdir, config)


def _is_of_run(folder: Path) -> bool:
    """Returns whether there is a checkpoint in the form that runs write."""
    steps = (path for path in folder.glob("*") if path.name.isdigit())
    return any(
        (path / "record").exists() or (path / "state").exists() for path in steps
    )


def _read_config(path: Path) -> dict[str, Any] | None:
    """Returns the config of a run, None where a file has none."""
    try:
        found = reading.parse_json(path.read_bytes() if path.is_file() else b"")
    except reading.DAMAGE:
        return None
    is_known = found.get("kind") in configs.DEFAULTS or "transport" in found
    has_groups = all(isinstance(found.get(group), dict) for group in _GROUPS)
    return found if is_known and has_groups else None


def _foreign(workdir: Path, config: dict[str, Any] | None) -> str | None:
    """Returns the name of something that another program wrote, if there is any."""
    if config is not None:
        return None
    if (workdir / "config.json").exists():
        return "a config.json"
    if (workdir / FILE_NAME).exists() and not _has_records(workdir / FILE_NAME):
        return f"a {FILE_NAME}"
    return "checkpoints" if checkpoints.has_checkpoint(workdir) else None


def _has_records(path: Path) -> bool:
    """Returns whether lines of a file are records of a run, or none can be read."""
    if not path.is_file():
        return False
    readable = []
    for line in path.read_bytes().splitlines():
        try:
            readable.append(reading.parse_json(line))
        except reading.DAMAGE:
            continue  # It may be torn.
    names = {"step", "cpu_seconds", "wall_seconds"}
    is_empty = not path.stat().st_size
    return is_empty or any(names <= record.keys() for record in readable)


def _check_not_lost(workdir: Path, config: dict[str, Any]) -> None:
    """Raises `UsageError` where records tell of checkpoints that are not there.

    A checkpoint is complete before the next one is begun.
    """
    train = config["train"]
    names = ("checkpoint_every", "eval_every", "num_steps")
    periods = [train.get(name) for name in names]
    if not all(isinstance(period, int) and period > 0 for period in periods):
        return
    last = max((record["step"] for record in read_metrics(workdir)), default=0)
    if last > 2 * min(periods):
        raise UsageError(
            f"{workdir}: expected the checkpoints of a run with {FILE_NAME} up to step "
            f"{last}, found none; bring checkpoints/ back, or give another --workdir"
        )
