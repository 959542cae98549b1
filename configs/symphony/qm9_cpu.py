r"""Symphony on QM9: the best for two hours of two CPU cores, 14,400 CPU-seconds.

    symphony train --config=qm9_cpu --workdir=workdir/qm9_cpu

`--config.data.path` names the data, a file or a data set that is downloaded; add
`--config.train.num_devices=2` to use both cores. What to reach: 80 % valid molecules at
temperature 1 and 90 % in basin mode (xyz2mol with Hückel); docs/results.md has more.
"""

import ml_collections

from common.runs.defaults import train_group


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.kind = "symphony"  # A key of `symphony.build.KINDS`.

    config.data = ml_collections.ConfigDict()
    config.data.path = "qm9"  # A file, or the name of a known data set.
    config.data.mixed = ()  # Other data, and how many molecules: (("qm9", 5_000),).
    config.data.species = (1, 6, 7, 8, 9)  # Atomic numbers: H, C, N, O, F.
    config.data.max_atoms = 29  # Larger molecules are skipped.
    config.data.num_buckets = 5
    config.data.nn_tolerance = 0.125  # Å
    config.data.cutoff = 5.0  # Å, longest edge along which a molecule is cut.
    config.data.heavy_first = True
    config.data.properties = ()  # Columns that condition it, as ("gap", "logP").
    config.data.labelled_only = False  # Leave out molecules with none of them.
    config.data.noise_std = 0.05  # Å, largest coordinate noise; half the time zero.

    # Keyword arguments of `symphony.model.Symphony`.
    config.model = ml_collections.ConfigDict()
    config.model.update(num_channels=80, num_layers=3, max_degree=2)
    config.model.block = "symphony"  # A key of `common.nn.blocks`.
    config.model.product = "scalar"  # Of its messages: a key of `common.nn.products`.
    config.model.conditions = ("noise_std",)  # Keys of `common.nn.conditions`.
    config.model.cutoff = 6.0  # Å
    config.model.update(num_radial_basis=12, num_pair_feats=32, avg_num_neighbors=8.0)
    config.model.num_neighbors = 0  # Nearest atoms that an atom sees; all of them if 0.
    config.model.update(num_radial_components=16, min_radius=0.6, max_radius=2.6)  # Å
    config.model.update(head_max_degree=5, head_channels=4)
    config.model.max_curvature = 450.0  # Per square radian; a width of 2.7 degrees.
    config.model.update(res_beta=36, res_alpha=71)
    config.model.blur = 0.06  # Radians: 3.4 degrees.
    config.model.update(num_fine_components=4, num_fine_rounds=3)

    config.train = train_group(num_steps=63_000, batch_size=16, warmup_steps=300)
    config.train.start_from = ""  # Weights to go on from; random ones if empty.
    config.train.num_microbatches = 8  # Two molecules at a time stay in cache.
    config.train.clip_norm = 500.0  # Outliers only; grad_norm is about 100.
    config.train.update(log_every=200, eval_every=4_000)

    config.sample = ml_collections.ConfigDict()
    config.sample.max_atoms = 35
    config.sample.noise_std = 0.0  # Å, noise level that the network is given.
    return config
