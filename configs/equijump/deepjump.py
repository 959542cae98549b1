"""EquiJump as DeepJump has it, on alanine dipeptide: a line to the end, a vector map.

    equijump train --config=deepjump --workdir=workdir/deepjump

The path from a source under 1 Å of noise, the network's answer (the end of the jump)
and the loss on vectors between atoms are those of dos Santos Costa et al. 2025,
arXiv:2509.13294; the network is that of `ala2.py`.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("equijump", "ala2").get_config()
    config.transport.kind = "noised_linear"
    config.transport.noise_factor = 1.6  # Of the .63 Å of an unaligned jump.
    config.loss.kind = "vector_map"
    config.data.align = False
    config.data.source_noise = 0.0
    config.sample.num_steps = 30
    return config
