r"""Energies and forces of QM9's molecules at the level of GFN2-xTB.

    python -m benchmarks.energy_data --output=qm9_gfn2.npz
    symphony train --config=energy_qm9 --config.data.path=qm9_gfn2.npz \
      --workdir=workdir/energy_qm9

The file has `energy` (eV) of each molecule and `forces` (eV/Å) of each atom, and with
`--config.loss.hessian_weight` also `hessian_column` (eV/Å²) and `hessian_coordinate`;
an extended XYZ file has them as ASE writes them.
"""

import ml_collections

from common.runs.defaults import train_group


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.kind = "energy"

    config.data = ml_collections.ConfigDict()
    config.data.path = "qm9_gfn2.npz"
    config.data.species = (1, 6, 7, 8)  # Atomic numbers: H, C, N, O.
    config.data.max_atoms = 29  # Larger molecules are skipped.
    config.data.num_buckets = 3
    # eV, what an atom of each brings; least squares are told where there are none.
    config.data.atom_energies = (-14.1777, -57.4259, -79.3431, -110.6077)

    # Keyword arguments of `common.nn.energy.EnergyModel`.
    config.model = ml_collections.ConfigDict()
    config.model.irreps = "32x0e+32x1o+32x2e"  # One number of channels is fastest.
    config.model.update(num_layers=3, max_degree=2)
    config.model.cutoff = 5.0  # Å
    config.model.update(num_radial_basis=8, num_hidden=64, avg_num_neighbors=12.0)
    config.model.energy_scale = 1.0  # eV
    config.model.update(block="nequix", product="clebsch_gordan")

    # Of errors in eV an atom, eV/Å and eV/Å²; of denoising, in squares of its spread.
    config.loss = ml_collections.ConfigDict()
    config.loss.update(energy_weight=20.0, force_weight=20.0)
    config.loss.update(hessian_weight=0.0, noise_weight=0.0)
    config.loss.noise_std = 0.1  # Å
    config.loss.noise_share = 0.5  # Of the atoms.

    config.train = train_group(num_steps=8_000, batch_size=16, learning_rate=1e-2)
    config.train.start_from = ""  # Weights to go on from; random ones if empty.
    config.train.update(weight_decay=1e-3, clip_norm=100.0, num_validation=512)
    config.train.update(log_every=100, eval_every=2_000)
    return config
