r"""A denoiser of QM9's molecules at .01 to .5 Å, which refines sampled ones.

    symphony train --config=refine_qm9 --workdir=workdir/refine_qm9
    symphony refine --checkpoint=workdir/refine_qm9 --molecules=molecules.sdf \
      --output=refined.sdf

`--config.data.path` names the data, a file or a data set that is downloaded.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.kind = "denoiser"

    config.data = ml_collections.ConfigDict()
    config.data.path = "qm9"  # A file, or the name of a known data set.
    config.data.species = (1, 6, 7, 8, 9)  # Atomic numbers: H, C, N, O, F.
    config.data.max_atoms = 29  # Larger molecules are skipped.
    config.data.num_buckets = 5

    # Keyword arguments of `symphony.kinds.denoiser.model.Denoiser`.
    config.model = ml_collections.ConfigDict()
    config.model.num_channels = 48
    config.model.num_layers = 3
    config.model.max_degree = 2
    config.model.cutoff = 5.0  # Å
    config.model.num_radial_basis = 16
    config.model.num_pair_feats = 32
    config.model.avg_num_neighbors = 8.0
    config.model.sigma_data = 5.0  # Å
    config.model.block = "symphony"  # A key of `common.nn.blocks`.
    config.model.product = "scalar"  # Of its messages: a key of `common.nn.products`.

    config.loss = ml_collections.ConfigDict()
    config.loss.alignment = "exact"  # Of the target, see `common.geometry.alignment`.
    config.loss.min_noise = 0.01  # Å
    config.loss.max_noise = 0.5  # Å
    config.loss.fixed_share = 0.3  # Of molecules in which some atoms are known.

    config.train = configs.find("symphony", "qm9_cpu").get_config().train
    config.train.num_steps = 60_000
    config.train.clip_norm = 5.0

    config.refine = ml_collections.ConfigDict()
    config.refine.noise = 0.1  # Å, that is laid over a molecule and taken off again.
    config.refine.num_steps = 20
    config.refine.method = "ancestral"  # Of `common.generative.denoising.METHODS`.
    config.refine.num_final = 4  # Denoisings at the least noise, at the end.
    return config
