"""Minutes of training teach the chemistry of small molecules; chance does not."""

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from configs.symphony import demo
from symphony import data, train
from symphony.chemistry import bonds
from symphony.sampler import load

pytestmark = pytest.mark.slow

SMILES = """
C N O CC CN CO NN NO C=C C=O C#C C#N CCC CCO CCN COC CNC OCO NCO NCN C=CC C=CO CC=O
NC=O OC=O N=CN C#CC CC#N C1CC1 C1CO1 C1CN1 CCCC CC(C)C CCCO CC(O)C CCOC CCCN CC(N)C
CCNC CN(C)C OCCO NCCO NCCN COCO CC=CC C=CCC CC(=C)C CC(=O)C CCC=O OCC=O NCC=O CC(=O)O
CC(=O)N COC=O CNC=O C#CCC CC#CC CCC#N OCC#N C1CCC1 C1CCO1 C1CCN1 CC1CC1 OC1CC1 NC1CC1
CC1CO1 CC1CN1 C=CC=C C=CC=O C=CC#N C#CC=O
"""


def small_molecules():
    """Conformers of molecules of up to four heavy atoms, by a force field."""
    numbers, positions = [], []
    for smiles in SMILES.split():
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        AllChem.EmbedMultipleConfs(mol, 4, randomSeed=1)
        AllChem.MMFFOptimizeMoleculeConfs(mol)
        for conformer in mol.GetConformers():
            numbers.append([atom.GetAtomicNum() for atom in mol.GetAtoms()])
            positions.append(conformer.GetPositions())
    sizes = np.array([len(n) for n in numbers])
    return data.make_molecules(
        sizes, np.concatenate(numbers), np.concatenate(positions)
    )


def is_valid(numbers, positions):
    """Strictly: to xyz2mol alone, a tenth of scattered atoms are valid, in pieces."""
    return bonds.describe_molecule(numbers, positions, bonds.STRICT).status == "valid"


def test_a_small_training_makes_valid_molecules_and_chance_does_not(tmp_path):
    molecules = small_molecules()
    assert len(molecules.num_atoms) > 200
    data.write_npz(molecules, tmp_path / "small.npz")
    config = demo.get_config()
    config.data.path = str(tmp_path / "small.npz")
    config.data.max_atoms = 14
    config.data.num_buckets = 1
    config.sample.max_atoms = 18
    config.train.num_steps = 1_500
    config.train.eval_every = 1_500
    train.train(config, tmp_path / "run")
    drawn = load(tmp_path / "run").sample_positions(200, seed=0)
    valid = [s.stopped and is_valid(s.atomic_numbers, s.positions) for s in drawn]
    assert np.mean(valid) >= 0.2
    assert len({tuple(sorted(s.atomic_numbers)) for s in drawn}) > 10

    rng = np.random.default_rng(0)
    scattered = []
    for index in range(200):
        atoms = slice(*molecules.offsets[index : index + 2])
        numbers = molecules.atomic_numbers[atoms]
        radius = 1.5 * np.cbrt(len(numbers))
        scattered.append(
            is_valid(numbers, rng.uniform(-radius, radius, (len(numbers), 3)))
        )
    assert np.mean(scattered) <= 0.01
