r"""EquiJump's two-sided interpolant: drift and noise, from exactly the source frame.

$$ x_t = (1 - t) x_0 + t x_1 + \gamma(t) \sigma z, \qquad \gamma(t) = t (1 - t), $$
with two heads, $b = E[x_1 - x_0 + \dot\gamma \sigma z \mid x_t, x_0]$ and
$\eta = E[z \mid x_t, x_0]$, and a diffusion between the times .1 and .9 (dos Santos
Costa et al. 2024, arXiv:2410.09667, algorithms 1 and 2). Given its source a jump has no
other randomness than that diffusion: without it all ends are one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from equijump.transport import solvers
from equijump.transport.paths import Path, Scales

Cloud = Float[Array, "num_nodes num_slots 3"]
HEADS = ("drift", "noise")
METHODS = ("euler_maruyama",)
WINDOW = (0.1, 0.9)
EDGE = 1e-4
"""Training and the first step keep so far from the times at which no noise is left."""


def path(t: Float[Array, ""]) -> Path:
    """Returns the coefficients at a time."""
    return Path(1.0 - t, t, t * (1.0 - t))


def draw_time(key: Key[Array, ""]) -> Float[Array, ""]:
    """Draws a time of training, evenly."""
    return jax.random.uniform(key, minval=EDGE, maxval=1.0 - EDGE)


def times(num_steps: int) -> Float[Array, " num_times"]:
    """Returns the times of the sampler."""
    return jnp.linspace(0.0, 1.0, num_steps + 1).at[0].set(EDGE)


def jump(
    predict: Callable[[Cloud, Float[Array, ""]], tuple[Cloud, Cloud]],
    draw_noise: Callable[[Key[Array, ""]], Cloud],
    key: Key[Array, ""],
    x_0: Cloud,
    scales: Scales,
    num_steps: int,
    method: str,
) -> Cloud:
    """Draws the end of one jump; for the arguments see `equijump.transport`."""
    del method
    return solvers.euler_maruyama(
        predict, path, draw_noise, key, x_0, times(num_steps), scales, WINDOW
    )
