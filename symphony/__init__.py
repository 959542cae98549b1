"""Symphony, a generative model that builds 3D molecules atom by atom.

`symphony.load("qm9").sample(100, seed=0)` gives RDKit molecules, and
`symphony.load_refiner().refine(molecules)` denoises any. Nothing heavy is imported
until one of them is called.
"""

import os
import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m` looks into the working folder first, where a file may have the name of
    # a module of Python or of ours: here it is the last place.
    sys.path.append(sys.path.pop(0))

from typing import TYPE_CHECKING

from symphony import core

core.check()

from common import __version__ as __version__  # noqa: E402

if TYPE_CHECKING:
    from symphony.refine import MoleculeRefiner
    from symphony.sampler import Sampler


def load(name_or_path: str | os.PathLike[str] = "qm9") -> "Sampler":
    """Returns a sampler with the weights of a packaged model or of a user's own run.

    Args:
      name_or_path: name of packaged weights, or the work directory of a training run.
    """
    from symphony import sampler

    return sampler.load(name_or_path)


def load_refiner(
    name_or_path: str | os.PathLike[str] = "refine_qm9", noise: float | None = None
) -> "MoleculeRefiner":
    """Returns a denoiser, whose `refine` takes RDKit molecules.

    Args:
      name_or_path: name of packaged weights, or the work directory of a training run.
      noise: noise in Å that is laid over a molecule and taken off again; the
        weights' own where None.
    """
    from symphony import refine

    return refine.load(name_or_path, noise)
