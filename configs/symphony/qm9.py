r"""Symphony on QM9, quality first: `qm9_cpu.py` with a wider and deeper network.

    symphony train --config=configs/symphony/qm9.py --workdir=workdir/qm9

Made for a GPU, where one piece of a batch (`num_microbatches = 1`) keeps the device
busy. On a CPU it takes days: add `--config.train.num_microbatches=8`, which keeps the
arrays of a piece in cache, and look at `qm9_cpu.py` first.
"""

import ml_collections

from configs.symphony import qm9_cpu


def get_config() -> ml_collections.ConfigDict:
    config = qm9_cpu.get_config()
    config.data.num_buckets = 6
    config.model.num_channels = 128
    config.model.num_layers = 4
    config.train.num_steps = 400_000
    config.train.batch_size = 32
    config.train.num_microbatches = 1
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 1_000
    config.train.ema_decay = 0.9999
    config.train.eval_every = 10_000
    config.train.checkpoint_every = 2_000
    return config
