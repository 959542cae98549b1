r"""Symphony on 5,000 molecules in about two minutes: the training of `make demo`.

    symphony train --config=demo --workdir=workdir/demo/train

It shows that everything works, and makes a valid molecule now and then. For good ones
there are the packaged weights, `qm9_cpu.py` and `qm9.py`.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("symphony", "qm9_cpu").get_config()
    config.data.path = "qm9-sample"
    config.data.num_buckets = 1
    config.model.num_channels = 32
    config.model.num_layers = 2
    config.model.num_pair_feats = 16
    config.train.num_steps = 800
    config.train.num_microbatches = 8
    config.train.learning_rate = 5e-3
    config.train.warmup_steps = 50
    config.train.clip_norm = 5.0
    config.train.ema_decay = 0.99
    config.train.log_every = 50
    config.train.eval_every = 800
    config.train.num_validation = 96
    config.train.checkpoint_every = 200
    return config
