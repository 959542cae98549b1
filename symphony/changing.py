"""The command line that `symphony edit` and `symphony complete` share."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from common.commands import cli
from symphony import data, editing, manifest, molfile, rounds, sample
from symphony.acceptance import Gate
from symphony.editing import Changer, Job
from symphony.inputs import add_input, input_of
from symphony.weights import Weights, load_weights

ASKED = ("formula", "num_atoms", "max_heavy", "elements")
"""Flags of both commands, as keywords of what makes their changers."""


def add_flags(parser: argparse.ArgumentParser, output: str) -> None:
    """Adds the flags that both commands have."""
    add = parser.add_argument
    add_input(parser)
    add("-o", "--output", default=output, help=molfile.OUTPUT_HELP)
    add("--num_molecules", type=int, default=1, help="for each molecule of the file")
    add("--checkpoint", default="qm9", help="packaged weights or a run's folder")
    add("--seed", type=int, default=0, help="of the random numbers")
    add("--formula", help="of the whole, as C7H10O2")
    add("--num_atoms", help="of the whole, with hydrogens, as 18 or 12-20")
    add("--max_heavy", type=int, default=None, help="atoms heavier than hydrogen")
    add("--elements", help="that may be added, as C,N,O,H")
    sample.add_gate(parser)
    add("--num_slots", type=int, default=None, help="molecules built at a time")
    add("--overwrite", action="store_true", help="replace what --output has")


def run(
    flags: argparse.Namespace,
    changer_of: Callable[[Weights], Changer],
    basin: bool,
    doing: str,
) -> int:
    """Runs a command that changes the molecules of a file; returns the exit status.

    Args:
        flags: flags of the command.
        changer_of: function of the weights that returns what changes a molecule.
        basin: true to narrow the modes of positions.
        doing: word for the progress.
    """
    source = input_of(flags)
    molfile.check(flags.output, source)
    gate = sample.make_gate(flags, flags.num_molecules)
    weights = load_weights(flags.checkpoint)
    job = editing.make_job(
        weights, source, changer_of(weights), flags.num_molecules, flags.seed,
        flags.num_slots, basin,
    )  # fmt: skip
    cli.announce_device()
    head = _header(job, flags, gate)
    with molfile.open_output(flags.output, head, flags.overwrite) as output:
        if gate is None:
            total, make = len(job.changes) * job.number, partial(editing.draw_all, job)
            written = manifest.write_all(output, make, total, doing)
            sample.tell(flags.output, written, None)
            return 0
        gates = rounds.Gates(gate.terms, job.number, len(job.changes))
        rounds.write_all(output, partial(editing.draw, job), gates, doing)
    sample.tell(flags.output, None, gates.together())
    return 0


def _header(job: Job, flags: argparse.Namespace, gate: Gate | None) -> dict[str, Any]:
    """Returns what decides the molecules."""
    head = manifest.header(job.weights, job.options, job.seed, gate=gate)
    cores = data.make_molecules(
        np.array([len(change.core[0]) for change in job.changes]),
        np.concatenate([change.core[0] for change in job.changes]),
        np.concatenate([change.core[1] for change in job.changes]),
    )
    names = ("remove", "keep_formula", "attach", *ASKED)
    asked = {name: getattr(flags, name, None) for name in names}
    asked = {name: value for name, value in asked.items() if value}
    return {
        **head,
        "settings": {**head["settings"], **asked, "for_each": job.number},
        "molecules_sha256": data.checksum(cores),
    }


def given(flags: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Returns flags by their names."""
    return {name: getattr(flags, name) for name in names}
