"""Symphony as small as it gets: for tests.

    symphony train --config=tiny --workdir=workdir/tiny

Six steps, half a minute, most of it compilation.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("symphony", "qm9_cpu").get_config()
    config.data.update(path="qm9-sample", num_buckets=1)
    config.model.update(num_channels=8, num_layers=1, max_degree=1)
    config.model.update(num_radial_basis=4, num_pair_feats=8, num_radial_components=4)
    config.model.update(head_max_degree=2, head_channels=2, max_curvature=30.0)
    config.model.update(res_beta=12, res_alpha=23, num_fine_rounds=2)
    config.train.update(num_steps=6, batch_size=8, num_microbatches=1)
    config.train.update(warmup_steps=2, num_validation=8)
    config.train.update(log_every=2, eval_every=6, checkpoint_every=3)
    return config
