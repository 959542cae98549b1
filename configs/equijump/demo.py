"""EquiJump on alanine dipeptide for half a minute: shows training, no more.

    equijump train --config=demo --workdir=workdir/mine

The network is that of `ala2.py`, and far from done.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("equijump", "ala2").get_config()
    config.train.update(num_steps=600, batch_size=64, warmup_steps=50)
    config.train.update(ema_decay=0.99, eval_every=300)
    return config
