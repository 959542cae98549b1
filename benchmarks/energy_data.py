r"""Molecules of QM9 and noised copies with energies, forces and curvature by GFN2-xTB.

    python -m benchmarks.energy_data --reference=qm9 --output=workdir/qm9_gfn2.npz

Each molecule comes twice: as QM9 has it, and with each coordinate moved by a normal
number, whose standard deviation is uniform up to `--noise` Å; `is_noised` tells them
apart. Beside `energy` (eV) and `forces` (eV/Å) there is one column of the Hessian for
each, at random: central differences of forces along `hessian_coordinate`. Parts lie in
a folder beside the output, and a run that was stopped goes on. Validation has other
molecules.
"""

import argparse
import functools
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from common.commands import cli
from symphony.chemistry.oracles import BOHR, HARTREE
from symphony.evaluate import samples

STEP = 0.01
"""Displacement of central differences, in Å."""
MOLECULES_PER_PART = 250
SPLITS = {"train": 0, "validation": 1}


def label(
    numbers: np.ndarray, positions: np.ndarray, coordinate: int
) -> dict[str, np.ndarray]:
    """Returns energy, forces and a column of the Hessian.

    Args:
        numbers: atomic numbers.
        positions: positions in Å.
        coordinate: three times the atom, plus 0, 1 or 2.
    """
    from tblite.interface import Calculator  # An optional dependency.

    calculator = Calculator("GFN2-xTB", numbers.astype(np.int32), positions / BOHR)
    calculator.set("verbosity", 0)
    result = calculator.singlepoint()
    energy, gradient = result.get("energy"), result.get("gradient").copy()
    ends = []
    for sign in (1.0, -1.0):
        moved = positions.copy()
        moved[divmod(coordinate, 3)] += sign * STEP
        calculator.update(moved / BOHR)
        # It starts from the charges of the geometry before.
        result = calculator.singlepoint(result)
        ends.append(result.get("gradient").copy())
    force = HARTREE / BOHR
    return {
        "energy": np.float64(HARTREE * energy),
        "forces": -force * gradient,
        "hessian_column": force * (ends[0] - ends[1]) / (2.0 * STEP),
    }


def make_part(
    path: Path,
    molecules: Sequence[tuple[np.ndarray, np.ndarray]],
    seed: int,
    noise: float,
) -> None:
    """Labels some molecules and their noised copies, and writes them.

    Those for which GFN2-xTB does not converge are left out.
    """
    from tblite.exceptions import TBLiteRuntimeError  # An optional dependency.

    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for numbers, still in molecules:
        shaken = still + rng.uniform(0.0, noise) * rng.normal(size=still.shape)
        for is_noised, positions in enumerate((still.astype(np.float64), shaken)):
            coordinate = int(rng.integers(3 * len(numbers)))
            try:
                found = label(numbers, positions, coordinate)
            except TBLiteRuntimeError as error:
                logging.warning("left out: %s", error)
                continue
            rows.append({
                "num_atoms": len(numbers), "atomic_numbers": numbers,
                "is_noised": is_noised,
                "positions": positions, "hessian_coordinate": coordinate, **found,
            })  # fmt: skip
    _write(path, rows)


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    of_molecules = {
        "num_atoms": np.int32, "energy": np.float64, "hessian_coordinate": np.int32,
        "is_noised": np.int8,
    }  # fmt: skip
    arrays = {
        name: np.array([row[name] for row in rows], dtype)
        for name, dtype in of_molecules.items()
    }
    kinds = dict.fromkeys(("positions", "forces", "hessian_column"), np.float32)
    for name, dtype in {**kinds, "atomic_numbers": np.uint8}.items():
        arrays[name] = np.concatenate([row[name] for row in rows]).astype(dtype)
    with cli.atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--reference", default="qm9", help="data: a file or a name")
    add("--output", type=Path, default=Path("workdir/qm9_gfn2.npz"))
    add("--num_molecules", type=int, default=20_000, help="that train")
    add("--num_validation", type=int, default=500)
    add("--noise", type=float, default=0.1, help="largest noise, in Å")
    add("--num_workers", type=int, default=1)
    flags = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = flags.output.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    counts = {"train": flags.num_molecules, "validation": flags.num_validation}
    parts = [part for split in SPLITS for part in _parts(flags, folder, split, counts)]
    missing = [part for part in parts if not part[0].exists()]
    make = functools.partial(_make, noise=flags.noise)
    with (
        cli.progress(len(missing), "labelling", "parts") as advance,
        ProcessPoolExecutor(flags.num_workers) as pool,
    ):
        for _ in pool.map(make, missing):
            advance()
    _join(flags.output, [path for path, *_ in parts])
    return 0


def _make(part: tuple[Path, Any, int], noise: float) -> None:
    path, molecules, seed = part
    make_part(path, molecules, seed, noise)


def _parts(
    flags: argparse.Namespace, folder: Path, split: str, counts: dict[str, int]
) -> list[tuple[Path, Any, int]]:
    """Returns the path, the molecules and the seed of each part."""
    whole = samples.read_reference(flags.reference, split).molecules
    order = np.random.default_rng(0).permutation(len(whole))[: counts[split]]
    found = []
    for first in range(0, len(order), MOLECULES_PER_PART):
        own = [whole[place] for place in order[first : first + MOLECULES_PER_PART]]
        seed = SPLITS[split] * 10**6 + first
        found.append((folder / f"{split}_{first:06d}.npz", own, seed))
    return found


def _join(output: Path, parts: Sequence[Path]) -> None:
    """Writes all parts as one archive that `symphony train` reads."""
    loaded = [dict(np.load(path)) for path in parts]
    arrays = {name: np.concatenate([one[name] for one in loaded]) for name in loaded[0]}
    splits = [SPLITS[path.name.split("_")[0]] for path in parts]
    sizes = [len(one["num_atoms"]) for one in loaded]
    arrays["split"] = np.repeat(np.array(splits, np.int8), sizes)
    with cli.atomic_path(output) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)
    logging.info("%s: %d structures", output, len(arrays["num_atoms"]))


if __name__ == "__main__":
    sys.exit(cli.run("benchmarks.energy_data", main))
