"""The `symphony` command: `symphony <verb> [flags]` runs the module of that verb."""

import sys
from functools import partial

from common.commands import cli

VERBS = {
    "train": "train a model: --config=qm9 --workdir=workdir/qm9",
    "sample": "build molecules: --num_molecules=100 --output=molecules.sdf",
    "refine": "refine molecules: --molecules=in.sdf --output=refined.sdf",
    "edit": "regrow a part: in.sdf --remove=7,8,9 --num_molecules=20 -o edited.sdf",
    "complete": "add missing hydrogens, or a part: in.sdf -o completed.sdf",
    "evaluate": "measure molecules: --samples=molecules.sdf --output=report",
    "merge": "put the parts of --shard=i/n together: molecules.sdf",
    "view": "look at molecules: molecules.sdf -o view.html",
    "properties": "compute properties: in.sdf --with=gfn2,rdkit -o out.sdf",
    "package": "weights of a run, to give away: --workdir=workdir/qm9 --output=mine",
    "score": "log-likelihood of molecules: --molecules=in.sdf --output=scores.csv",
}

main = partial(cli.dispatch, "symphony", VERBS)
"""Runs one verb by the arguments after `symphony`, and returns the exit status."""

if __name__ == "__main__":
    sys.exit(main())
