"""`python -m equijump.evaluate`, the same as `equijump evaluate`."""

import sys

from common.commands import cli
from equijump.evaluate import main

sys.exit(cli.run("equijump evaluate", main))
