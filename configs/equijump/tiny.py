"""EquiJump as small as it gets: for tests.

    equijump train --config=tiny --workdir=workdir/tiny

Six steps, half a minute, most of it compilation.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("equijump", "ala2").get_config()
    config.model.update(num_channels=8, num_conditioner_layers=1, num_layers=1)
    config.model.update(num_hidden=16, num_condition=8, num_edge_feats=8)
    config.train.update(num_steps=6, batch_size=8, warmup_steps=2, num_validation=8)
    config.train.update(log_every=2, eval_every=6, checkpoint_every=3)
    return config
