"""EquiJump as small as it gets: for tests.

    equijump train --config=tiny --workdir=workdir/tiny

Six steps, half a minute, most of it compilation.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("equijump", "ala2").get_config()
    config.model.num_channels = 8
    config.model.num_conditioner_layers = 1
    config.model.num_layers = 1
    config.model.num_hidden = 16
    config.model.num_condition = 8
    config.model.num_edge_feats = 8
    config.train.num_steps = 6
    config.train.batch_size = 8
    config.train.warmup_steps = 2
    config.train.log_every = 2
    config.train.eval_every = 6
    config.train.num_validation = 8
    config.train.checkpoint_every = 3
    return config
