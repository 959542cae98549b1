r"""DeepJump's transport: a straight line from the noised source frame to the target.

$$ x_t = (1 - t) (x_0 + \sigma z) + t x_1, \qquad
   dX = \frac{D(X, t, x_0) - X}{1 - t} dt, \qquad D = E[x_1 \mid x_t, x_0], $$
solved by Euler's or Heun's method from $x_0 + \sigma z$.
"""

import jax
from jaxtyping import Array, Key

from equijump.transport import solvers
from equijump.transport.paths import Cloud, Path, Request, Time

HEADS = ("end",)
METHODS = ("heun", "euler")
EDGE = 1e-3


def path(t: Time) -> Path:
    """Returns the coefficients at a time."""
    return Path(1.0 - t, t, 1.0 - t)


def draw_time(key: Key[Array, ""]) -> Time:
    """Draws a time of training, evenly."""
    return jax.random.uniform(key, minval=0.0, maxval=1.0 - EDGE)


def jump(request: Request) -> Cloud:
    """Draws the end of one jump."""
    start = request.x_0 + request.scales.noise * request.draw_noise(request.key)
    velocity = lambda x, t: (request.predict(x, t)[0] - x) / (1.0 - t)
    return solvers.follow(request.method, velocity, start, request.num_steps)
