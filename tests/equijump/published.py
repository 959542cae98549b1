"""Tiny files in the layouts of published sets of trajectories, with their traps."""

import functools
import json

import h5py
import mdtraj
import numpy as np
from rdkit import Chem
from rdkit.Chem import AllChem

from equijump.data.sources import mdgen


@functools.cache
def peptide(sequence):
    """A trajectory of one frame: all heavy atoms of a peptide with free ends."""
    mol = Chem.MolFromSequence(sequence)
    assert AllChem.EmbedMolecule(Chem.AddHs(mol), randomSeed=1) == 0
    full = Chem.AddHs(mol)
    AllChem.EmbedMolecule(full, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(full, maxIters=20)
    topology = mdtraj.Topology()
    chain, residue, last = topology.add_chain(), None, None
    for atom in mol.GetAtoms():
        info = atom.GetPDBResidueInfo()
        if info.GetResidueNumber() != last:
            last = info.GetResidueNumber()
            residue = topology.add_residue(info.GetResidueName(), chain, last)
        element = mdtraj.element.get_by_symbol(atom.GetSymbol())
        topology.add_atom(info.GetName().strip(), element, residue)
    places = full.GetConformer().GetPositions()[: mol.GetNumAtoms()]
    return mdtraj.Trajectory(places[None].astype(np.float32) / 10.0, topology)


def shaken(start, count, seed=0, size=0.003):
    """Positions of so many frames in nm, `size` nm around the first one of `start`."""
    rng = np.random.default_rng(seed)
    noise = size * rng.normal(size=(count, start.n_atoms, 3))
    return (start.xyz[0] + noise).astype(np.float32)


def pdb_text(start, cap=False, broken=False):
    """Text of a PDB file; with `cap`, residue 1 has the residue before it as well."""
    lines = ["CRYST1   50.000   50.000   50.000  90.00  90.00  90.00 P 1           1"]
    for atom in start.topology.atoms:
        residue = atom.residue
        number, name = residue.resSeq, residue.name
        if cap and residue.index == 0:
            number, name = number + 1, start.topology.residue(1).name
        x, y, z = (0.0, 0.0, 0.0) if broken else 10.0 * start.xyz[0, atom.index]
        lines.append(
            f"ATOM  {atom.index + 1:5d}  {atom.name:<4}{name:<4}A{number:4d}    "
            f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {atom.element.symbol:>2}"
        )
    return "\n".join([*lines, "TER", "END", ""])


def write_mdcath(path, start, runs, cap=False, text=str, drop=()):
    """Writes an HDF5 file of mdCATH.

    Args:
        path: `mdcath_dataset_<domain>.h5`.
        start: molecule.
        runs: positions in Å of each replica, by `(temperature, number)`; None for a
            group without any.
        cap: true to count the first residue as a part of the second.
        text: type of the text, `str` for one of any length.
        drop: names that are not written.
    """
    domain = path.stem.removeprefix("mdcath_dataset_")
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["layout"] = "mdcath-only-protein-v1.0"
        group = file.create_group(domain)
        group.attrs["numProteinAtoms"] = start.n_atoms
        group["z"] = [atom.element.number for atom in start.topology.atoms]
        group["psf"] = "PSF"
        content = pdb_text(start, cap)
        group["pdbProteinAtoms"] = content if text is str else np.bytes_(content)
        for (temperature, number), positions in runs.items():
            replica = group.create_group(f"{temperature}/{number}")
            if positions is None:
                continue
            replica.attrs["numFrames"] = len(positions)
            replica["coords"] = positions.astype(np.float32)
            replica["forces"] = np.zeros_like(positions)
            replica["box"] = np.eye(3) * 5.0
        for name in drop:
            del group[name]
    return path


def write_timewarp(folder, name, start, steps, drop=(), **more):
    """Writes arrays of Timewarp, and a PDB file whose positions are no molecule."""
    steps = np.asarray(steps)
    positions = shaken(start, len(steps))
    arrays = {
        "step": steps, "time": 5e-4 * steps, "energies": np.zeros((len(steps), 2)),
        "positions": positions, "velocities": 0 * positions, "forces": 0 * positions,
    }  # fmt: skip
    arrays = {k: v for k, v in {**arrays, **more}.items() if k not in drop}
    path = folder / f"{name}-traj-arrays.npz"
    np.savez(path, **arrays)
    text = pdb_text(start, broken=True)
    (folder / f"{name}-traj-state0.pdb").write_text(text)
    return path


def to_atom14(sequence, start, positions):
    """Positions in nm, put into the places of MDGen's arrays by their names."""
    array = np.zeros((len(positions), len(sequence), 14, 3), np.float32)
    for row, letter in enumerate(sequence):
        names = f"N CA C O {mdgen._SIDE_CHAINS[letter][1]}".split()
        place = {a.name: a.index for a in start.topology.residue(row).atoms}
        for slot, name in enumerate(names):
            array[:, row, slot] = 10.0 * positions[:, place[name]]
    return array.astype(np.float16)


def write_bioemu(folder, start, clocks, **record):
    """Writes a system of BioEmu with an XTC file for each list of times in ps."""
    (folder / "trajs").mkdir(parents=True)
    start.save(str(folder / "topology.pdb"))
    values = {
        "force_field": "a99SB-disp", "save_traj_ns": 10.0, "system_id": folder.name,
        "temperature_K": 300.0, **record,
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(values))
    for number, times in enumerate(clocks):
        xyz = shaken(start, len(times), seed=number)
        one = mdtraj.Trajectory(xyz, start.topology, np.array(times))
        one.save(str(folder / "trajs" / f"traj_{number}.xtc"))
    return folder
