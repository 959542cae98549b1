"""EquiJump, a generative model of protein dynamics that jumps over steps of time.

`equijump.load().sample(1000, sequence="GYDPETGTWG")` gives trajectories of MDTraj.
Nothing heavy is imported until `load` is called.
"""

import os
import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m` looks into the working folder first, where a file may have the name of
    # a module of Python or of ours: here it is the last place.
    sys.path.append(sys.path.pop(0))

from typing import TYPE_CHECKING

from equijump import core

core.check()

from common import __version__ as __version__  # noqa: E402

if TYPE_CHECKING:
    import equijump.sampler


def load(
    name_or_path: str | os.PathLike[str] | None = None,
) -> "equijump.sampler.Sampler":
    """Returns a sampler with the weights of a packaged model or of a user's own run.

    Args:
        name_or_path: name of packaged weights, or the work directory of a training run.
            Where None, `ala2` for alanine dipeptide, which comes without a start, and
            `peptides` for any other start or sequence.
    """
    from equijump import sampler

    return sampler.load(name_or_path)
