r"""EquiJump on a protein that folds and unfolds: CLN025, structure-based.

    equijump simulate --model=go --pdb=cln025 --units=reduced --temperature=1.42 \
        --step=3 --spacing=0.3 --equilibration=30 --length=4.5 --replicas=6 \
        --output=workdir/cln025
    equijump train --config=fast_folder --workdir=workdir/fast_folder
    equijump sample --checkpoint=workdir/fast_folder --start=workdir/cln025/cln025.pdb \
        --num_jumps=7500 --replicas=8 --no-gate --output=workdir/folding
    python -m benchmarks.fast_folder --reference='workdir/cln025/*.xtc' \
        --rollout='workdir/folding/*.xtc'

The lag is about a hundredth of the folding time, 45 ps; at shorter ones velocities,
which the network does not see, are remembered (friction 1/ps). There is no gate: in one
of ten frames of the reference atoms are nearer than it allows. The model is
structure-based: its times are those of reduced units.

Half an hour of two cores for the trajectories, forty minutes of one for the network.
Numbers to reach: a folded share within .05 of the reference, folding and unfolding
times within 20 %. Both are reached with jumps that are steered away from overlaps
(`sample.repulsion`), see `docs/results.md`. Side chains still come too close in one
frame of eighteen.
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("equijump", "ala2").get_config()
    config.data.sources = ("workdir/cln025/*.xtc",)
    config.data.lags = (0.6,)  # ps
    config.data.held_out = 1
    config.model.update(cloud="chain", refinements=2)
    config.sample.repulsion = 0.5
    config.model.update(num_channels=32, num_layers=2)
    config.model.update(num_neighbours=9, reach=9)
    config.train.update(batch_size=32, num_steps=40_000)
    return config
