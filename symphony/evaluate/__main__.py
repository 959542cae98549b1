"""`python -m symphony.evaluate`, the same as `symphony evaluate`."""

import sys

from common.commands import cli
from symphony.evaluate import main

sys.exit(cli.run("symphony evaluate", main))
