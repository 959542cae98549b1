"""EquiJump, a generative model of protein dynamics that jumps over steps of time.

`equijump.load("ala2").sample(1000, replicas=10)` gives trajectories of MDTraj. Nothing
heavy is imported until `load` is called.
"""

import os
import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m` looks into the working folder first, where a file may have the name of
    # a module of Python or of ours: here it is the last place.
    sys.path.append(sys.path.pop(0))

from typing import TYPE_CHECKING

from common import __version__ as __version__

if TYPE_CHECKING:
    import equijump.sampler


def load(name_or_path: str | os.PathLike[str] = "ala2") -> "equijump.sampler.Sampler":
    """Returns a sampler with the weights of a packaged model or of a user's own run.

    Args:
      name_or_path: name of packaged weights, or the work directory of a training run.
    """
    from equijump import sampler

    return sampler.load(name_or_path)
