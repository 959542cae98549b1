"""What a network of several peptides was trained on, and what lies outside of it.

Packaged weights have it in their metadata as `transferable`; of a run it is read from
the trajectories that train.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from equijump import ends
from equijump.data.residues import CAPS, NUM_TYPES, RESIDUES, TOKENS
from equijump.data.topology import System, all_bonds

OPENMM_NS = 0.0757
"""ns of OpenMM in a CPU-second, of `OPENMM_ATOMS` atoms with OBC2 on one core."""

OPENMM_ATOMS, OPENMM_POWER = 22, 1.8
TRAINING_HOURS = 0.2
"""CPU-hours of `configs/equijump/peptides.py` for each residue, caps among them."""

DATA_NS = 60.0
"""ns of trajectories that such a network is trained on."""


class Transferable(NamedTuple):
    """Peptides that a network was trained on.

    Attributes:
        sequences: their residues, as `ACE-ALA-NME`; chains are parted by a slash.
        has_free_ends: true if some of them had ends without caps.
    """

    sequences: tuple[str, ...]
    has_free_ends: bool

    @property
    def residues(self) -> set[str]:
        """Returns the types of residues, caps among them."""
        return {name for text in self.sequences for name in names_of(text)}

    @property
    def lengths(self) -> tuple[int, int]:
        """Returns the least and the largest number of amino acids."""
        counts = [num_residues(text) for text in self.sequences]
        return min(counts), max(counts)

    @property
    def num_chains(self) -> int:
        """Returns the largest number of chains."""
        return max(text.count("/") + 1 for text in self.sequences)


def sequence_of(system: System) -> str:
    """Returns the residues of a system in one line, named as in the table of types."""
    text = ""
    for row, token in enumerate(system.tokens.tolist()):
        is_next = row > 0 and system.chains[row] == system.chains[row - 1]
        text += ("-" if is_next else "/" if row else "") + RESIDUES[token - 1].name
    return text


def names_of(sequence: str) -> list[str]:
    """Returns the residues of all chains.

    >>> names_of("ACE-ALA-NME/GLY-GLY")
    ['ACE', 'ALA', 'NME', 'GLY', 'GLY']
    """
    return sequence.replace("/", "-").split("-")


def num_residues(sequence: str) -> int:
    """Returns the number of amino acids.

    >>> num_residues("ACE-ALA-NME")
    1
    """
    return sum(name not in CAPS for name in names_of(sequence))


def pairs_of(sequence: str) -> list[tuple[str, str]]:
    """Returns the neighbours along the chains, caps among them.

    >>> pairs_of("ACE-ALA-NME")
    [('ACE', 'ALA'), ('ALA', 'NME')]
    """
    chains = [chain.split("-") for chain in sequence.split("/")]
    return [pair for chain in chains for pair in itertools.pairwise(chain)]


def of_systems(systems: Iterable[System]) -> Transferable | None:
    """Returns what several peptides have taught; None for a single one."""
    known: dict[str, bool] = {}
    for system in systems:
        known.setdefault(sequence_of(system), bool(ends.free_ends(system)))
    if len(known) < 2:
        return None
    return Transferable(tuple(sorted(known)), any(known.values()))


def to_json(
    transferable: Transferable,
    lags: Sequence[float],
    temperatures: Sequence[float],
) -> dict[str, Any]:
    """Returns it as metadata, with numbers that a reader looks for.

    Args:
        transferable: peptides.
        lags: lags of training, in ps.
        temperatures: least and largest temperature of training, in K.
    """
    return {
        "sequences": list(transferable.sequences),
        "has_free_ends": transferable.has_free_ends,
        "residues": sorted(transferable.residues),
        "lengths": list(transferable.lengths),
        "lags_ps": list(lags),
        "temperatures_K": list(temperatures),
    }


def from_json(record: Mapping[str, Any] | None) -> Transferable | None:
    """Returns what metadata tell; None where they tell nothing.

    Raises:
        ValueError: A residue is of no type.
    """
    if record is None:
        return None
    sequences = tuple(map(str, record["sequences"]))
    for text in sequences:
        unknown = set(names_of(text)) - TOKENS.keys()
        if unknown:
            raise ValueError(f"a residue {min(unknown)!r} in a training sequence")
    if not sequences:
        raise ValueError("no training sequence")
    return Transferable(sequences, bool(record["has_free_ends"]))


def outside(
    transferable: Transferable, system: System, states: Sequence[str] = ()
) -> list[str]:
    """Returns what of a system lies outside the training, in words.

    Args:
        transferable: peptides that trained.
        system: molecule that is to be rolled out.
        states: residues whose protonation is not that of pH 7.
    """
    sequence, found = sequence_of(system), []
    count, (low, high) = num_residues(sequence), transferable.lengths
    if not low <= count <= high:
        found.append(f"{count} residues (trained on {low} to {high})")
    others = sorted(set(names_of(sequence)) - transferable.residues)
    if others:
        found.append(f"residues {', '.join(others)}")
    chains = sequence.count("/") + 1
    if chains > transferable.num_chains:
        found.append(f"{chains} chains (trained on {transferable.num_chains})")
    if len(system.bonds) > len(_chain_bonds(system)):
        found.append("bonds between side chains, as disulphides")
    if states:
        found.append(f"protonation of {', '.join(states[:4])}")
    free = ends.free_ends(system)
    if free and not transferable.has_free_ends:
        found.append(
            f"free ends, {ends.describe(system, free)} (--add_caps puts ACE and NME on)"
        )
    return found


def _chain_bonds(system: System) -> np.ndarray:
    return all_bonds(system.tokens, system.chains, system.slot_atoms)


def how_to_make(system: System, flag: str) -> str:
    """Returns the commands that make a network for a system, and what they take.

    Args:
        system: molecule.
        flag: flag that has it, as `--start=mine.pdb` or `--sequence=GW`.
    """
    atoms = 2.0 * len(system.kept)  # With hydrogens.
    hours = DATA_NS / OPENMM_NS * (atoms / OPENMM_ATOMS) ** OPENMM_POWER / 3600
    training = TRAINING_HOURS * len(system.tokens)
    name, _, value = flag.removesuffix(" --no-add_caps").partition("=")
    caps = " --caps" if "ACE" in names_of(sequence_of(system)) else ""
    given = f"--pdb={value}" if name == "--start" else f"--sequence={value}{caps}"
    if max(system.tokens) > NUM_TYPES:  # Of which force fields know nothing.
        given += " --replace_nonstandard"
        flag = f"--start=md/{Path(value).stem}.pdb"
    return (
        f"to make one: equijump simulate {given} --replicas=8 "
        f"--length={DATA_NS / 8:g} --output=md ({DATA_NS:g} ns, about "
        f"{_hours(hours)} CPU-hours of OpenMM), equijump train --config=peptides "
        f"--config.data.sources=\"('md/*.xtc',)\" --workdir=run (about "
        f"{_hours(training)} CPU-hours), equijump sample --checkpoint=run {flag}"
    )


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours < 10 else f"{hours:.0f}"
