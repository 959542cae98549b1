"""The `equijump` command: `equijump <verb> [flags]` runs the module of that verb."""

import sys
from functools import partial

from common.commands import cli

VERBS = {
    "train": "train a model: --config=ala2 --workdir=workdir/ala2",
    "sample": "roll out trajectories: --num_jumps=1000 --output=workdir/rollout",
    "evaluate": "measure trajectories: --trajectory='rollout*.xtc' --output=report",
    "view": "look at trajectories: 'rollout/*.xtc' -o view.html",
    "inspect": "tell what files hold and how to train on them: mine.h5 'runs/*.xtc'",
    "simulate": "make trajectories: --sequence=A --caps --output=workdir/ala2_md",
    "merge": "put the parts of --shard=i/n together: workdir/rollout",
    "package": "weights of a run, to give away: --workdir=workdir/ala2 --output=mine",
}

main = partial(cli.dispatch, "equijump", VERBS)
"""Runs one verb by the arguments after `equijump`, and returns the exit status."""

if __name__ == "__main__":
    sys.exit(main())
