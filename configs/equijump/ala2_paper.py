"""EquiJump as its paper has it, on alanine dipeptide: two heads, 100 inner steps.

    equijump train --config=ala2_paper --workdir=workdir/ala2_paper

The interpolant, its noise of 1 Å, the drift and the noise, the diffusion and its window
are the paper's; its heads share one network here, and the rest is that of `ala2.py`.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("equijump", "ala2").get_config()
    config.transport.kind = "two_sided"
    config.transport.noise_factor = 1.6  # Of the .63 Å of an unaligned jump.
    config.data.align = False
    config.data.source_noise = 0.0
    config.sample.num_steps = 100
    return config
