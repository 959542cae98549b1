r"""Flow matching: from noise to the target along a flow, the source only a condition.

$$ x_t = t x_1 + (1 - t) \sigma z, \qquad dX = v dt, \qquad
   v = E[x_1 - \sigma z \mid x_t, x_0] $$
(Lipman et al. 2022, arXiv:2210.02747): a baseline of EquiJump.
"""

from equijump.transport import solvers
from equijump.transport.one_sided import draw_time, path
from equijump.transport.paths import Cloud, Request

__all__ = ["HEADS", "METHODS", "draw_time", "jump", "path"]

HEADS = ("drift",)
METHODS = ("heun", "euler")


def jump(request: Request) -> Cloud:
    """Draws the end of one jump."""
    start = request.scales.noise * request.draw_noise(request.key)
    velocity = lambda x, t: request.predict(x, t)[0]
    return solvers.follow(request.method, velocity, start, request.num_steps)
