r"""EquiJump's two-sided interpolant: drift and noise, from exactly the source frame.

$$ x_t = (1 - t) x_0 + t x_1 + \gamma(t) \sigma z, \qquad \gamma(t) = t (1 - t), $$
with two heads, $b = E[x_1 - x_0 + \dot\gamma \sigma z \mid x_t, x_0]$ and
$\eta = E[z \mid x_t, x_0]$, and a diffusion between the times .1 and .9 (dos Santos
Costa et al. 2024, arXiv:2410.09667, algorithms 1 and 2). Given its source a jump has no
other randomness than that diffusion: without it all ends are one.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from equijump.transport import solvers
from equijump.transport.paths import Cloud, Path, Request, Time

HEADS = ("drift", "noise")
METHODS = ("euler_maruyama",)
WINDOW = (0.1, 0.9)
EDGE = 1e-4
"""Training and the first step keep so far from the times at which no noise is left."""


def path(t: Time) -> Path:
    """Returns the coefficients at a time."""
    return Path(1.0 - t, t, t * (1.0 - t))


def draw_time(key: Key[Array, ""]) -> Time:
    """Draws a time of training, evenly."""
    return jax.random.uniform(key, minval=EDGE, maxval=1.0 - EDGE)


def times(num_steps: int) -> Float[Array, " num_times"]:
    """Returns the times of the sampler."""
    return jnp.linspace(0.0, 1.0, num_steps + 1).at[0].set(EDGE)


def jump(request: Request) -> Cloud:
    """Draws the end of one jump."""
    t = times(request.num_steps)
    return solvers.interpolant(request, path, request.key, request.x_0, t, WINDOW)
