r"""The published model, small, on the five Platonic solids.

    symphony train --config=solids --workdir=workdir/solids

A divergence has a floor that symmetry sets: 5.8885 nats for a lone atom, 3.3716 and
0.6931 for two and three atoms of a tetrahedron.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("symphony", "qm9_paper").get_config()
    config.data.path = "platonic-solids"
    config.data.species = (1,)
    config.data.max_atoms = 20
    config.data.nn_tolerance = 0.1  # In units of an edge.
    config.data.num_buckets = 3
    config.model.focus_channels = 16
    config.model.focus_filters = 8
    config.model.focus_hidden = 32
    config.model.position_channels = 16
    config.model.position_layers = 2
    config.model.radial_width = 32
    config.model.num_radii = 16
    config.model.min_radius = 0.8
    config.model.max_radius = 1.2
    config.model.head_channels = 4
    config.model.factorised = True
    config.model.radial_hidden = 16
    config.model.radial_variance = 1e-3
    config.model.noise_std = 0.0
    config.train.num_steps = 3_000
    config.train.batch_size = 16
    config.train.num_microbatches = 1
    config.train.learning_rate = 5e-3
    config.train.warmup_steps = 100
    config.train.final_factor = 0.01
    config.train.adam_b2 = 0.99
    config.train.clip_norm = 1.0
    config.train.ema_decay = 0.99
    config.train.eval_every = 1_000
    config.train.checkpoint_every = 1_000
    config.sample.max_atoms = 24
    return config
