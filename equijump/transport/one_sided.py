r"""The one-sided interpolant: from noise to the target, the source only as a condition.

$$ x_t = t x_1 + (1 - t) \sigma z, $$
with the two heads and the sampler of `equijump.transport.two_sided`: a baseline of
EquiJump (dos Santos Costa et al. 2024, arXiv:2410.09667, table 1; Albergo, Boffi and
Vanden-Eijnden 2023, arXiv:2303.08797, section 3).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from equijump.transport import solvers
from equijump.transport.paths import Cloud, Path, Request, Time

HEADS = ("drift", "noise")
METHODS = ("euler_maruyama",)
WINDOW = (0.0, 0.9901)
EDGE = 1e-3
"""Training keeps so far from the time at which no noise is left."""


def path(t: Time) -> Path:
    """Returns the coefficients at a time."""
    return Path(jnp.zeros_like(t), t, 1.0 - t)


def draw_time(key: Key[Array, ""]) -> Time:
    """Draws a time of training, evenly."""
    return jax.random.uniform(key, minval=0.0, maxval=1.0 - EDGE)


def jump(request: Request) -> Cloud:
    """Draws the end of one jump."""
    key_start, key_steps = jax.random.split(request.key)
    start = request.scales.noise * request.draw_noise(key_start)
    times = solvers.times_of(request.num_steps)
    return solvers.interpolant(request, path, key_steps, start, times, WINDOW)
