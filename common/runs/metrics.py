"""The record of a run: `metrics.jsonl`, one JSON object a line, appended as it goes."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, SupportsFloat

from absl import logging

from common.commands import cli
from common.runs.training import Elapsed

FILE_NAME = "metrics.jsonl"


class MetricsWriter:
    """Appends records with `step`, `cpu_seconds` and `wall_seconds` (s).

    Opening it for a resumed run drops what was recorded after the restored step, so
    that no step appears twice. A step's record is written before its checkpoint, so
    that none is missing either.
    """

    def __init__(
        self, workdir: Path, clock: Callable[[], Elapsed], resume_step: int = 0
    ) -> None:
        """Opens the file.

        Args:
            workdir: folder of the run; made if it does not exist.
            clock: clock of the run, see `training.start_clock`.
            resume_step: step of the restored state; 0 starts a new record.
        """
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / FILE_NAME
        _truncate(path, resume_step)
        self._clock = clock
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Appends one record; numbers that are not finite are written as null."""
        elapsed = self._clock()
        record = {
            "step": step,
            "cpu_seconds": round(elapsed.cpu_seconds, 3),
            "wall_seconds": round(elapsed.wall_seconds, 3),
        }
        record |= {name: _number(value) for name, value in metrics.items()}
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()


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
