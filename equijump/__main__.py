"""`python -m equijump`, wherever another program has the name `equijump`."""

import sys

from equijump.cli import main

if __name__ == "__main__":
    sys.exit(main())
