r"""Flow matching: from noise to the target along a flow, the source only a condition.

$$ x_t = t x_1 + (1 - t) \sigma z, \qquad dX = v dt, \qquad
   v = E[x_1 - \sigma z \mid x_t, x_0] $$
(Lipman et al. 2022, arXiv:2210.02747): a baseline of EquiJump.
"""

from collections.abc import Callable

from jaxtyping import Array, Float, Key

from equijump.transport import solvers
from equijump.transport.one_sided import draw_time, path
from equijump.transport.paths import Scales

__all__ = ["HEADS", "METHODS", "draw_time", "jump", "path"]

Cloud = Float[Array, "num_nodes num_slots 3"]
HEADS = ("drift",)
METHODS = ("heun", "euler")


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
    del x_0
    start = scales.noise * draw_noise(key)
    velocity = lambda x, t: predict(x, t)[0]
    return solvers.follow(method, velocity, start, num_steps)
