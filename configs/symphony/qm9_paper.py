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
    del config.data.properties, config.data.labelled_only  # It takes no conditions.
    config.data.noise_std = 0.0  # Å; the model adds its own, always.

    # Keyword arguments of `symphony.kinds.paper.model.PaperSymphony`. Lengths in Å.
    config.model = ml_collections.ConfigDict()
    config.model.update(cutoff=5.0, num_radial_basis=8)
    config.model.update(focus_channels=64, focus_layers=3, focus_max_degree=2)
    config.model.update(focus_filters=16, focus_hidden=128)
    config.model.update(position_channels=64, position_layers=3, position_max_degree=5)
    config.model.update(radial_width=64, avg_num_neighbors=300.0)
    config.model.update(num_radii=64, min_radius=0.9, max_radius=2.0)
    config.model.update(head_channels=2, factorised=False, radial_hidden=128)
    config.model.update(res_beta=45, res_alpha=89)
    config.model.update(target_inverse_temperature=20.0, target_max_degree=5)
    config.model.radial_variance = 1e-5  # Å²
    config.model.noise_std = 0.05  # Å

    config.train.update(num_steps=7_530_000, num_microbatches=4)
    config.train.batch_size = 16  # Fragments, one for each molecule.
    config.train.update(optimizer="adam", adam_b2=0.999, weight_decay=0.0)
    config.train.update(
        learning_rate=5e-4, warmup_steps=0, final_factor=1.0
    )  # Constant.
    config.train.update(clip_norm=0.0, ema_decay=0.0, eval_every=30_000)
    return config
