r"""Symphony on QM9 with properties to ask for: gap, dipole moment, logP, rings.

    symphony properties qm9 --with=gfn2,rdkit --num_molecules=38600 \
        -o workdir/qm9_labelled.npz
    symphony train --config=qm9_properties --workdir=workdir/qm9_properties
    symphony sample --checkpoint=workdir/qm9_properties --basin --candidates=8 \
        --property gap=5 --property dipole=2:3 --property logP=1 --property num_rings=2

The first command labels a third of QM9, in some half an hour of one CPU core, and only
these molecules train. The second takes three quarters of an hour more. It starts from
the weights `qm9_cpu`. From `qm9`, with three times as many parameters, add:

    --config.train.start_from=qm9 --config.model.num_channels=128 \
        --config.model.num_layers=4
"""

import ml_collections

from common.runs import config as configs


def get_config() -> ml_collections.ConfigDict:
    config = configs.find("symphony", "qm9_cpu").get_config()
    config.data.path = "workdir/qm9_labelled.npz"
    config.data.properties = ("gap", "dipole", "logP", "num_rings")
    config.data.labelled_only = True
    config.data.num_buckets = 3  # Less to compile, for a short run.
    config.train.start_from = "qm9_cpu"
    config.train.update(num_steps=22_000, batch_size=8, num_microbatches=4)
    config.train.update(learning_rate=1e-3, warmup_steps=200)
    config.train.update(eval_every=1_000, num_validation=500)
    return config
