"""EquiJump on alanine dipeptide by a small network: three times as fast as `ala2.py`.

    equijump train --config=configs/equijump/ala2_small.py --workdir=workdir/ala2_small

Half an hour on a core.
"""

import ml_collections

from configs.equijump import ala2


def get_config() -> ml_collections.ConfigDict:
    config = ala2.get_config()
    config.data.source_noise = 0.02
    config.model.num_channels = 32
    config.model.num_layers = 2
    config.model.num_hidden = 64
    config.model.num_condition = 48
    return config
