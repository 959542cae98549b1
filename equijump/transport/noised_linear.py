r"""DeepJump's transport: a straight line from the noised source frame to the target.

$$ x_t = (1 - t) (x_0 + \sigma z) + t x_1, \qquad
   dX = \frac{D(X, t, x_0) - X}{1 - t} dt, \qquad D = E[x_1 \mid x_t, x_0], $$
solved by Euler's or Heun's method from $x_0 + \sigma z$.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Key

from equijump.transport import solvers
from equijump.transport.paths import Path, Scales

Cloud = Float[Array, "num_nodes num_slots 3"]
HEADS = ("end",)
METHODS = ("heun", "euler")
EDGE = 1e-3


def path(t: Float[Array, ""]) -> Path:
    """Returns the coefficients at a time."""
    return Path(1.0 - t, t, 1.0 - t)


def draw_time(key: Key[Array, ""]) -> Float[Array, ""]:
    """Draws a time of training, evenly."""
    return jax.random.uniform(key, minval=0.0, maxval=1.0 - EDGE)


def jump(
    predict: Callable[[Cloud, Float[Array, ""]], tuple[Cloud]],
    draw_noise: Callable[[Key[Array, ""]], Cloud],
    key: Key[Array, ""],
    x_0: Cloud,
    scales: Scales,
    num_steps: int,
    method: str,
) -> Cloud:
    """Draws the end of one jump; for the arguments see `equijump.transport`."""
    start = x_0 + scales.noise * draw_noise(key)
    velocity = lambda x, t: (predict(x, t)[0] - x) / (1.0 - t)
    return solvers.follow(method, velocity, start, num_steps)
