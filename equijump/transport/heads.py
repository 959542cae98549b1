r"""What a network may be asked for on a path: the end, the drift, or the noise.

With standard normal $z$ and $x_t = \alpha x_0 + \beta x_1 + \gamma \sigma z$ these are
the expectations, given $x_t$ and $x_0$, of
$$ \mathrm{end} = x_1, \qquad \mathrm{drift} = \dot\alpha x_0 + \dot\beta x_1 +
   \dot\gamma \sigma z, \qquad \mathrm{noise} = z. $$
Each is told in terms of a prior, `mean + std F`: were the jump normal around the
source, $F$ would have at most unit variance, and $F$ is what the network gives.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from common.so3.vectors import unit_vectors
from equijump.transport import paths
from equijump.transport.paths import Cloud, Path, PathFn, Scales, Time


class Prior(NamedTuple):
    """Mean and spread of what a head tells, in its own unit.

    Attributes:
        mean: mean.
        std: standard deviation; of bonds, across the mean.
        along: standard deviation along the mean, where it is another one; else None.
    """

    mean: Cloud | Float[Array, ""]
    std: Float[Array, "*num_nodes num_slots 1"] | Float[Array, ""]
    along: Float[Array, "num_nodes num_slots 1"] | None = None

    def from_unit(self, output: Cloud) -> Cloud:
        """Returns what a head tells, given what the network does."""
        scaled = self.std * output
        if self.along is None:
            return self.mean + scaled
        return self.mean + scaled + (self.along - self.std) * self._along(output)

    def to_unit(self, truth: Cloud) -> Cloud:
        """Returns what the network is to give for a truth."""
        rest = truth - self.mean
        if self.along is None:
            return rest / self.std
        inverse = 1.0 / self.std
        return rest * inverse + (1.0 / self.along - inverse) * self._along(rest)

    def _along(self, vectors: Cloud) -> Cloud:
        """Returns the part of vectors that is along the mean."""
        unit = unit_vectors(self.mean)
        return jnp.sum(unit * vectors, axis=-1, keepdims=True) * unit


def prior(
    head: str, path: PathFn, t: Time, scales: Scales, x_0: Cloud, x_t: Cloud
) -> Prior:
    """Returns what is known of a head before the network is asked.

    Args:
        head: name, "end", "drift" or "noise".
        path: coefficients at a time.
        t: time.
        scales: lengths of each slot, Å.
        x_0: source, Å.
        x_t: noised frame, Å.
    """
    if head == "end":
        known = paths.estimate(path(t), scales, x_0, x_t)
        return Prior(known.mean, known.std, known.along)
    if head == "drift":
        rate = rates(path, t)
        variance = jnp.square(rate.beta * scales.displacement)
        variance += jnp.square(rate.gamma * scales.noise)
        return Prior((rate.alpha + rate.beta) * x_0, jnp.sqrt(variance))
    return Prior(jnp.zeros(()), jnp.ones(()))


def truth(
    head: str, path: PathFn, t: Time, scales: Scales, x_0: Cloud, x_1: Cloud, z: Cloud
) -> Cloud:
    """Returns what a head's expectation is of, for one pair and one noise."""
    if head == "end":
        return x_1
    if head == "drift":
        return paths.noised(rates(path, t), scales, x_0, x_1, z)
    return z


def rates(path: PathFn, t: Time) -> Path:
    """Returns the derivatives of the coefficients by the time."""
    return jax.jvp(path, (t,), (jnp.ones_like(t),))[1]
