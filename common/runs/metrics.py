"""The record of a run: `metrics.jsonl`, one JSON object a line, appended as it goes."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsFloat

from absl import logging

from common.commands import cli
from common.runs.loggers import Write
from common.runs.training import Elapsed

FILE_NAME = "metrics.jsonl"
PATIENCE = 3
"""Validations without a smaller loss after which a run warns."""


class MetricsWriter:
    """Appends records with `step`, `cpu_seconds` and `wall_seconds` (s).

    Opening it for a resumed run drops what was recorded after the restored step, so
    that no step appears twice. A step's record is written before its checkpoint, so
    that none is missing either.
    """

    def __init__(
        self,
        workdir: Path,
        clock: Callable[[], Elapsed],
        resume_step: int = 0,
        others: Sequence[Write] = (),
    ) -> None:
        """Opens the file.

        Args:
            workdir: folder of the run; made if it does not exist.
            clock: clock of the run, see `training.start_clock`.
            resume_step: step of the restored state; 0 starts a new record.
            others: where records go as well, see `common.runs.loggers`.
        """
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / FILE_NAME
        _truncate(path, resume_step)
        self._clock = clock
        self._others = others
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Appends one record; numbers that are not finite are written as null."""
        elapsed = self._clock()
        record = {
            "cpu_seconds": round(elapsed.cpu_seconds, 3),
            "wall_seconds": round(elapsed.wall_seconds, 3),
        }
        record |= {name: _number(value) for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step} | record, allow_nan=False) + "\n")
        self._file.flush()
        for write in self._others:
            write(step, record)


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Returns the records of a run in order; what a power cut garbled is left out.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with MetricsWriter(Path(folder), lambda: Elapsed(1.0, 2.0)) as writer:
    ...         writer.write(5, {"loss": 0.5})
    ...     print(read_metrics(Path(folder)))
    [{'step': 5, 'cpu_seconds': 1.0, 'wall_seconds': 2.0, 'loss': 0.5}]
    """
    path = workdir / FILE_NAME
    if not path.exists():
        return []
    records, garbled = [], 0
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            record = json.loads(line)
            records.append(record | {"step": int(record["step"])})
        except (ValueError, TypeError, KeyError, RecursionError):
            garbled += 1
    if garbled:
        logging.warning("%s: %d lines are garbled and left out", path, garbled)
    return records


def rising(records: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """Tells that the validation loss rises while the training loss falls.

    It does so where the least validation loss lies `PATIENCE` validations back or a
    multiple of it, so once in so many, and is a function of the records: a resumed run
    tells the same.

    >>> losses = [(1.0, 0.9), (0.8, 0.7), (0.6, 0.8), (0.5, 0.9), (0.4, 1.0)]
    >>> records = []
    >>> for step, (training, validation) in enumerate(losses, start=1):
    ...     records.append({"step": step, "loss": training})
    ...     records.append({"step": step, "validation_loss": validation})
    >>> rising(records, "loss")  # doctest: +ELLIPSIS
    'validation loss rose from 0.700 at step 2 to 1.000 while that of training fell ...'
    >>> rising(records[:-2], "loss")

    Args:
        records: records of a run, see `read_metrics`.
        name: name of the loss; that of validation begins with `validation_`.
    """
    found = _losses_by_validation(records, name)
    if not found:
        return None
    best = min(range(len(found)), key=lambda place: found[place][2])
    ago = len(found) - 1 - best
    if ago == 0 or ago % PATIENCE:
        return None
    (step, *first), (_, *last) = found[best], found[-1]
    recent = [validation for _, _, validation in found[-1 - PATIENCE :]]
    if not (last[0] < first[0] and last[1] > sum(recent) / len(recent)):
        return None
    return (
        f"validation {name} rose from {first[1]:.3f} at step {step} to {last[1]:.3f} "
        f"while that of training fell from {first[0]:.3f} to {last[0]:.3f}: the "
        f"checkpoint of step {step} is kept, and used for sampling; more data, a "
        "smaller network or fewer steps may help"
    )


def _losses_by_validation(
    records: Sequence[Mapping[str, Any]], name: str
) -> list[tuple[int, float, float]]:
    """Returns step, mean training loss since the one before, and loss of validations.

    What is not finite was recorded as null, and is left out.
    """
    found, since = [], []
    for record in records:
        training, validation = record.get(name), record.get(f"validation_{name}")
        if training is not None:
            since.append(training)
        if validation is not None and since:
            found.append((record["step"], sum(since) / len(since), validation))
            since = []
    return found


def _truncate(path: Path, last_step: int) -> None:
    """Drops the records after `last_step`, all at once or not at all."""
    if not path.exists():
        return
    kept = [r for r in read_metrics(path.parent) if r["step"] <= last_step]
    with cli.atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in kept)


def _number(value: SupportsFloat) -> float | int | None:
    if isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
