"""EquiJump that learns from sources of its own: self-rollout training.

    equijump train --config=unrolled --workdir=workdir/unrolled

As in the pushforward trick (Brandstetter, Worrall and Welling 2022, arXiv:2202.03376)
the network makes its input and no gradient goes through that. Here only the end of the
jump before is the network's, so that the pair stays one of the dynamics.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("equijump", "ala2").get_config()
    config.loss.unroll = 1
    return config
