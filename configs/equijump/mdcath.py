r"""EquiJump on the protein domains of mdCATH, at five temperatures: for a cluster.

    equijump train --config=mdcath --workdir=workdir/mdcath \
        --config.data.sources="('mdcath:mdcath/*.h5',)"

Jumps of 1 and 10 ns of all heavy atoms, crops of 128 residues. Whole clusters of
sequences are held out. It was not run on mdCATH itself, so its time is not known; the
number to reach is that of held-out replicas against each other (`equijump evaluate`).
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("equijump", "peptides").get_config()
    config.data.sources = ("mdcath:mdcath/*.h5",)
    config.data.lags = (1_000.0, 1_000.0, 10_000.0)  # ps
    config.data.update(split="cluster", held_out=100, crop=128)
    config.data.ensemble_share = 0.0
    config.model.update(num_channels=128, num_layers=6, num_conditioner_layers=2)
    config.model.update(num_hidden=256, num_condition=128, cloud="parent")
    config.model.conditions = ("lag", "temperature")
    config.train.update(num_steps=500_000, batch_size=128, num_validation=2_000)
    return config
