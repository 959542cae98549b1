"""Refines molecules of a file: `symphony refine`.

For molecules that were sampled, by Symphony or by others; `symphony sample --refine`
does the same on the way. Positions are in Å.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.commands import cli, shards
from common.commands.environment import pinned, step_by_step
from common.errors import UsageError
from common.runs.weights import versions
from symphony import data, manifest, molfile, sampler
from symphony.inputs import add_input, input_of
from symphony.kinds.denoiser import sample as denoiser
from symphony.kinds.denoiser.sample import Refiner
from symphony.manifest import Sample

MAX_ATOMS = 200
"""Largest molecule that is refined; the network keeps features of all pairs."""


def refine_molecules(
    refiner: Refiner,
    molecules: data.Molecules,
    fixed: Sequence[int] = (),
    seed: int = 0,
    first: int = 0,
    end: int | None = None,
) -> Iterator[Sample]:
    """Yields molecules refined, from the first on, in order.

    The batch of a molecule is the same wherever it begins, to the last bit.

    Args:
        refiner: trained denoiser; see `load_refiner`.
        molecules: molecules to refine.
        fixed: atoms that stay where they are, counted from 0, of every molecule.
        seed: seed of the random numbers.
        first: index of the first one.
        end: index after the last one, at the end of a batch; all where None.
    """
    end = len(molecules.num_atoms) if end is None else end
    for start in range(denoiser.start_of_batch(first), end, denoiser.BATCH):
        indices = range(start, min(start + denoiser.BATCH, end))
        atoms = [slice(*molecules.offsets[index : index + 2]) for index in indices]
        numbers = [molecules.atomic_numbers[own] for own in atoms]
        positions = [molecules.positions[own] for own in atoms]
        stay = [np.isin(np.arange(len(one)), fixed) for one in numbers]
        refined = denoiser.refine(refiner, numbers, positions, stay, indices, seed)
        for row, index in enumerate(indices):
            if index < first:
                continue
            yield Sample(
                index=index,
                seed=seed,
                atomic_numbers=numbers[row],
                positions=refined[row],
                stopped=True,
                log_likelihood=None,
                moved=sampler.root_mean_square(refined[row] - positions[row]),
                name=str(molecules.names[index]),
            )


class MoleculeRefiner:
    """A trained denoiser for molecules of RDKit.

    Attributes:
        refiner: weights and how they are used.
    """

    def __init__(self, refiner: Refiner) -> None:
        self.refiner = refiner

    def refine(
        self, mols: Sequence[Any], seed: int = 0, fixed: Sequence[int] = ()
    ) -> list[Any]:
        """Returns copies whose first conformer is refined; bonds and fields stay.

        Args:
            mols: molecules with hydrogens and a conformer in three dimensions.
            seed: seed of the random numbers.
            fixed: atoms that stay where they are, counted from 0, of every molecule.

        Raises:
            UsageError: One has no conformer, an unknown element, or not all of `fixed`.
        """
        for index, mol in enumerate(mols):
            if not mol.GetNumConformers() or not mol.GetConformer().Is3D():
                raise UsageError(
                    f"molecule {index}: expected a conformer in three dimensions, "
                    "found none"
                )
        numbers = [[atom.GetAtomicNum() for atom in mol.GetAtoms()] for mol in mols]
        flat = [number for one in numbers for number in one]
        denoiser.check_species(self.refiner, flat, "molecules")
        positions = [mol.GetConformer().GetPositions() for mol in mols]
        molecules = data.make_molecules(
            np.array([len(one) for one in numbers], int),
            np.array(flat, np.uint8),
            np.concatenate([np.zeros((0, 3)), *positions]),
        )
        _check_fixed("fixed", fixed, molecules)
        made = step_by_step(refine_molecules(self.refiner, molecules, fixed, seed))
        return [_moved(mol, one) for mol, one in zip(mols, made, strict=True)]


def _moved(mol: Any, one: Sample) -> Any:
    from rdkit import Chem

    copy = Chem.Mol(mol)
    # Atoms that are fixed keep all their digits.
    before = mol.GetConformer().GetPositions()
    same = one.positions == before.astype(np.float32)
    copy.GetConformer().SetPositions(
        np.where(same, before, one.positions).astype(np.float64)
    )
    return copy


def load(
    name_or_path: str | os.PathLike[str] = "refine_qm9", noise: float | None = None
) -> MoleculeRefiner:
    """Returns a refiner of molecules; see `symphony.load_refiner`."""
    cli.use_compilation_cache()
    with pinned():
        return MoleculeRefiner(denoiser.load_refiner(name_or_path, noise=noise))


def _parse_fixed(text: str, molecules: data.Molecules) -> tuple[int, ...]:
    """Returns the atoms of `--fixed`, which every molecule must have."""
    try:
        fixed = tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError as error:
        raise UsageError(
            f"--fixed: expected numbers of atoms from 0, as 0,1,2; found {text!r}"
        ) from error
    _check_fixed("--fixed", fixed, molecules)
    return fixed


def _check_fixed(name: str, fixed: Sequence[int], molecules: data.Molecules) -> None:
    smallest = int(molecules.num_atoms.min(initial=MAX_ATOMS))
    if len(fixed) and not 0 <= min(fixed) <= max(fixed) < smallest:
        raise UsageError(
            f"{name}: expected atoms from 0 to {smallest - 1}, which every molecule "
            f"has, found {', '.join(map(str, fixed))}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `symphony refine` and returns the exit status."""
    flags = _parser().parse_args(argv)
    flags.molecules = input_of(flags)
    shard = shards.read(flags.shard)
    flags.output = str(shards.path_of(Path(flags.output), shard))
    molfile.check(flags.output, flags.molecules)
    cli.check_seed(flags.seed)
    refiner = denoiser.load_refiner(
        flags.checkpoint, "--checkpoint", flags.noise, flags.num_steps, flags.method
    )
    path = Path(flags.molecules)
    molecules, _ = data.read_molecules(path, refiner.species, MAX_ATOMS)
    denoiser.check_species(refiner, molecules.atomic_numbers, flags.molecules)
    fixed = _parse_fixed(flags.fixed, molecules)
    total = len(molecules.num_atoms)
    part = shards.span(shard, total, denoiser.BATCH)
    cli.announce_device()
    head = _header(refiner, molecules, fixed, flags.seed)
    head |= shards.describe(shard, part, total)
    make = lambda done: refine_molecules(
        refiner, molecules, fixed, flags.seed, part.start + done, part.stop
    )
    with molfile.open_output(flags.output, head, flags.overwrite) as output:
        written = manifest.write_all(output, make, len(part), "refining")
    moved = np.mean(written.moved) if written.moved else 0.0
    manifest.tell(flags.output, written, f", moved by {moved:.3f} Å in the mean")
    return 0


def _header(
    refiner: Refiner, molecules: data.Molecules, fixed: tuple[int, ...], seed: int
) -> dict[str, Any]:
    return {
        "checkpoint": refiner.name,
        "seed": seed,
        "settings": {**denoiser.settings_of(refiner), "fixed": list(fixed)},
        "molecules_sha256": data.checksum(molecules),
        "bonds": manifest.BOND_PRESET,
        "versions": versions("symphony", "jax", "numpy", "rdkit"),
    }


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(
        "symphony refine",
        "Lays a little noise over molecules and takes it off again, by a denoiser that "
        "knows how molecules are. Bonds are perceived anew from the positions.",
    )
    add = parser.add_argument
    add_input(parser)
    add(
        "-o",
        "--output",
        default="refined.sdf",
        help="an SDF; .extxyz and .jsonl beside",
    )
    add("--checkpoint", default="refine_qm9", help="packaged weights or a run's folder")
    add("--noise", type=float, default=None, help="Å; by the config of the weights")
    add("--num_steps", type=int, default=None, help="levels of noise; by the config")
    add("--method", default=None, help="heun, euler or ancestral; by the config")
    add("--fixed", default="", help="atoms that stay, from 0, as 0,1,2; of every one")
    add("--seed", type=int, default=0, help="of the random numbers")
    shards.add_flag(parser)
    add("--overwrite", action="store_true", help="replace what --output has")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run("symphony refine", main))
