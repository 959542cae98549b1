"""Where the records of a run go beside `metrics.jsonl`, by `config.train.loggers`.

A row of `LOGGERS` opens one for the time of a run. Its package is imported only there.
Tags are `training/<name>`, `validation/<name>` and `clock/<name>`; what is not finite
is left out. A resumed run gives the steps after its checkpoint again, with the same
numbers.
"""

import contextlib
import importlib.util
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import ml_collections

from common.errors import UsageError

Write = Callable[[int, Mapping[str, float | None]], None]
"""Takes the step and the numbers of a record."""

CLOCKS = ("cpu_seconds", "wall_seconds")
_VALIDATION = "validation_"


class Logger(NamedTuple):
    """One row.

    Attributes:
        package: name of the package that it needs, as pip knows it.
        open: function of the folder of the run, its config, and the step of the
            restored state (0 of a new run).
    """

    package: str
    open: Callable[
        [Path, ml_collections.ConfigDict, int], AbstractContextManager[Write]
    ]


@contextlib.contextmanager
def opened(
    config: ml_collections.ConfigDict, workdir: Path, resume_step: int
) -> Iterator[list[Write]]:
    """Opens the loggers that a config names, and closes them at the end.

    >>> config = ml_collections.ConfigDict({"train": {"loggers": ()}})
    >>> with opened(config, Path("workdir"), 0) as writes:
    ...     writes
    []

    Args:
        config: config of the run.
        workdir: folder of the run.
        resume_step: step of the restored state; 0 starts a new record.
    """
    with contextlib.ExitStack() as stack:
        rows = [LOGGERS[name] for name in config.train.loggers]
        yield [
            stack.enter_context(row.open(workdir, config, resume_step)) for row in rows
        ]


def check(config: ml_collections.ConfigDict) -> None:
    """Raises `UsageError` if the package of a logger is not installed.

    >>> check(ml_collections.ConfigDict({"train": {"loggers": ()}}))
    """
    for name in config.train.loggers:
        package = LOGGERS[name].package
        if importlib.util.find_spec(package) is None:
            raise UsageError(
                f"config.train.loggers: expected the package {package} for {name}, "
                f"found none: pip install {package}"
            )


def tagged(record: Mapping[str, float | None]) -> dict[str, float]:
    """Returns the finite numbers of a record by their tags.

    >>> tagged({"loss": 0.5, "validation_loss": 0.7, "nll": None, "cpu_seconds": 3.0})
    {'training/loss': 0.5, 'validation/loss': 0.7, 'clock/cpu_seconds': 3.0}
    """
    return {_tag(name): value for name, value in record.items() if value is not None}


def _tag(name: str) -> str:
    if name in CLOCKS:
        return f"clock/{name}"
    if name.startswith(_VALIDATION):
        return f"validation/{name.removeprefix(_VALIDATION)}"
    return f"training/{name}"


@contextlib.contextmanager
def _tensorboard(
    workdir: Path, config: ml_collections.ConfigDict, resume_step: int
) -> Iterator[Write]:
    """Writes events into `tensorboard/`; those of steps to come again are hidden."""
    from tensorboardX import SummaryWriter

    folder = str(workdir / "tensorboard")
    suffix = f".{time.time_ns()}"  # Names have seconds only, and would be one.
    with SummaryWriter(
        folder, purge_step=resume_step + 1, filename_suffix=suffix
    ) as writer:

        def write(step: int, record: Mapping[str, float | None]) -> None:
            for tag, value in tagged(record).items():
                writer.add_scalar(tag, value, step)
            writer.flush()

        yield write


@contextlib.contextmanager
def _wandb(
    workdir: Path, config: ml_collections.ConfigDict, resume_step: int
) -> Iterator[Write]:
    """Sends records to Weights & Biases, in a run with the name of the folder."""
    import wandb

    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "symphony-equijump"),
            name=workdir.resolve().name,
            id=_wandb_id(workdir / "wandb" / "id", resume_step),
            resume="allow",
            dir=str(workdir),
            config=config.to_dict(),
        )
    except wandb.Error as error:
        raise UsageError(
            "config.train.loggers: expected an account of Weights & Biases (wandb "
            f"login), or WANDB_MODE=offline, found {error}"
        ) from error
    with run:
        run.define_metric("*", step_metric="step")  # So that steps may come again.
        yield lambda step, record: run.log({"step": step, **tagged(record)})


def _wandb_id(path: Path, resume_step: int) -> str:
    """Returns the name under which the service knows a run, kept in its folder."""
    if resume_step and path.is_file():
        return path.read_text("utf-8").strip()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{uuid.uuid4().hex}\n", "utf-8")
    return path.read_text("utf-8").strip()


LOGGERS: dict[str, Logger] = {
    "tensorboard": Logger("tensorboardX", _tensorboard),
    "wandb": Logger("wandb", _wandb),
}
