"""Puts the parts of a run together: `equijump merge`, of rollouts and simulations."""

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.commands import cli, reading, shards
from common.errors import UsageError
from equijump import confidence, outcome, replicas, rollstate, trajfile
from equijump.data.frames import ANGSTROM_PER_NM
from equijump.outcome import Summary
from equijump.rollout import Plan
from equijump.rollstate import Saved

COMMAND = "equijump merge"
ROLLOUT, SIMULATION = "sample.json", "simulate.json"
_MAY_DIFFER = frozenset(("platform", "threads", "minimised_energy_kj_per_mol"))
"""What machines decide of a simulation."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `equijump merge` and returns the exit status.

    Args:
        argv: arguments after the command; those of the process where None.
    """
    folder = Path(_parser().parse_args(argv).output)
    parts = shards.found(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder}: expected no folder, found one; move it away, or the parts"
        )
    if (parts[0] / ROLLOUT).is_file():
        summary = _merge_rollouts(folder, parts)
        outcome.check(summary)
        return 0
    with _made_whole(folder) as whole:
        for name in _molecules_of(parts[0]):
            _merge_simulations(whole / name, [part / name for part in parts])
    sys.stdout.write(f"{folder}: {len(parts)} parts together\n")
    return 0


@contextlib.contextmanager
def _made_whole(folder: Path) -> Iterator[Path]:
    """Yields a folder that has its name once the block is done."""
    partial = folder.with_name(f".partial-{os.getpid()}-{folder.name}")
    try:
        with cli.made_folder(partial):
            yield partial
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy(path: Path, folder: Path, size: int | None = None) -> None:
    """Copies a file into a folder, up to so many bytes."""
    target = Path(shutil.copyfile(path, folder / path.name))
    if size is not None:
        os.truncate(target, size)


def _merge_rollouts(folder: Path, parts: Sequence[Path]) -> Summary:
    """Puts the trajectories of a rollout together; returns what came of all."""
    read = [trajfile.read_record(part) for part in parts]
    headers = [header for header, _ in read]
    shards.check(parts, headers, trajfile.FREE)
    wanted = max(header[shards.RECORD]["num_jumps"] for header in headers)
    saved = []
    with contextlib.ExitStack() as stack, _made_whole(folder) as whole:
        for part, header in zip(parts, headers, strict=True):
            stack.enter_context(cli.locked(part))
            paths = trajfile.paths_of(part, header)
            own = rollstate.read_state(part, len(paths), None)
            if own.num_jumps != wanted:
                raise UsageError(
                    f"{part}: expected {wanted} jumps, found {max(own.num_jumps, 0)}; "
                    "run its command again, it goes on"
                )
            rollstate.check_whole(paths, own)
            for path, size in zip(paths, own.sizes.tolist(), strict=True):
                _copy(path, whole, size)
            saved.append(own)
        header = {k: v for k, v in headers[0].items() if k != shards.RECORD}
        topology = trajfile.files_of(parts[0], header)[0]
        _copy(topology, whole)
        together = _together(saved)
        rollstate.write_state(whole, together)
        settings = header["settings"]
        time = settings["frame_time"] / settings["every"]
        summary = outcome.summary_of(together.state, wanted, time)
        if any(trust is not None for _, trust in read):
            summary = with_confidence(summary, header, topology)
        trust = confidence.to_json(summary.confidence)
        found = {"result": outcome.to_json(summary), "confidence": trust}
        trajfile.write_record(whole, {**header, **found})
    told = outcome.describe(summary, settings["max_redraws"] is not None)
    count = summary.num_replicas
    sys.stdout.write(f"{folder}: {count} replicas, of {len(parts)} parts; {told}\n")
    return summary


def _together(saved: Sequence[Saved]) -> Saved:
    """Returns the state of all replicas."""
    arrays = zip(*(one[1:] for one in saved), strict=True)
    joined = map(np.concatenate, arrays)
    return Saved(saved[0].num_jumps, *joined)


def with_confidence(
    summary: Summary, header: dict[str, Any], topology: Path
) -> Summary:
    """Returns figures with how far to trust them, by the calibration of the weights."""
    import mdtraj

    from equijump.data.molecules import read_system
    from equijump.weights import load_weights

    weights = load_weights(header["checkpoint"])
    if weights.checksum != header["weights_sha256"]:
        raise UsageError(
            f"{header['checkpoint']}: expected the weights of the rollout, found others"
        )
    frame = mdtraj.load(str(topology))
    positions = frame.xyz[0].astype(np.float64) * ANGSTROM_PER_NM
    settings = header["settings"]
    plan = Plan(
        system=read_system(frame.topology, positions, str(topology)),
        starts=np.zeros((0, frame.n_atoms, 3), np.float32),
        conditions={} if settings["lag"] is None else {"lag": settings["lag"]},
        seed=header["seed"],
        max_redraws=settings["max_redraws"],
    )
    return outcome.with_confidence(summary, plan, weights)


def _molecules_of(part: Path) -> list[str]:
    """Returns the folders of a simulation in a part: its own, or one a molecule."""
    names = sorted(path.parent.name for path in part.glob(f"*/{SIMULATION}"))
    names = ["."] if (part / SIMULATION).is_file() else names
    if not names:
        raise UsageError(
            f"{part}: expected {ROLLOUT} of a rollout or {SIMULATION} of a simulation, "
            "found neither"
        )
    return names


def _merge_simulations(folder: Path, parts: Sequence[Path]) -> None:
    """Puts the replicas of a simulated molecule together."""
    what = "what an earlier command wrote"
    records = [reading.read_json(part / SIMULATION, what) for part in parts]
    shards.check(parts, records, _MAY_DIFFER)
    with reading.refusing(parts[0] / SIMULATION, what):
        flags = records[0]["flags"]
        num_frames = round(1000 * flags["length"] / flags["spacing"])
        stem = replicas.stem_of(flags["sequence"], flags["pdb"], flags["caps"])
    folder.mkdir(exist_ok=True)
    for part, record in zip(parts, records, strict=True):
        with cli.locked(part):
            for number in shards.part_of(record):
                path = part / f"{stem}_{number}.xtc"
                replicas.check_states([path])
                state = replicas.read_state(replicas.state_of(path))
                done = 0 if state is None else state.num_frames
                if done != num_frames:
                    raise UsageError(
                        f"{path}: expected {num_frames} frames, found {done}; run the "
                        "command of its part again, it goes on"
                    )
                _copy(path, folder, state.num_bytes)
                _copy(replicas.state_of(path), folder)
    _copy(parts[0] / f"{stem}.pdb", folder)
    whole = {k: v for k, v in records[0].items() if k != shards.RECORD}
    replicas.write_record(folder, whole)


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(
        COMMAND,
        "Puts the parts of a run with --shard together, as one process would have "
        "written them.",
    )
    told = "--output of the parts, of equijump sample or simulate"
    parser.add_argument("output", help=told)
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(COMMAND, main))
