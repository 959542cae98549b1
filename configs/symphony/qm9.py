r"""Symphony on QM9, quality first: `qm9_cpu.py` with a wider and deeper network.

    symphony train --config=qm9 --workdir=workdir/qm9

Made for a GPU, where one piece of a batch (`num_microbatches = 1`) keeps the device
busy: 19 minutes on one H200 give the packaged weights `qm9`. A CPU takes days, with
`--config.train.num_microbatches=64`, which keeps the arrays of a piece in cache; there
`qm9_cpu.py` is the one to take.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("symphony", "qm9_cpu").get_config()
    config.data.num_buckets = 3
    config.model.update(num_channels=128, num_layers=4)
    config.train.update(num_steps=60_000, batch_size=128, num_microbatches=1)
    config.train.update(warmup_steps=1_000, ema_decay=0.9998)
    config.train.clip_norm = 150.0  # Outliers only; grad_norm is about 30.
    config.train.update(log_every=500, eval_every=15_000, checkpoint_every=5_000)
    return config
