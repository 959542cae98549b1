"""Draws molecules of packaged weights and judges them, in parts that are kept.

A case is one set of weights, one way to sample, one seed. Its molecules lie in an SDF
that `symphony sample` goes on with; what was perceived of each `CHUNK` of them, and
every slow figure, lies beside it with a checksum of the molecules that it belongs to.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.errors import RunError
from symphony import sample
from symphony.chemistry import bonds
from symphony.evaluate import conventions, measure, samples

CHUNK = 500
MODES: dict[str, tuple[str, ...]] = {"temperature_1": (), "basin": ("--basin",)}
"""Flags of `symphony sample`, by the name of the way to sample."""

NEVER = "never finished"
NUM_RELAXED = 50
PARENT = measure.BOND_PRESET


class Case(NamedTuple):
    """Molecules of one seed.

    Attributes:
        weights: name of packaged weights.
        mode: key of `MODES`.
        seed: of the random numbers.
    """

    weights: str
    mode: str
    seed: int

    @property
    def path(self) -> Path:
        """Where the molecules lie, below the folder of all."""
        return Path(f"{self.weights}_{self.mode}_{self.seed}.sdf")


class Data(NamedTuple):
    """What molecules are compared with.

    Attributes:
        known: SMILES of the training molecules, by convention.
        molecules: training molecules, for sizes.
        some: a thousand of them, for distances.
        bonds: what is perceived of these.
    """

    known: dict[str, set[str]]
    molecules: list[bonds.Molecule]
    some: list[bonds.Molecule]
    bonds: list[bonds.Perception]


def draw(case: Case, count: int, folder: Path) -> samples.Samples:
    """Draws molecules, or goes on with those that are there, and reads the first ones.

    Raises:
        RunError: `symphony sample` failed.
    """
    path = folder / case.path
    if _num_drawn(path) < count:
        words = [f"--checkpoint={case.weights}", f"--num_molecules={count}"]
        words += [f"--seed={case.seed}", f"--output={path}", *MODES[case.mode]]
        status = sample.main(words)
        if status != 0:
            raise RunError(f"symphony sample {' '.join(words)}: status {status}")
    return first(samples.read_samples(path), count)


def _num_drawn(path: Path) -> int:
    """Returns how many molecules a manifest has; none where the last line is cut."""
    manifest = path.with_suffix(".jsonl")
    lines = manifest.read_text("utf-8").splitlines() if manifest.exists() else []
    if not lines or not lines[-1].endswith("}"):
        return 0
    return sum("index" in json.loads(line) for line in lines)


def first(drawn: samples.Samples, count: int) -> samples.Samples:
    """Returns the first molecules."""
    return drawn._replace(
        molecules=drawn.molecules[:count], faults=drawn.faults[:count]
    )


def keep(path: Path, key: int, make: Callable[[], Any]) -> Any:
    """Returns what a file has under a key, or makes and writes it.

    Args:
        path: JSON file.
        key: checksum of what the value is of.
        make: function that makes the value.
    """
    if path.exists():
        found = json.loads(path.read_text("utf-8"))
        if found["key"] == key:
            return found["value"]
    value = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps({"key": key, "value": value}), "utf-8")
    beside.replace(path)
    return value


def checksum(molecules: Sequence[bonds.Molecule]) -> int:
    """Returns a number that changes with any atom.

    >>> water = np.array([8, 1, 1], np.uint8), np.eye(3)
    >>> checksum([water]) == checksum([water, water])
    False
    """
    found = 0
    for numbers, positions in molecules:
        rounded = np.round(np.asarray(positions, np.float64), 4) + 0.0
        found = zlib.crc32(np.asarray(numbers, np.uint8).tobytes(), found)
        found = zlib.crc32(rounded.tobytes(), found)
        found = zlib.crc32(b"|", found)
    return found


def perceive(
    molecules: Sequence[bonds.Molecule],
    faults: Sequence[str | None],
    folder: Path,
    num_workers: int,
) -> dict[str, list[bonds.Perception]]:
    """Returns what all conventions perceive, part by part.

    Args:
        molecules: pairs of atomic numbers and positions in Å.
        faults: why a molecule has nothing to judge; None where it has.
        folder: where the parts are kept.
        num_workers: number of worker processes.
    """
    found: dict[str, list[bonds.Perception]] = {}
    for begin in range(0, len(molecules), CHUNK):
        part = molecules[begin : begin + CHUNK]
        own = faults[begin : begin + CHUNK]

        def make(part: Any = part, own: Any = own) -> dict[str, list[dict]]:
            judged = conventions.perceive(part, faults=own, num_workers=num_workers)
            return {name: [*map(_short, judged[name])] for name in judged}

        path = folder / f"perceived_{begin:06d}.json"
        for name, values in keep(path, checksum(part), make).items():
            found.setdefault(name, []).extend(map(bonds.from_json, values))
    return found


def _short(perception: bonds.Perception) -> dict[str, Any]:
    """Returns the fields that are not empty."""
    return {name: value for name, value in perception._asdict().items() if value}


def read_data(path: str, folder: Path, num_workers: int) -> Data:
    """Reads the training molecules, and perceives some of them."""
    reference = samples.read_reference(path, "train")
    some = samples.choose(reference.molecules, measure.distributions.NUM_MOLECULES)
    perceived = perceive(some, [None] * len(some), folder, num_workers)

    def graphs() -> dict[str, list[str]]:
        found = conventions.reference_graphs(
            reference, conventions.NAMES, num_workers, time_limit=10.0
        )
        return {name: sorted(found[name]) for name in found}

    known = keep(folder / "known.json", checksum(reference.molecules), graphs)
    sets = {name: set(known[name]) for name in known}
    return Data(sets, reference.molecules, some, perceived[PARENT])


class Judged(NamedTuple):
    """Molecules of a case, what is perceived of them, and where parts are kept."""

    drawn: samples.Samples
    perceived: dict[str, list[bonds.Perception]]
    data: Data
    folder: Path


def judge(drawn: samples.Samples, data: Data, folder: Path, num_workers: int) -> Judged:
    """Perceives the bonds of a set of molecules.

    Args:
        drawn: molecules.
        data: what they are compared with.
        folder: where parts are kept.
        num_workers: number of worker processes.
    """
    perceived = perceive(drawn.molecules, drawn.faults, folder, num_workers)
    return Judged(drawn, perceived, data, folder)


def validity(judged: Judged) -> dict[str, Any]:
    """Returns the figures of all conventions; fractions in [0, 1]."""
    molecules, faults = judged.drawn.molecules, judged.drawn.faults
    names, known = conventions.NAMES, judged.data.known
    found = conventions.score(molecules, judged.perceived, names, known)
    sizes = measure.measure_sizes(molecules, judged.data.molecules)
    return {
        "num_molecules": len(molecules),
        "never_stopped": faults.count(NEVER) / len(faults),
        "conventions": {name: _plain(one) for name, one in found.scores.items()},
        "jensen_shannon_sizes": sizes["jensen_shannon"],
    }


def _plain(score: conventions.Score) -> dict[str, Any]:
    left_out = ("definition", "rdkit_version")
    return {k: v for k, v in score._asdict().items() if k not in left_out}


def distances(judged: Judged) -> dict[str, Any]:
    """Returns the distances from the data of the first thousand valid molecules."""
    valid, found = measure.first_valid(judged.drawn.molecules, judged.perceived[PARENT])
    left_out = ("bond_lengths", "bonds_perceived_by", "num_molecules", "num_reference")

    def make() -> dict[str, Any]:
        geometry = measure.measure_geometry(
            valid, found, judged.data.some, judged.data.bonds
        )
        return {k: v for k, v in geometry.items() if k not in left_out}

    return keep(judged.folder / "distances.json", checksum(valid), make)


def poses(judged: Judged) -> dict[str, Any]:
    """Returns what PoseBusters says of the first valid ones; none if not installed."""
    valid, found = measure.first_valid(judged.drawn.molecules, judged.perceived[PARENT])
    some = valid[: measure.poses.MAX_MOLECULES]

    def make() -> dict[str, Any]:
        return {"poses": measure.measure_poses(some, found[: len(some)])}

    return keep(judged.folder / "poses.json", checksum(some), make)


def relaxation(judged: Judged) -> dict[str, Any]:
    """Returns how GFN2-xTB relaxes the first valid ones; none if not installed."""
    valid, found = measure.first_valid(judged.drawn.molecules, judged.perceived[PARENT])
    some, count = valid[: 2 * NUM_RELAXED], NUM_RELAXED

    def make() -> dict[str, Any]:
        relaxed = measure.measure_relaxation(some, found[: len(some)], count)
        return {"relaxation": relaxed}

    return keep(judged.folder / "relaxation.json", checksum(some), make)


PARTS: dict[str, Callable[[Judged], dict[str, Any]]] = {
    "validity": validity,
    "distances": distances,
    "poses": poses,
    "relaxation": relaxation,
}
"""What is measured, the quickest first; see `FIRST_ONLY`."""

FIRST_ONLY = ("poses", "relaxation")
"""Slow parts, measured of the first seed."""
