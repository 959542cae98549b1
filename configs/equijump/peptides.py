r"""EquiJump for any capped peptide: one network, jumps of 10 to 500 ps at 300 K.

    equijump train --config=peptides --workdir=workdir/peptides \
        --config.data.sources="('peptides:sets/one/*.npz', 'peptides:sets/two/*.npz')"

Each sequence comes equally often. `docs/data.md` says how to make such sets. Two hours
of a core. The number to reach is a ratio of .6 for pairs, by `docs/results.md`; the
packaged weights have it, after four legs that their card tells of.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("equijump", "ala2").get_config()
    config.data.sources = ("peptides:workdir/md/peptides/*.npz",)
    config.data.lags = (10.0, 10.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)  # ps
    config.data.held_out = 1
    config.data.ensemble_share = 0.05
    config.model.update(num_channels=48, num_layers=3)
    config.model.update(num_hidden=96, num_condition=64, num_edge_feats=32)
    config.model.update(cloud="chain", refinements=2, refresh_neighbours=True)
    config.sample.repulsion = 1.0
    config.loss.median_level = 0.5  # Bonds turn by half of their noise, 2 Å.
    config.train.update(num_steps=75_000, batch_size=64)
    return config
