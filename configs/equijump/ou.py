"""EquiJump on an Ornstein-Uhlenbeck process, at any lag of a range: all is known of it.

    equijump train --config=ou --workdir=workdir/ou

See `equijump/data/sources/ornstein_uhlenbeck.py`. Two minutes on a core, with
compilation.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("equijump", "ala2").get_config()
    config.data.update(sources=("ou",), held_out=1, align=False, source_noise=0.0)
    config.data.update(lags=(4.0, 32.0), log_uniform=True)  # ps
    config.model.update(num_channels=16, num_layers=1)
    config.model.update(num_hidden=32, num_condition=32)
    config.transport.noise_factor = 2.0
    config.train.update(num_steps=2_400, batch_size=64, warmup_steps=50)
    config.train.update(ema_decay=0.99, eval_every=500)
    return config
