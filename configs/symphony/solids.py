r"""The published model, small, on the five Platonic solids.

    symphony train --config=solids --workdir=workdir/solids

A divergence has a floor that symmetry sets: 5.8885 nats for a lone atom, 3.3716 and
0.6931 for two and three atoms of a tetrahedron.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("symphony", "qm9_paper").get_config()
    config.data.update(path="platonic-solids", species=(1,), max_atoms=20)
    config.data.update(nn_tolerance=0.1, num_buckets=3)  # Lengths in those of an edge.
    config.model.update(focus_channels=16, focus_filters=8, focus_hidden=32)
    config.model.update(position_channels=16, position_layers=2, radial_width=32)
    config.model.update(num_radii=16, min_radius=0.8, max_radius=1.2)
    config.model.update(head_channels=4, factorised=True, radial_hidden=16)
    config.model.update(radial_variance=1e-3, noise_std=0.0)
    config.train.update(num_steps=3_000, batch_size=16, num_microbatches=1)
    config.train.update(learning_rate=5e-3, warmup_steps=100, final_factor=0.01)
    config.train.update(adam_b2=0.99, clip_norm=1.0, ema_decay=0.99)
    config.train.update(eval_every=1_000, checkpoint_every=1_000)
    config.sample.max_atoms = 24
    return config
