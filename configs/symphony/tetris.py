r"""The published model, small, on the eight pieces of tetris.

    symphony train --config=tetris --workdir=workdir/tetris

The two chiral pieces grow from prefixes that are their own mirror images, so that a
network without handedness makes them equally often.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("symphony", "solids").get_config()
    config.data.update(path="tetris", max_atoms=4, num_buckets=1)
    config.train.num_steps = 1_500
    config.sample.max_atoms = 8
    return config
