r"""Diagnostics of symmetry: of data and of a denoiser.

* `orientation_test`: do the clouds of a data set come in preferred orientations? A
  classifier that sees axes is asked which of them were rotated at random (arXiv:
  2510.01349); on data without preference it can do no better than guess.
* `jacobian_asymmetry`: a score is a gradient, so that the Jacobian of a denoiser of
  equal weights is symmetric; a network's is nearly so at best.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from common.geometry import alignment, matrix_fisher
from common.so3.harmonics import spherical_harmonics

MAX_MOMENT = 3
"""Largest degree of the moments by which the classifier sees a cloud."""

BAND = 0.98
"""Of the accuracy of guesses, 95 % lie within one half plus or minus this over the
root of their number."""


class OrientationTest(NamedTuple):
    """What a classifier made of orientations.

    Attributes:
        accuracy: share of the held-out clouds that it told right; one half without any
            preferred orientation.
        band: accuracies above one half by more than this are no chance (95 %).
        num_tested: number of held-out clouds.
        is_broken: true where some orientation is preferred, as far as this can tell.
    """

    accuracy: float
    band: float
    num_tested: int
    is_broken: bool


def orientation_test(
    positions: Float[np.ndarray, "num_clouds num_points 3"],
    mask: Bool[np.ndarray, "num_clouds num_points"] | None = None,
    species: Int[np.ndarray, "num_clouds num_points"] | None = None,
    seed: int = 0,
) -> OrientationTest:
    """Tests whether clouds come in preferred orientations.

    Half of them are rotated at random, each at most once, and a network of two hidden
    layers is trained on half of the data to tell which; it sees moments of the cloud
    and of each species, along the axes. A band of .01 takes 10,000 held-out clouds, so
    20,000 in all.

    Args:
        positions: clouds as a data set gives them; each is centred.
        mask: true where real.
        species: species of the points, from 0; one for all where None.
        seed: seed of the rotations, the division and the classifier.

    Raises:
        ValueError: there are fewer than 40 clouds.

    >>> clouds = np.random.default_rng(0).normal(size=(40, 3, 3))
    >>> orientation_test(clouds).num_tested
    20
    """
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    count = len(positions)
    if count < 40:
        raise ValueError(f"expected at least 40 clouds, found {count}")
    mask = np.ones(positions.shape[:2], bool) if mask is None else mask
    species = np.zeros(mask.shape, int) if species is None else species
    order = np.random.default_rng(seed).permutation(count)
    is_rotated = np.zeros(count, bool)
    is_rotated[order[::2]] = True
    rotations = matrix_fisher.uniform(jax.random.key(seed), count)
    rotated = np.asarray(alignment.rotate(jnp.asarray(positions), rotations))
    shown = np.where(is_rotated[:, None, None], rotated, positions)
    feats = np.asarray(_moments(shown, mask, species, int(species.max()) + 1))
    train, test = order[: count // 2], order[count // 2 :]
    classifier = make_pipeline(
        StandardScaler(),
        MLPClassifier((32, 32), alpha=1e-2, early_stopping=True, random_state=seed),
    )
    classifier.fit(feats[train], is_rotated[train])
    accuracy = float(classifier.score(feats[test], is_rotated[test]))
    band = BAND / len(test) ** 0.5
    return OrientationTest(accuracy, band, len(test), accuracy > 0.5 + band)


def _moments(
    positions: Float[np.ndarray, "num_clouds num_points 3"],
    mask: Bool[np.ndarray, "num_clouds num_points"],
    species: Int[np.ndarray, "num_clouds num_points"],
    num_species: int,
) -> Float[Array, "num_clouds num_feats"]:
    """Returns the mean harmonic polynomials of all points and of each species."""
    points = jnp.asarray(positions, jnp.float32)
    points, _ = alignment.center(points, jnp.asarray(mask))
    harmonics = spherical_harmonics(points, MAX_MOMENT, normalize=False)[..., 1:]
    kinds = [jnp.asarray(mask)]
    if num_species > 1:
        kinds += [mask & (species == number) for number in range(num_species)]
    total = jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None]
    mean = lambda kind: jnp.sum(harmonics * kind[..., None], axis=1) / total
    return jnp.concatenate([mean(kind) for kind in kinds], axis=-1)


def jacobian_asymmetry(
    denoise: Callable[[Float[Array, "num_points 3"]], Float[Array, "num_points 3"]],
    y: Float[Array, "num_points 3"],
    key: Key[Array, ""],
    num_probes: int = 8,
) -> Float[Array, ""]:
    r"""Returns $\| J - J^\top \| / \| J \|$, by random probes.

    For standard normal $v$ the mean of $|A v|^2$ is the squared Frobenius norm of $A$;
    $J v$ takes one forward derivative, $J^\top v$ one backward. Zero is a gradient
    field, the root of two has no relation of $J$ and its transpose, two is a rotation.

    Args:
        denoise: denoiser of a cloud.
        y: cloud to ask it about.
        key: key of the probes.
        num_probes: number of probes.

    >>> y = jnp.ones((2, 3))
    >>> float(jacobian_asymmetry(lambda y: 2.0 * y, y, jax.random.key(0)))
    0.0
    """
    _, transposed = jax.vjp(denoise, y)

    def squares(v: Float[Array, "num_points 3"]) -> tuple[Array, Array]:
        forward = jax.jvp(denoise, (y,), (v,))[1]
        (backward,) = transposed(v)
        square = lambda x: jnp.sum(jnp.square(x))
        return square(forward - backward), square(forward)

    probes = jax.random.normal(key, (num_probes, *y.shape), y.dtype)
    asymmetry, size = jax.lax.map(squares, probes)
    return jnp.sqrt(jnp.sum(asymmetry) / jnp.sum(size))
