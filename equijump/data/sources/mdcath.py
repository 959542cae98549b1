"""mdCATH: domains of proteins at five temperatures, five replicas each, in HDF5.

Mirarchi, Giorgino and De Fabritiis 2024, arXiv:2407.14794. A file has the group of one
domain: `pdbProteinAtoms`, the text of a PDB file, gives the topology, and
`<temperature>/<replica>/coords` the positions in Å, 1 ns apart. Replicas may be empty,
and a few have tails of positions at 2e7 Å or of zeros. The acetyl cap is counted as a
part of the first residue.
"""

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from common.errors import UsageError
from equijump.data import child, divide, files, store
from equijump.data.frames import Trajectory
from equijump.data.sources import packing

SPACING = 1000.0
"""ps."""

_AGAIN = "get it again"
_CHUNK = 6_000_000
"""Coordinates in memory at once, at most."""

_NARROWED = re.compile(r"(.+)@([\d,]+)")


def read(argument: str, data: ml_collections.ConfigDict) -> Iterator[Trajectory]:
    """Yields a trajectory for each replica at each temperature of each file.

    Args:
        argument: files, as `mdcath/*.h5`, or a folder that has them; with `@320,348` at
            its end, of these temperatures alone.
        data: group `data` of a config: `select` is read.
    """
    narrowed = _NARROWED.fullmatch(argument)
    pattern, chosen = narrowed.groups() if narrowed else (argument, "")
    temperatures = tuple(filter(None, chosen.split(",")))
    paths = packing.matching(pattern, (".h5", ".hdf5"))
    jobs = (job for path in paths for job in _jobs(path, temperatures, data.select))
    yield from packing.trajectories("mdcath", jobs)


def _jobs(
    path: Path, temperatures: Sequence[str], select: str
) -> Iterable[packing.Job]:
    """Returns what is packed of a file at once: all of it, or one temperature."""
    for temperature in temperatures or ("",):
        pack = partial(_pack, path, temperature, select)
        yield packing.Job(path, (), f"{temperature} {select}", pack)


def _pack(path: Path, temperature: str, select: str, writer: store.Writer) -> None:
    for told, _ in list(_ask(path, "mdcath")):
        domain = told["domain"]
        chosen = [r for r in told["replicas"] if temperature in ("", r[0])]
        if not chosen:
            writer.skipped[f"files without a replica at {temperature} K"] += 1
        topology = topology_of(told["pdb"], f"{path} ({domain})")
        _check_shapes(path, chosen, topology.n_atoms)
        system = None
        for group, number, shape in chosen:
            place = f"{domain}/{group}/{number}"
            source = f"{path} ({place})"
            with contextlib.closing(_frames(path, place, shape)) as frames:
                first, *boxes = next(frames, [np.zeros((0, 0, 3))])
                real = packing.num_real(first)
                if real == 0:
                    writer.skipped["replicas that are empty"] += 1
                    continue
                box = boxes[0] * np.float32(files.ANGSTROM_PER_NM) if boxes else None
                system = system or packing.first_system(
                    topology, first[:real], source, select, writer, box
                )
                parts = itertools.chain([first], (part for part, *_ in frames))
                found = packing.add(writer, source, system, parts, box)
            known = {"temperature": float(group)}
            name = place.replace("/", "_")
            writer.end(system, divide.pieces(name, SPACING, found, known))


def _check_shapes(path: Path, replicas: Iterable[Any], num_atoms: int) -> None:
    """Raises `UsageError` for positions of other atoms than those of the text."""
    for group, number, shape in replicas:
        if shape and shape[1:] != [num_atoms, 3]:
            raise UsageError(
                f"{path}: expected positions of the {num_atoms} atoms of its text "
                f"pdbProteinAtoms, found an array of shape {shape} at {group} K, "
                f"replica {number}; {_AGAIN}"
            )


def _frames(
    path: Path, place: str, shape: Sequence[int] | None
) -> Iterator[list[np.ndarray]]:
    """Yields positions of a replica in Å, with the box in nm where there is one."""
    if not shape or not shape[0]:
        return
    chunk = max(1, _CHUNK // (3 * shape[1]))
    with contextlib.closing(
        _ask(path, "mdcath_frames", place=place, chunk=chunk)
    ) as it:
        for _, arrays in it:
            yield arrays


def _ask(path: Path, task: str, **request: Any) -> Iterator[tuple[dict, list]]:
    try:
        with contextlib.closing(child.ask(path, task=task, **request)) as answers:
            yield from answers
    except child.Refused as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: child.Refused) -> UsageError:
    found = " ".join(str(error).split())[:200]
    return UsageError(
        f"{path}: expected an HDF5 file of mdCATH, found damage, or another layout "
        f"({found}); {_AGAIN}"
    )


def topology_of(text: str, source: str) -> Any:
    r"""Returns the topology of the atoms of a PDB file, each of its lines an atom.

    Atoms of one name in a residue are all kept: those of the cap are among them.

    >>> line = "ATOM      1  N   ALA A   1       0.000   0.000   0.000  1.00  0.00"
    >>> topology_of(line + "\n" + line.replace(" N ", " CA"), "a").n_atoms
    2

    Args:
        text: contents of the file.
        source: file and domain, for the message of an error.
    """
    import mdtraj

    topology, chain, residue, last = mdtraj.Topology(), None, None, (None, None)
    for line in text.splitlines():
        if not line.startswith(("ATOM", "HETATM")):
            continue
        named = line[21:22] + line[72:76], line[17:21] + line[22:27]
        number = line[22:26].strip()
        if not line[12:16].strip() or not number.lstrip("-").isdigit():
            raise UsageError(
                f"{source}: expected lines of atoms in its text pdbProteinAtoms, found "
                f"{line[:40]!r}; {_AGAIN}"
            )
        if named[0] != last[0]:
            chain = topology.add_chain()
        if named != last:
            residue = topology.add_residue(line[17:21].strip(), chain, int(number))
        last = named
        topology.add_atom(line[12:16].strip(), _element(line), residue)
    return topology


def _element(line: str) -> Any:
    """Returns the element of an atom by its own column, else by its name."""
    import mdtraj

    symbol = line[76:78].strip() or line[12:16].strip().lstrip("0123456789")[:1]
    try:
        return mdtraj.element.get_by_symbol(symbol.capitalize())
    except KeyError:
        return None
