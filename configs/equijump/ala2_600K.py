"""EquiJump on alanine dipeptide without solvent at 600 K, which crosses to phi > 0.

    equijump train --config=ala2_600K --workdir=workdir/ala2_600K \
        --config.data.sources="('md/ala2_vacuum_600K_*.xtc',)" \
        --config.data.topology=md/ala2_vacuum_600K.pdb

`equijump simulate --sequence=A --caps --temperature=600 --solvent=none` makes such
trajectories. Of each of them the last fifth validates, so that both seeds are learnt.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("equijump", "ala2").get_config()
    config.data.sources = ("workdir/md/ala2_600K/*.xtc",)
    config.data.held_out = 2
    config.train.num_steps = 25_000
    return config
