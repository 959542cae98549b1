"""What both models use; it knows neither of them.

`so3`, `nn`, `geometry` and `generative` hold mathematics, `runs` and `commands` what
surrounds it. Positions are in Å; features are those of `common.nn.features`.
"""

__version__ = "0.3.0"

PROJECT = "symphony-equijump"
"""Tells this package from others that have the name `common`."""
