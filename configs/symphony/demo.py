r"""Symphony on 5,000 molecules in a minute: the training of `make demo`.

    symphony train --config=demo --workdir=workdir/demo/train

It shows that everything works, no more. For good molecules there are the packaged
weights, `qm9_cpu.py` and `qm9.py`.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("symphony", "qm9_cpu").get_config()
    config.data.update(path="qm9-sample", num_buckets=1)
    config.model.update(num_channels=32, num_layers=2, num_pair_feats=16)
    config.train.update(num_steps=200, learning_rate=5e-3, warmup_steps=50)
    config.train.update(clip_norm=5.0, ema_decay=0.99, num_validation=96)
    config.train.update(log_every=50, eval_every=200, checkpoint_every=200)
    return config
