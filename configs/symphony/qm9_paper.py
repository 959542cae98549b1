r"""Symphony as published, on QM9.

    symphony train --config=qm9_paper --workdir=workdir/qm9_paper

The published figures (arXiv 2311.16199, tables 1 and 2) took 7.5 million steps of
about eleven fragments, days on a GPU; `docs/paper_model.md` says what differs here.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("symphony", "qm9_cpu").get_config()
    config.kind = "paper"
    config.data.heavy_first = False
    config.data.noise_std = 0.0  # Å; the model adds its own, always.

    # Keyword arguments of `symphony.kinds.paper.model.PaperSymphony`.
    config.model = ml_collections.ConfigDict()
    config.model.cutoff = 5.0  # Å
    config.model.focus_channels = 64
    config.model.focus_layers = 3
    config.model.focus_max_degree = 2
    config.model.focus_filters = 16
    config.model.focus_hidden = 128
    config.model.position_channels = 64
    config.model.position_layers = 3
    config.model.position_max_degree = 5
    config.model.num_radial_basis = 8
    config.model.radial_width = 64
    config.model.avg_num_neighbors = 300.0
    config.model.num_radii = 64
    config.model.min_radius = 0.9  # Å
    config.model.max_radius = 2.0  # Å
    config.model.head_channels = 2
    config.model.factorised = False
    config.model.radial_hidden = 128
    config.model.res_beta = 45
    config.model.res_alpha = 89
    config.model.target_inverse_temperature = 20.0
    config.model.target_max_degree = 5
    config.model.radial_variance = 1e-5  # Å²
    config.model.noise_std = 0.05  # Å

    config.train.num_steps = 7_530_000
    config.train.batch_size = 16  # Fragments, one for each molecule.
    config.train.num_microbatches = 4
    config.train.optimizer = "adam"
    config.train.learning_rate = 5e-4  # Constant.
    config.train.warmup_steps = 0
    config.train.weight_decay = 0.0
    config.train.final_factor = 1.0
    config.train.adam_b2 = 0.999
    config.train.clip_norm = 0.0
    config.train.ema_decay = 0.0
    config.train.eval_every = 30_000
    return config
