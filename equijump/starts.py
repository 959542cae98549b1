"""Structures that replicas begin with: of files, or built from a sequence.

Positions are in Å.
"""

import glob
import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float32

from common.errors import UsageError
from equijump import builder, ends, protonation, repair, strain
from equijump.data import files, frames
from equijump.data.residues import TOKENS, slot_of
from equijump.data.topology import System, difference, fit_to, is_same, reordered
from equijump.replicas import pdb_path
from equijump.transferable import how_to_make, outside, sequence_of
from equijump.weights import Molecule, Weights

ALA2 = "ACE-ALA-NME"
"""Residues of the packaged weights `ala2`."""

_LONGEST_NAME = 24


class Given(NamedTuple):
    """Structures of one file, or of a sequence.

    Attributes:
        source: file as it was named, or the sequence.
        flag: flag that it came by, with its value.
        system: molecule.
        positions: positions of its atoms, in Å.
        states: residues whose protonation is not that of pH 7.
    """

    source: str
    flag: str
    system: System
    positions: Float32[np.ndarray, "num_frames num_atoms 3"]
    states: tuple[str, ...] = ()


class Request(NamedTuple):
    """What a user says of starts; see `equijump.options.choose`."""

    start: Any = None
    topology: str | os.PathLike[str] | None = None
    select: str = ""
    sequence: str | None = None
    add_caps: bool | None = None


def take(request: Request, replicas: int, seed: int) -> list[Given]:
    """Reads or builds what replicas begin with; empty where nothing is asked for.

    Args:
        request: what the user says.
        replicas: number of replicas.
        seed: seed of what is built.

    Raises:
        UsageError: A structure cannot be used, or flags do not belong together.
    """
    start, sequence = request.start, request.sequence
    if start is not None and sequence is not None:
        raise UsageError("expected --start or --sequence, found both")
    if start is None:
        for flag in ("topology", "select"):
            if getattr(request, flag):
                raise UsageError(f"--{flag}: expected --start beside it, found none")
    if sequence is not None:
        return [_built(sequence, request.add_caps is not False, replicas, seed)]
    if start is None:
        if request.add_caps is not None:
            raise UsageError(
                "--add_caps: expected --start or --sequence beside it, found neither"
            )
        return []
    return _read(request, replicas + 1)  # One more tells that some are left over.


def _built(sequence: str, caps: bool, replicas: int, seed: int) -> Given:
    names = builder.parse(sequence)
    if not caps and len(names) < 2:
        raise UsageError(
            "--sequence: expected two residues or more without caps, found one; leave "
            "--no-add_caps out"
        )
    names = ("ACE", *names, "NME") if caps else names
    flag = f"--sequence={sequence}" + ("" if caps else " --no-add_caps")
    return Given(sequence, flag, *builder.build(names, replicas, seed))


def _read(request: Request, at_most: int) -> list[Given]:
    start = request.start
    if hasattr(start, "xyz"):
        return [_given("start", frames.from_mdtraj, (start, "start"), request, at_most)]
    is_one = isinstance(start, str | os.PathLike)
    names: Sequence[Any] = [start] if is_one else start
    named = [pair for name in names for pair in _files(str(name))]
    if not named:
        raise UsageError("--start: expected a file, found none")
    read, topology = frames.read_structures, request.topology
    return [_given(n, read, (path, topology), request, at_most) for n, path in named]


def _files(name: str) -> list[tuple[str, str | Path]]:
    """Returns files as they were named, with their paths: of a pattern all of them.

    A name without a file may be that of a packaged structure, as `cln025`.
    """
    if glob.has_magic(name):
        return [(str(path), path) for path in files.matching("--start", name)]
    path = pdb_path(name)
    return [(name, name if path == Path(name) else path)]


def _given(
    path: Any, read: Any, what: tuple[Any, ...], request: Request, at_most: int
) -> Given:
    """Reads one file, what residues lack built, and puts caps on if asked.

    What is wrong with its geometry is told.
    """
    states: list[str] = []

    def complete(topology: Any, *more: Any) -> Any:
        states.extend(protonation.unusual(topology))
        return repair.complete(topology, *more)

    system, positions = read(*what, at_most, request.select, complete)
    if request.add_caps:
        system, positions = ends.add_caps(system, positions, str(path))
    _tell_strain(str(path), system, positions)
    return Given(str(path), f"--start={path}", system, positions, tuple(states))


def serve(
    weights: Weights,
    molecules: Mapping[str, Molecule],
    given: Sequence[Given],
    replicas: int,
    num_types: int,
) -> tuple[str, Molecule, list[str]]:
    """Returns the system that structures are of, and a start for each replica.

    Structures of a system that trained are in its order of atoms. Others are rolled out
    by a network of several peptides, and what lies outside its training is told.

    Args:
        weights: trained model.
        molecules: systems of the weights that may be meant.
        given: structures.
        replicas: number of replicas.
        num_types: number of residue types that the network knows.

    Returns:
        Name of the system, it with its starts, and what is outside the training.

    Raises:
        UsageError: The network cannot serve them.
    """
    given = [_with_sulphur(one, num_types) for one in given]
    for one in given:
        _check_types(one, num_types)
    is_known = any(is_same(m.system, given[0].system) for m in molecules.values())
    if weights.transferable is None or is_known:
        name, found = _matched(molecules, given)
        system, outer = molecules[name].system, []
    else:
        name, system = name_of(given[0]), given[0].system
        found = [_like_first(given[0], one) for one in given]
        states = [state for one in given for state in one.states]
        outer = outside(weights.transferable, system, list(dict.fromkeys(states)))
        outer += _turned(given)
        _tell_outside(weights.name, given[0].source, outer)
        system = fit_to(system, num_types, given[0].source)
    order = in_turn(tuple(map(len, found)))[:replicas]
    if given[0].flag.startswith("--start"):
        _tell_left_over([one.source for one in given], found, order)
    starts = np.stack([found[file][place] for file, place in order])
    return name, Molecule(system, starts), outer


def _matched(
    molecules: Mapping[str, Molecule], given: Sequence[Given]
) -> tuple[str, list[Float32[np.ndarray, "_ num_atoms 3"]]]:
    """Returns the trained system of all structures, and them in its order of atoms."""
    matched = [match(molecules, one) for one in given]
    name = matched[0][0]
    for one, (other, _) in zip(given, matched, strict=True):
        if other != name:
            raise UsageError(
                f"{one.source}: expected {name} as in the first, found {other}"
            )
    return name, [positions for _, positions in matched]


def _with_sulphur(one: Given, num_types: int) -> Given:
    """Returns a structure with MET for MSE where the network does not know MSE.

    Slots of both are the same; selenium, in the place of sulphur, is .1 Å too far out.
    """
    system, selenium = one.system, TOKENS["MSE"]
    is_mse = system.tokens == selenium
    if num_types >= selenium or not is_mse.any():
        return one
    rows = np.flatnonzero(is_mse).tolist()
    residues, atoms = list(system.residue_names), list(system.atom_names)
    for row in rows:
        residues[row] = "MET"
        atoms[system.slot_atoms[row, slot_of(selenium, "SE")]] = "SD"
    made = system._replace(
        tokens=np.where(is_mse, TOKENS["MET"], system.tokens).astype(np.int32),
        residue_names=tuple(residues),
        atom_names=tuple(atoms),
    )
    numbers = ", ".join(f"MSE{row + 1}" for row in rows[:4])
    logging.warning("%s: %s taken as MET, which the network knows", one.source, numbers)
    return one._replace(system=made)


def _turned(given: Sequence[Given]) -> list[str]:
    """Returns in words which residues are D amino acids; networks know L ones."""
    each = (strain.turned(one.system, one.positions) for one in given)
    names = list(dict.fromkeys(name for names in each for name in names))
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return [f"D handedness of {', '.join(names[:4])}{more}"] if names else []


def _check_types(one: Given, num_types: int) -> None:
    """Raises `UsageError` for a residue that the network cannot read."""
    try:
        fit_to(one.system, num_types, one.source)
    except UsageError as error:
        raise UsageError(f"{error}; {how_to_make(one.system, one.flag)}") from None


def name_of(one: Given) -> str:
    """Returns the name of files of a rollout that starts from a structure.

    >>> name_of(Given("my peptide.v2.pdb.gz", "--start=...", None, None))
    'my_peptide.v2'
    """
    stem = one.source
    if one.flag.startswith("--start"):
        stem = Path(stem.removesuffix(".gz")).stem
    stem = re.sub(r"[^\w.+-]+", "_", stem, flags=re.ASCII).strip("._")
    if len(stem) > _LONGEST_NAME:
        digest = hashlib.sha256(stem.encode()).hexdigest()[:6]
        stem = f"{stem[:_LONGEST_NAME]}_{digest}"
    return stem or "start"


def _like_first(first: Given, one: Given) -> Float32[np.ndarray, "_ num_atoms 3"]:
    """Returns structures in the order of atoms of the first file's."""
    if not is_same(first.system, one.system):
        raise UsageError(
            f"{one.source}: expected the system of {first.source} "
            f"({_sequence(first.system)}), found {_sequence(one.system)}"
            f"{difference(first.system, one.system)}; roll them out one by one"
        )
    return reordered(one.positions, one.system, first.system)


def _tell_strain(
    source: str, system: System, positions: Float32[np.ndarray, "_ num_atoms 3"]
) -> None:
    found = strain.strained(system, positions)
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        logging.warning(
            "%s: strained, %s%s; the gate compares jumps with the start and may refuse "
            "all of them: minimise it first", source, ", ".join(found[:3]), more,
        )  # fmt: skip


def _tell_outside(name: str, source: str, outer: Sequence[str]) -> None:
    if outer:
        logging.warning(
            "%s: outside the training of %s: %s", source, name, "; ".join(outer)
        )


def in_turn(counts: Sequence[int]) -> list[tuple[int, int]]:
    """Returns files and places of structures, one of each file at a time.

    >>> in_turn([1, 3])
    [(0, 0), (1, 0), (1, 1), (1, 2)]
    """
    rounds = range(max(counts, default=0))
    return [(f, k) for k in rounds for f, count in enumerate(counts) if k < count]


def _tell_left_over(
    paths: Sequence[str],
    found: Sequence[np.ndarray],
    order: Sequence[tuple[int, int]],
) -> None:
    """Logs which files have structures that no replica begins with."""
    used = np.bincount([file for file, _ in order], minlength=len(paths))
    left = [
        f"{path} ({count} used)"
        for path, count, one in zip(paths, used.tolist(), found, strict=True)
        if count < len(one)
    ]
    if left:
        logging.warning(
            "--start: %d replicas leave structures over: %s; give more --replicas",
            len(order), ", ".join(left),
        )  # fmt: skip


def match(
    molecules: Mapping[str, Molecule], given: Given
) -> tuple[str, Float32[np.ndarray, "num_frames num_atoms 3"]]:
    """Returns the trained system of some structures, and them in its order of atoms.

    Raises:
        UsageError: They are of no system that was trained on.
    """
    system = given.system
    for name, (trained, _) in molecules.items():
        if is_same(trained, system):
            return name, reordered(given.positions, system, trained)
    differ = [
        difference(m.system, system)
        for m in molecules.values()
        if np.array_equal(m.system.tokens, system.tokens)
    ]
    listed = "; ".join(
        f"{name}: {_sequence(m.system)}" for name, m in molecules.items()
    )
    raise UsageError(
        f"{given.source}: expected a system that the network was trained on "
        f"({listed}), found {_sequence(system)}{''.join(differ[:1])}; give "
        "--checkpoint of a network that was trained on it, or of several peptides; "
        f"{how_to_make(system, given.flag)}"
    )


def _sequence(system: System) -> str:
    names = system.residue_names
    shown = "-".join(names[:12])
    return f"{shown}-... ({len(names)} residues)" if len(names) > 12 else shown


def default_for(given: Sequence[Given], packaged: Collection[str]) -> str:
    """Returns the name of the packaged weights for structures.

    Args:
        given: structures; those of `ala2` where empty.
        packaged: names of packaged weights.

    Raises:
        UsageError: None can serve them.
    """
    others = [one for one in given if sequence_of(one.system) != ALA2]
    if not others:
        return "ala2"
    if "peptides" in packaged:
        return "peptides"
    first = others[0]
    raise UsageError(
        f"{first.source}: expected {ALA2}, the only system that packaged weights are "
        f"of, found {_sequence(first.system)}; {how_to_make(first.system, first.flag)}"
    )
