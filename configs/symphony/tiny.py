"""Symphony as small as it gets: for tests.

    symphony train --config=tiny --workdir=workdir/tiny

Six steps, half a minute, most of it compilation.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("symphony", "qm9_cpu").get_config()
    config.data.path = "qm9-sample"
    config.data.num_buckets = 1
    config.model.num_channels = 8
    config.model.num_layers = 1
    config.model.max_degree = 1
    config.model.num_radial_basis = 4
    config.model.num_pair_feats = 8
    config.model.head_max_degree = 2
    config.model.head_channels = 2
    config.model.num_radial_components = 4
    config.model.res_beta = 12
    config.model.res_alpha = 23
    config.model.max_curvature = 30.0
    config.model.num_fine_rounds = 2
    config.train.num_steps = 6
    config.train.batch_size = 8
    config.train.num_microbatches = 1
    config.train.warmup_steps = 2
    config.train.log_every = 2
    config.train.eval_every = 6
    config.train.num_validation = 8
    config.train.checkpoint_every = 3
    return config
