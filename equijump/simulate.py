"""Makes trajectories to train on: `equijump simulate --sequence=AAQAA --output=data`.

Flags are those of `equijump.simulate_flags`; replicas run side by side by
`equijump.parallel`. OpenMM is behind `equijump.md`, imported when the flags are good;
the files are those of `equijump.replicas`.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.commands import cli, shards
from common.errors import RunError
from common.runs.training import StopOnSignal
from equijump import folding, parallel, replicas
from equijump.simulate_flags import describe, each, make_plan, parser
from equijump.simulation import (
    Plan,
    Simulation,
    begin,
    load_md,
    set_up,
    told,
    write_topology,
)


class Job(NamedTuple):
    """A molecule to simulate.

    Attributes:
        arguments: flags, as if it were the only molecule.
        plan: lengths of the simulation.
        folder: folder of its files.
        wanted: what decides its trajectories.
        paths: its trajectories.
        part: their numbers.
    """

    arguments: argparse.Namespace
    plan: Plan
    folder: Path
    wanted: dict[str, Any]
    paths: list[Path]
    part: range

    @property
    def topology(self) -> Path:
        """Path of the PDB file beside the trajectories."""
        return self.folder / f"{self.plan.stem}.pdb"

    @property
    def total(self) -> int:
        """Number of frames of all replicas."""
        return len(self.paths) * self.plan.num_frames


def seed_of(seed: int, replica: int) -> int:
    """Returns the seed of one replica; OpenMM takes 0 for none at all.

    >>> seed_of(0, replica=1) == seed_of(0, replica=1) != seed_of(0, replica=2)
    True
    """
    (state,) = np.random.SeedSequence((seed, replica)).generate_state(1)
    return 1 + int(state) % (2**31 - 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `equijump simulate` and returns the exit status.

    Args:
        argv: arguments after the command; those of the process where None.
    """
    arguments = parser().parse_args(argv)
    shard = shards.read(arguments.shard)
    shards.refuse(arguments, ("find_folding_temperature",), "leave --shard out")
    arguments.output = str(shards.path_of(Path(arguments.output), shard))
    if arguments.find_folding_temperature:
        arguments = folding.first_of_ladder(arguments)
        return folding.main(arguments, make_plan(arguments))
    jobs = [_job(own) for own in each(arguments)]
    jobs = [job for job in jobs if not _is_done(job)]
    if jobs:
        load_md()
        _simulate(jobs, arguments)
    return 0


def _job(arguments: argparse.Namespace) -> Job:
    """Checks all of a molecule that can be checked without OpenMM."""
    plan, folder = make_plan(arguments), Path(arguments.output)
    shard = shards.read(arguments.shard)
    part = shards.span(shard, arguments.replicas, what="replicas")
    paths = [folder / f"{plan.stem}_{number}.xtc" for number in part]
    wanted = describe(arguments) | shards.describe(shard, part, arguments.replicas)
    job = Job(arguments, plan, folder, wanted, paths, part)
    for path in (folder / "simulate.json", job.topology):
        cli.check_output(path)
    if arguments.pdb is not None:
        cli.check_apart(job.topology, replicas.pdb_path(arguments.pdb))
    replicas.find(folder, job.wanted, plan.stem)
    replicas.check_states(paths)
    return job


def _is_done(job: Job) -> bool:
    """Returns whether nothing is left to do, and says so."""
    found = replicas.find(job.folder, job.wanted, job.plan.stem)
    is_whole = found is not None and job.topology.is_file()
    if not is_whole or replicas.num_done(job.paths) < job.total:
        return False
    sys.stdout.write(f"{job.folder}: all {job.total} frames are done\n")
    return True


def _simulate(jobs: Sequence[Job], arguments: argparse.Namespace) -> None:
    """Simulates all molecules, and says what became of each."""
    total = sum(job.total for job in jobs)
    done = sum(replicas.num_done(job.paths) for job in jobs)
    num_tasks = sum(len(job.paths) for job in jobs)
    processes = parallel.num_processes(
        arguments.processes, arguments.platform, num_tasks
    )
    failures: list[RunError] = []
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopOnSignal())
        advance = stack.enter_context(
            cli.progress(total, "simulating", "frames", completed=done)
        )
        asked = lambda: stop.requested
        tasks = _tasks(jobs, processes, stack, asked, failures)
        parallel.run(tasks, processes, advance, asked, failures)
    if failures:
        more = f"; {len(failures) - 1} more failed" if len(failures) > 1 else ""
        raise RunError(f"{failures[0]}{more}") from failures[0]
    for job in jobs:
        done = replicas.num_done(job.paths)
        if done < job.total:
            raise RunError(
                f"{job.folder}: stopped after {done} of {job.total} frames; run again, "
                "it goes on"
            )
        sys.stdout.write(
            f"{job.folder}: {job.total} frames, topology in {job.topology.name}\n"
        )


def _tasks(
    jobs: Sequence[Job],
    processes: int,
    stack: contextlib.ExitStack,
    stop: Callable[[], bool],
    failures: list[RunError],
) -> Iterator[parallel.Task]:
    """Yields what is left to do; a molecule is set up when it is first asked for."""
    for job in jobs:
        if stop():
            return
        try:
            ready = _set_up(job, processes, stack)
        except RunError as error:
            failures.append(error)
            continue
        for replica, path in zip(job.part, job.paths, strict=True):
            if replicas.num_done([path]) < job.plan.num_frames:
                seed = seed_of(job.arguments.seed, replica)
                yield parallel.Task(ready, job.plan, path, seed)


def _set_up(job: Job, processes: int, stack: contextlib.ExitStack) -> Simulation:
    """Builds a molecule and writes all but its frames; the folder stays locked."""
    md = load_md()
    found = replicas.find(job.folder, job.wanted, job.plan.stem)
    begun = [replicas.read_begun(path) is not None for path in job.paths]
    with told(md, job.folder):
        ready = set_up(
            md, job.arguments, found, minimises=not all(begun), alone=processes == 1
        )
    sys.stdout.write(f"platform: {ready.engine.platform}\n")
    stack.enter_context(cli.made_folder(job.folder))
    stack.enter_context(cli.locked(job.folder))
    # Another command may have begun in the folder since.
    found = replicas.find(job.folder, job.wanted, job.plan.stem)
    if found is None:
        begin(job.folder, job.plan, job.wanted, ready, md)
    else:
        replicas.write_record(job.folder, found | job.wanted)
    if not job.topology.is_file():
        write_topology(job.topology, ready, md)
    return ready


if __name__ == "__main__":
    sys.exit(cli.run("equijump simulate", main))
