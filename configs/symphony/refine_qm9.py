r"""A denoiser of QM9's molecules at .01 to .5 Å, which refines sampled ones.

    symphony train --config=refine_qm9 --workdir=workdir/refine_qm9
    symphony refine --checkpoint=workdir/refine_qm9 --molecules=molecules.sdf \
      --output=refined.sdf

`--config.data.path` names the data, a file or a data set that is downloaded.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("symphony", "qm9_cpu").get_config()
    config.kind = "denoiser"
    for name in ("nn_tolerance", "cutoff", "heavy_first", "noise_std"):
        del config.data[name]
    del config.data.properties, config.data.labelled_only
    del config.sample

    # Keyword arguments of `symphony.kinds.denoiser.model.Denoiser`.
    config.model = ml_collections.ConfigDict()
    config.model.update(num_channels=48, num_layers=3, max_degree=2)
    config.model.update(block="symphony", product="scalar")
    config.model.update(cutoff=5.0, sigma_data=5.0)  # Å
    config.model.update(num_radial_basis=16, num_pair_feats=32, avg_num_neighbors=8.0)

    config.loss = ml_collections.ConfigDict()
    config.loss.alignment = "exact"  # Of the target, see `common.geometry.alignment`.
    config.loss.update(min_noise=0.01, max_noise=0.5)  # Å
    config.loss.fixed_share = 0.3  # Of molecules in which some atoms are known.

    config.train.update(num_steps=60_000, clip_norm=5.0)

    config.refine = ml_collections.ConfigDict()
    config.refine.noise = 0.1  # Å, that is laid over a molecule and taken off again.
    config.refine.num_steps = 20
    config.refine.method = "ancestral"  # Of `common.generative.denoising.METHODS`.
    config.refine.num_final = 4  # Denoisings at the least noise, at the end.
    return config
