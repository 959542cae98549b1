"""EquiJump on all capped amino acids at once: one network for the twenty of them.

    equijump train --config=capped --workdir=workdir/capped \
        --config.data.sources="('md/capped/*.xtc',)"

`equijump simulate --sequence=W --caps --temperature=500 --solvent=none` makes such a
trajectory, with its PDB beside it. Each amino acid comes equally often; of one with a
single trajectory the last fifth validates.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("equijump", "ala2").get_config()
    config.data.sources = ("workdir/md/capped/*.xtc",)
    config.data.temperatures = (500.0,)  # K
    config.model.update(num_channels=48, num_layers=3)
    config.model.update(num_hidden=96, num_condition=64)
    config.train.num_steps = 50_000
    return config
