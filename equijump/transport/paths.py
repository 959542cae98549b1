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

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from equijump.data.residues import CA_SLOT


class Path(NamedTuple):
    """Coefficients at one time: of source, target and noise."""

    alpha: Float[Array, ""]
    beta: Float[Array, ""]
    gamma: Float[Array, ""]


class Scales(NamedTuple):
    r"""Lengths in Å, per axis, of each slot.

    Attributes:
        displacement: Root mean square $d$ of $x_1 - x_0$.
        noise: Standard deviation $\sigma$ of the noise.
    """

    displacement: Float[Array, "num_slots 1"]
    noise: Float[Array, "num_slots 1"]


class Estimate(NamedTuple):
    """What source and noised frame tell of the end of a jump.

    Attributes:
        mean: Å.
        std: Å, per slot.
        displacement: The noised frame less its expectation, of unit variance.
        log_level: Logarithm of the noise on the end of the jump, in Å, of the vectors.
    """

    mean: Float[Array, "num_nodes num_slots 3"]
    std: Float[Array, "num_slots 1"]
    displacement: Float[Array, "num_nodes num_slots 3"]
    log_level: Float[Array, ""]


def draw_noise(
    key: Key[Array, ""],
    slot_mask: Bool[Array, "num_nodes num_slots"],
    places: Int[Array, " num_atoms"] | None = None,
) -> Float[Array, "num_nodes num_slots 3"]:
    """Draws standard normal numbers for atoms; those of the positions are centred.

    Args:
        key: Draws them.
        slot_mask: True for atoms.
        places: Slots of all atoms, counted through, where they are known: then no
            numbers are drawn in vain, which most would be.
    """
    size = slot_mask.size
    # Drawn flat, which is faster where many keys are drawn for side by side.
    count = size if places is None else places.shape[0]
    noise = jax.random.normal(key, (3 * count,)).reshape(count, 3)
    if places is not None:
        noise = jnp.zeros((size, 3)).at[places].set(noise, unique_indices=True)
    noise = noise.reshape(*slot_mask.shape, 3)
    noise = jnp.where(slot_mask[..., None], noise, 0.0)
    real = slot_mask[:, CA_SLOT, None]
    mean = jnp.sum(noise[:, CA_SLOT], axis=0) / jnp.maximum(jnp.sum(real), 1)
    return noise.at[:, CA_SLOT].add(jnp.where(real, -mean, 0.0))


def noised(
    path: Path,
    scales: Scales,
    x_0: Float[Array, "num_nodes num_slots 3"],
    x_1: Float[Array, "num_nodes num_slots 3"],
    z: Float[Array, "num_nodes num_slots 3"],
) -> Float[Array, "num_nodes num_slots 3"]:
    r"""Returns $x_t$."""
    return path.alpha * x_0 + path.beta * x_1 + path.gamma * scales.noise * z


def estimate(
    path: Path,
    scales: Scales,
    x_0: Float[Array, "num_nodes num_slots 3"],
    x_t: Float[Array, "num_nodes num_slots 3"],
) -> Estimate:
    r"""Returns $m$ and $s$ of the module's head, and the inputs of the network."""
    displacement, noise = scales
    moved = x_t - (path.alpha + path.beta) * x_0
    signal, disturbance = path.beta * displacement, path.gamma * noise
    variance = jnp.square(signal) + jnp.square(disturbance)
    # At t = 0 nothing is seen but the source: then the displacement is all unknown.
    is_blind = variance <= 0.0
    variance = jnp.where(is_blind, 1.0, variance)
    gain = signal * displacement / variance
    std = displacement * disturbance / jnp.sqrt(variance)
    level = path.gamma * noise[0, 0] / jnp.maximum(path.beta, 1e-6)
    return Estimate(
        mean=x_0 + gain * moved,
        std=jnp.where(is_blind, displacement, std),
        displacement=moved / jnp.sqrt(variance),
        log_level=jnp.log(jnp.clip(level, 1e-3, 20.0)),
    )
