"""How transports use the solvers of `common.generative`: their times and noise."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from common.generative import solvers
from common.generative.schedules import karras_schedule
from equijump.transport.paths import Cloud, PathFn, Request, Time

SMALLEST, RHO = 0.01, 3.0
"""Share of the noise left at the last inner time, and exponent of the schedule: with
ten steps of Heun spreads of .028 to 1 sigma are kept to 3 %."""


def times_of(num_steps: int) -> solvers.Times:
    """Returns times from 0 to 1 between which 1 - t falls as levels of noise do.

    >>> times_of(2).round(2).tolist()[::2]
    [0.0, 1.0]
    """
    return 1.0 - karras_schedule(num_steps, 1.0, SMALLEST, RHO)


def follow(
    method: str, velocity: solvers.Velocity, x: Cloud, num_evaluations: int
) -> Cloud:
    """Solves a flow from time 0 to 1 by "euler" or "heun", with so many evaluations.

    >>> still = lambda x, t: jnp.ones_like(x)
    >>> follow("euler", still, jnp.zeros((1, 14, 3)), 4)[0, 0].round(3).tolist()
    [1.0, 1.0, 1.0]
    """
    if method == "euler":
        return solvers.euler(velocity, x, times_of(num_evaluations))
    return solvers.heun(velocity, x, times_of((num_evaluations + 1) // 2))


def interpolant(
    request: Request,
    path: PathFn,
    key: Key[Array, ""],
    x: Cloud,
    times: solvers.Times,
    window: tuple[float, float],
) -> Cloud:
    r"""Solves the SDE of a stochastic interpolant with diffusion $\epsilon = \sigma^2$.

    $$ dX = \big(b - \mathbb 1_w \frac{\sigma}{\gamma} \eta \big) dt
       + \mathbb 1_w \sqrt 2 \sigma dB, $$
    since the score is $-\eta / (\gamma \sigma)$ (Albergo, Boffi and Vanden-Eijnden
    2023, arXiv:2303.08797, section 2). Outside the window $w$ of times the noise is so
    small that $1 / \gamma$ would amplify errors: there the drift is followed alone.

    Args:
        request: jump, whose heads are drift $b$ and noise $\eta$.
        path: coefficients at a time.
        key: key of the steps.
        x: frame at the first time, Å.
        times: rising times.
        window: first and last time with diffusion.
    """
    scale = request.scales.noise

    def drift(x: Cloud, t: Time, g: Float[Array, "*num_nodes num_slots 1"]) -> Cloud:
        velocity, noise = request.predict(x, t)
        score = -noise / (path(t).gamma * scale)
        return velocity + 0.5 * jnp.square(g) * score

    # A step has noise if the whole of it lies inside, or its noise would stay.
    inside = (times[:-1] >= window[0]) & (times[1:] <= window[1])
    share = jnp.where(inside, jnp.sqrt(2.0), 0.0)
    diffusion = share.reshape(-1, *(1,) * scale.ndim) * scale
    return solvers.euler_maruyama(drift, diffusion, x, times, request.draw_noise, key)
