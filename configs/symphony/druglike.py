r"""Symphony on drug-like molecules: eleven elements, to 80 atoms, with charges.

    symphony train --config=druglike --config.data.path=FILE --workdir=workdir/druglike

`FILE` has conformers of drug-like molecules in any form that is read (docs/data.md),
with all hydrogens; `molecule_id`, or one name, says which are of one molecule. Some
molecules of QM9 are mixed in, for the small rings that drugs are made of.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("symphony", "qm9_cpu").get_config()
    config.data.path = "druglike_conformers.npz"
    config.data.mixed = (("qm9", 2_000),)
    config.data.species = (1, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53)  # H to I
    config.data.update(max_atoms=80, num_buckets=5)
    config.model.conditions = ("noise_std", "charge")
    config.model.update(num_channels=80, num_layers=4)
    config.model.update(cutoff=5.0, num_neighbors=32, avg_num_neighbors=16.0)  # Å
    config.model.update(min_radius=0.6, max_radius=3.0)  # Å
    config.train.update(num_steps=100_000, batch_size=16, num_microbatches=8)
    config.train.update(warmup_steps=500, log_every=100, eval_every=5_000)
    config.train.update(checkpoint_every=500, num_validation=256)
    config.sample.max_atoms = 90
    return config
