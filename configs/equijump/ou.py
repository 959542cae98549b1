"""EquiJump on an Ornstein-Uhlenbeck process, at any lag of a range: all is known of it.

    equijump train --config=ou --workdir=workdir/ou

See `equijump/data/sources/ornstein_uhlenbeck.py`. Two minutes on a core, with
compilation.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("equijump", "ala2").get_config()
    config.data.trajectories = ("ou",)
    config.data.lags = (4.0, 32.0)
    config.data.log_uniform = True
    config.data.held_out = 1
    config.data.align = False
    config.data.source_noise = 0.0
    config.model.num_channels = 16
    config.model.num_layers = 1
    config.model.num_hidden = 32
    config.model.num_condition = 32
    config.transport.noise_factor = 2.0
    config.train.num_steps = 2_400
    config.train.batch_size = 64
    config.train.warmup_steps = 50
    config.train.ema_decay = 0.99
    config.train.eval_every = 500
    return config
