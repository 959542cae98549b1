"""Program of the child process in which trajectories are read; see `files`.

Readers in C may crash at a damaged file: here they take nobody with them. It is run by
its path and imports nothing of this package. A request is a line of JSON; an answer is
a line of JSON, with the bytes of its arrays behind it. Each answer but the first waits
for a line, which may say that it is not wanted. Positions are in nm, as MDTraj has
them, unless a task says otherwise; times are in ps.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np


def main() -> None:
    """Answers requests until there are no more."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # The parent tells when to end.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What libraries print is no answer.
    import mdtraj  # noqa: F401  # While the parent still prepares the request.

    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        try:
            for arrays, answer in _ANSWERS[request.pop("task")](**request):
                _send(answers, answer, arrays)
                if sys.stdin.buffer.readline() != b"more\n":
                    break
        except Exception as error:  # MDTraj's readers raise whatever they like.
            text = str(error) or type(error).__name__
            _send(answers, {"error": text, "names": _names(request["path"])}, [])
        _send(answers, {"end": True}, [])


def _send(answers: BinaryIO, answer: dict[str, Any], arrays: list[np.ndarray]) -> None:
    described = [(x.dtype.str, x.shape) for x in arrays]
    line = json.dumps({**answer, "arrays": described}) + "\n"
    answers.write(line.encode())
    for array in arrays:
        answers.write(np.ascontiguousarray(array).tobytes())
    answers.flush()


def _frames(
    path: str, num_atoms: int, chunk: int, at_most: int | None
) -> Iterator[tuple[list[np.ndarray], dict[str, Any]]]:
    """Yields positions, times and, where there is one, the box of some frames."""
    import mdtraj

    if path.lower().endswith((".h5", ".lh5", ".hdf5")):
        with mdtraj.open(path) as file:
            found = file.root.coordinates.shape[1]
        if found != num_atoms:
            raise ValueError(f"{found} atoms")
    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(num_atoms):
        topology.add_atom("X", mdtraj.element.carbon, residue)
    done = 0
    for part in mdtraj.iterload(path, top=topology, chunk=chunk):
        if part.n_atoms != num_atoms:
            raise ValueError(f"{part.n_atoms} atoms")
        arrays = [part.xyz.astype(np.float32), np.asarray(part.time, np.float64)]
        if part.unitcell_vectors is not None:
            arrays.append(part.unitcell_vectors.astype(np.float32))
        yield arrays, {}
        done += part.n_frames
        if at_most is not None and done >= at_most:
            return


def _topology(path: str) -> Iterator[tuple[list[np.ndarray], dict[str, Any]]]:
    """Yields the topology of a file: chains of residues of atoms."""
    import mdtraj

    chains = [
        [
            [r.name, r.resSeq, [[a.name, _symbol(a)] for a in r.atoms]]
            for r in chain.residues
        ]
        for chain in mdtraj.load_topology(path).chains
    ]
    yield [], {"chains": chains}


def _symbol(atom: Any) -> str | None:
    return None if atom.element is None else atom.element.symbol


def _mdcath(path: str) -> Iterator[tuple[list[np.ndarray], dict[str, Any]]]:
    """Yields a domain of mdCATH: the PDB file as text, and the shape of each replica.

    A replica is `[temperature, number, shape]`, of an empty one the shape is null.
    """
    import h5py

    with h5py.File(path) as file:
        domains = [name for name in file if "pdbProteinAtoms" in file[name]]
        if not domains:
            raise ValueError(
                f"no text pdbProteinAtoms, but {', '.join(file) or 'none'}"
            )
        for name in domains:
            domain, replicas = file[name], []
            for temperature in sorted(filter(str.isdigit, domain), key=int):
                group = domain[temperature]
                for number in sorted(filter(str.isdigit, group), key=int):
                    shape = getattr(group[number].get("coords"), "shape", None)
                    replicas.append([temperature, number, shape])
            text = domain["pdbProteinAtoms"][()]
            text = text if isinstance(text, bytes) else str(text).encode()
            pdb = text.decode("utf-8", "replace")
            yield [], {"domain": name, "pdb": pdb, "replicas": replicas}


def _mdcath_frames(
    path: str, place: str, chunk: int
) -> Iterator[tuple[list[np.ndarray], dict[str, Any]]]:
    """Yields positions in Å, with the edges of the box in nm where there is one."""
    import h5py

    with h5py.File(path) as file:
        replica = file[place]
        box = np.asarray(replica["box"], np.float32) if "box" in replica else None
        boxes = [] if box is None or box.shape != (3, 3) else [box]
        for start in range(0, len(replica["coords"]), chunk):
            part = replica["coords"][start : start + chunk].astype(np.float32)
            yield [part, *boxes], {}


def _names(path: str) -> list[str]:
    """Returns what an HDF5 file has at its root and one level below, to tell it by."""
    try:
        import tables

        with tables.open_file(path) as file:
            attributes = file.root._v_attrs
            names = [f"{name}={attributes[name]}" for name in attributes._v_attrnames]
            for child in list(file.root._v_children.values())[:3]:
                names += [child._v_name, *list(getattr(child, "_v_children", ()))[:20]]
            return [str(name) for name in names]
    except (AttributeError, LookupError, OSError, RuntimeError, ValueError):
        return []  # No HDF5 file, or a damaged one.


_ANSWERS = {
    "names": lambda path: iter([([], {"names": _names(path)})]),
    "frames": _frames,
    "topology": _topology,
    "mdcath": _mdcath,
    "mdcath_frames": _mdcath_frames,
}

if __name__ == "__main__":
    main()
