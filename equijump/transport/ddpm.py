r"""Denoising diffusion: from noise to the target, the source only as a condition.

$$ x_t = \beta x_1 + \gamma \sigma z, \qquad \beta = \sin(\pi t / 2), \quad
   \gamma = \cos(\pi t / 2), $$
with the noise as the only head, and ancestral steps from $t$ to $u$: with
$\rho = \beta_t / \beta_u$ and $\delta = \gamma_t^2 - \rho^2 \gamma_u^2$,
$$ x_u \sim N\!\Big( \frac{\rho \gamma_u^2}{\gamma_t^2} x_t
   + \frac{\beta_u \delta}{\gamma_t^2} \hat x_1, \;
   \sigma^2 \delta \frac{\gamma_u^2 / \gamma_t^2 + 1}{2} \Big) $$
(Ho, Jain and Abbeel 2020, arXiv:2006.11239, equations 6 and 7; the cosine schedule of
Nichol and Dhariwal 2021, arXiv:2102.09672): a baseline of EquiJump. The variance is the
mean of the two that Ho et al. name; 200 steps lose 12 % of a spread of .03 sigma with
the smaller one, and less than one with this.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from equijump.transport.paths import Cloud, Path, Request, Time

HEADS = ("noise",)
METHODS = ("ancestral",)
LARGEST, SMALLEST = 10.0, 0.003
"""Noise over signal at the first and the last inner time; it falls in equal ratios."""


def path(t: Time) -> Path:
    """Returns the coefficients at a time."""
    angle = 0.5 * jnp.pi * t
    return Path(jnp.zeros_like(t), jnp.sin(angle), jnp.cos(angle))


def draw_time(key: Key[Array, ""]) -> Time:
    """Draws a time of training, evenly between the first and the last inner ones."""
    first, last = time_of(jnp.array([LARGEST, SMALLEST]))
    return jax.random.uniform(key, minval=first, maxval=last)


def time_of(level: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    r"""Returns the time at which $\gamma / \beta$ is the level."""
    return 2.0 / jnp.pi * jnp.arctan2(1.0, level)


def times(num_steps: int) -> Float[Array, " num_times"]:
    """Returns the times of the sampler."""
    levels = jnp.geomspace(LARGEST, SMALLEST, num_steps)
    return jnp.append(time_of(levels), 1.0)


def jump(request: Request) -> Cloud:
    """Draws the end of one jump."""
    scales, t = request.scales, times(request.num_steps)
    key_start, key_steps = jax.random.split(request.key)
    # At the first time something of the end is seen already: near the source, with
    # the spread of the displacement.
    first = path(t[0])
    variance = jnp.square(first.gamma * scales.noise)
    variance += jnp.square(first.beta * scales.displacement)
    start = first.beta * request.x_0
    start += jnp.sqrt(variance) * request.draw_noise(key_start)

    def step(x: Cloud, inputs: tuple[Time, Time, Cloud]) -> tuple[Cloud, None]:
        t, u, noise = inputs
        mean, std = transition(request, x, t, u)
        return mean + std * noise, None

    keys = jax.random.split(key_steps, request.num_steps)
    noises = jax.vmap(request.draw_noise)(keys)
    return jax.lax.scan(step, start, (t[:-1], t[1:], noises))[0]


def transition(
    request: Request, x: Cloud, t: Time, u: Time
) -> tuple[Cloud, Float[Array, "*num_nodes num_slots 1"]]:
    """Returns mean and deviation of the frame at a time, given the one before."""
    at_t, at_u = path(t), path(u)
    (noise,) = request.predict(x, t)
    end = (x - at_t.gamma * request.scales.noise * noise) / at_t.beta
    ratio = at_t.beta / at_u.beta
    kept = jnp.square(at_u.gamma / at_t.gamma)
    added = jnp.square(at_t.gamma) - jnp.square(ratio * at_u.gamma)
    mean = ratio * kept * x + at_u.beta * added / jnp.square(at_t.gamma) * end
    std = request.scales.noise * jnp.sqrt(0.5 * added * (kept + 1.0))
    return mean, jnp.where(u < 1.0, std, 0.0)
