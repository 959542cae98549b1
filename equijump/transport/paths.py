r"""What all transports share: a noised path from source to target, and what it tells.

On a path, $x_t = \alpha x_0 + \beta x_1 + \gamma \sigma z$ with standard normal $z$.
Were the jump Gaussian, $x_1 \sim N(x_0, d^2)$ with $d$ the spread of the displacement,
the end of the jump given $x_t$ would be normal too, with
$$ m = x_0 + \frac{\beta d^2 (x_t - \alpha x_0 - \beta x_0)}{\beta^2 d^2 + \gamma^2
   \sigma^2}, \qquad s = \frac{d \gamma \sigma}{\sqrt{\beta^2 d^2 + \gamma^2 \sigma^2}},
$$ so the network is asked for $(E[x_1 \mid x_t, x_0] - m) / s$ alone, which has at most
unit variance at every $t$ (the preconditioning of Karras et al. 2022, arXiv:2206.00364,
with a source).
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from common.generative.preconditioning import precondition
from common.generative.schedules import Level
from common.so3.vectors import safe_norm, unit_vectors
from equijump.data.residues import CA_SLOT

Cloud = Float[Array, "num_nodes num_slots 3"]
Time = Float[Array, ""]
DrawNoise: TypeAlias = Callable[[Key[Array, ""]], Cloud]
Predict: TypeAlias = Callable[[Cloud, Time], tuple[Cloud, ...]]

LEAST_LEVEL, CEILING = 1e-3, 20.0
"""Å: noise levels are told to the network as they are from the first to the second."""


class Path(NamedTuple):
    """Coefficients at one time: of source, target and noise."""

    alpha: Time
    beta: Time
    gamma: Time


PathFn: TypeAlias = Callable[[Time], Path]


class Shape(NamedTuple):
    """Features of `equijump.cloud.shape_of`, as they are in the data.

    Attributes:
        mean: mean of each feature.
        std: standard deviation of each.
    """

    mean: Float[Array, "*num_nodes num_slots num_shape"]
    std: Float[Array, "*num_nodes num_slots num_shape"]


class Scales(NamedTuple):
    r"""Lengths in Å, per axis, of each slot, for all residues or for each.

    Attributes:
        displacement: root mean square $d$ of $x_1 - x_0$.
        noise: standard deviation $\sigma$ of the noise.
        bonds: length of the bond that a slot holds, zero for another vector; None
            where no slot holds a bond.
        shape: shape around each bond; None where no slot holds one.
    """

    displacement: Float[Array, "*num_nodes num_slots 1"]
    noise: Float[Array, "*num_nodes num_slots 1"]
    bonds: Float[Array, "num_nodes num_slots 1"] | None = None
    shape: Shape | None = None


class Request(NamedTuple):
    """What a sampler needs to draw the end of one jump.

    Attributes:
        predict: function that gives the heads in Å (the noise as it is) of a noised
            frame and a time.
        draw_noise: function that gives standard normal numbers of a key, masked and
            centred.
        key: key of the jump.
        x_0: source, Å.
        scales: lengths of each slot, Å.
        num_steps: number of evaluations of the network.
        method: one of the transport's `METHODS`.
    """

    predict: Predict
    draw_noise: DrawNoise
    key: Key[Array, ""]
    x_0: Cloud
    scales: Scales
    num_steps: int
    method: str = ""


class Estimate(NamedTuple):
    """What source and noised frame tell of the end of a jump.

    Attributes:
        mean: expected end, Å.
        std: deviation from it, Å, per slot; of bonds, across them.
        along: deviation along bonds, Å; None where there are none.
        displacement: noised frame less its expectation, of unit variance.
        log_level: logarithm of the noise on the end of the jump, in Å, of the vectors;
            see `compressed`.
        log_ratio: logarithm of the noise over its scale.
    """

    mean: Cloud
    std: Float[Array, "*num_nodes num_slots 1"]
    displacement: Cloud
    log_level: Float[Array, ""]
    log_ratio: Float[Array, ""]
    along: Float[Array, "num_nodes num_slots 1"] | None = None


def draw_noise(
    key: Key[Array, ""],
    slot_mask: Bool[Array, "num_nodes num_slots"],
    places: Int[Array, " num_atoms"] | None = None,
    roots: Bool[Array, " num_nodes"] | None = None,
) -> Cloud:
    """Draws standard normal numbers for atoms; those of the positions are centred.

    >>> mask = jnp.arange(14)[None] < jnp.array([[4], [5]])
    >>> noise = draw_noise(jax.random.key(0), mask)
    >>> noise.shape, bool(jnp.allclose(noise[:, CA_SLOT].sum(axis=0), 0.0, atol=1e-5))
    ((2, 14, 3), True)

    Args:
        key: key of the numbers.
        slot_mask: true for atoms.
        places: slots of all atoms, counted through, where they are known: then no
            numbers are drawn in vain, which most would be.
        roots: true for residues whose slot of CA holds a position; all where None.
    """
    size = slot_mask.size
    # Drawn flat, which is faster where many keys are drawn for side by side.
    count = size if places is None else places.shape[0]
    noise = jax.random.normal(key, (3 * count,)).reshape(count, 3)
    if places is not None:
        noise = jnp.zeros((size, 3)).at[places].set(noise, unique_indices=True)
    noise = noise.reshape(*slot_mask.shape, 3)
    noise = jnp.where(slot_mask[..., None], noise, 0.0)
    real = (slot_mask[:, CA_SLOT] if roots is None else roots)[:, None]
    mean = jnp.sum(jnp.where(real, noise[:, CA_SLOT], 0.0), axis=0)
    mean /= jnp.maximum(jnp.sum(real), 1)
    return noise.at[:, CA_SLOT].add(jnp.where(real, -mean, 0.0))


def noised(path: Path, scales: Scales, x_0: Cloud, x_1: Cloud, z: Cloud) -> Cloud:
    r"""Returns $x_t$.

    >>> path, ones = Path(*map(jnp.float32, (0.5, 0.5, 2.0))), jnp.ones((14, 1))
    >>> cloud = jnp.ones((1, 14, 3))
    >>> float(noised(path, Scales(ones, ones), cloud, 3.0 * cloud, cloud)[0, 0, 0])
    4.0
    """
    return path.alpha * x_0 + path.beta * x_1 + path.gamma * scales.noise * z


def estimate(path: Path, scales: Scales, x_0: Cloud, x_t: Cloud) -> Estimate:
    r"""Returns $m$ and $s$ of the module's head, and the inputs of the network.

    >>> path, ones = Path(*map(jnp.float32, (0.0, 1.0, 1.0))), jnp.ones((14, 1))
    >>> cloud = jnp.ones((1, 14, 3))
    >>> found = estimate(path, Scales(ones, ones), cloud, 3.0 * cloud)
    >>> float(found.mean[0, 0, 0])  # Half way, since noise and displacement are alike.
    2.0
    """
    moved = x_t - (path.alpha + path.beta) * x_0
    # At t = 0 nothing is seen but the source: then the displacement is all unknown.
    level = Level(path.beta, path.gamma * scales.noise)
    known = precondition(level, scales.displacement)
    beta = jnp.maximum(path.beta, 1e-6)
    in_angstrom = level.sigma.reshape(-1)[0] / beta
    mean, std, along = x_0 + known.skip * moved, known.out, None
    if scales.bonds is not None:
        mean, std, along = _estimate_bonds(path, scales, x_0, x_t, mean, std)
    return Estimate(
        mean=mean,
        std=std,
        along=along,
        displacement=known.input * moved,
        log_level=compressed(jnp.log(jnp.maximum(in_angstrom, LEAST_LEVEL))),
        log_ratio=jnp.log(jnp.clip(path.gamma / beta, LEAST_LEVEL, CEILING)),
    )


BOND_SPREAD = 0.03
"""Å: standard deviation of the length of a bond at room temperature."""


def _estimate_bonds(
    path: Path, scales: Scales, x_0: Cloud, x_t: Cloud, mean: Cloud, std: Array
) -> tuple[Cloud, Array, Array]:
    r"""Returns mean and spreads of bonds: of vectors of known length.

    Were the end of a bond of length $b$ spread over directions $u$ as
    $\exp(\kappa_0 u \cdot u_0)$ around its source's, the noised vector would leave
    $\exp(\theta \cdot u)$ with $\theta = \kappa_0 u_0 + b \beta (x_t - \alpha x_0) /
    (\gamma \sigma)^2$: a von Mises-Fisher law. With $\kappa = |\theta|$ and
    $L(\kappa) = \coth \kappa - 1 / \kappa$ its mean is $b L \theta / \kappa$; its
    variance is $b^2 L / \kappa$ across it and $b^2 (1 - 2 L / \kappa - L^2)$ along it.
    The length itself is normal, of `BOND_SPREAD`.
    """
    length = jnp.maximum(scales.bonds, 1.0)
    # E|x_1 - x_0|^2 = 2 b^2 (1 - L(kappa_0)) decides the spread of directions.
    turned = 1.5 * jnp.square(scales.displacement / length)
    order = jnp.clip(1.0 - turned, 0.0, 0.9999)
    kappa_0 = order * (3.0 - jnp.square(order)) / (1.0 - jnp.square(order))
    start = x_0 / jnp.maximum(safe_norm(x_0)[..., None], 1e-6)
    seen = x_t - path.alpha * x_0
    precision = path.beta / jnp.maximum(jnp.square(path.gamma * scales.noise), 1e-9)
    theta = kappa_0 * start + length * precision * seen
    kappa = safe_norm(theta)[..., None]
    share = langevin_over(kappa)  # L / kappa
    # The length is normal around b, and seen where the noise is small.
    kept = 1.0 / (1.0 + path.beta * precision * BOND_SPREAD**2)
    excess = safe_norm(seen)[..., None] / jnp.maximum(path.beta, 1e-6) - length
    expected = length * share * kappa + (1.0 - kept) * excess
    along = 1.0 - 2.0 * share - jnp.square(share * kappa)
    along = jnp.square(length) * jnp.maximum(along, 0.0) + kept * BOND_SPREAD**2
    is_bond = scales.bonds > 0.0
    return (
        jnp.where(is_bond, expected * unit_vectors(theta), mean),
        jnp.where(is_bond, length * jnp.sqrt(share), std),
        jnp.where(is_bond, jnp.sqrt(along), std),
    )


def langevin_over(kappa: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    r"""Returns $(\coth \kappa - 1 / \kappa) / \kappa$.

    >>> [round(float(langevin_over(jnp.float32(kappa))), 3) for kappa in (0, 2, 1e3)]
    [0.333, 0.269, 0.001]
    """
    is_small = kappa < 0.3
    safe = jnp.where(is_small, 1.0, kappa)
    square = jnp.square(kappa)
    series = (1.0 - square / 15.0 + 2.0 * jnp.square(square) / 315.0) / 3.0
    return jnp.where(is_small, series, (1.0 / jnp.tanh(safe) - 1.0 / safe) / safe)


def compressed(log_level: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    r"""Returns a logarithm of a level, in Å, as the network's encoding can tell it.

    The encoding ends near `CEILING`. A logarithm that lies $e$ above goes on to rise,
    by $e / (1 + e)$, so that no two levels look alike and none leaves the encoding.

    >>> compressed(jnp.log(jnp.array([2.0, 20.0, 20.0 * math.e])))
    Array([0.6931472, 2.9957323, 3.4957323], dtype=float32)
    """
    top = math.log(CEILING)
    excess = jnp.maximum(log_level - top, 0.0)
    return jnp.minimum(log_level, top) + excess / (1.0 + excess)
