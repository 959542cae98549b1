"""`python -m symphony`, wherever another program has the name `symphony`."""

import sys

from symphony.cli import main

if __name__ == "__main__":
    sys.exit(main())
