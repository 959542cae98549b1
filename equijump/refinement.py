r"""Rounds that look at an estimate of a jump's end, and correct it along its bonds.

A torsion of a noised frame says little: it has the noise of three bonds. That of the
estimate says more, since the network has taken most of the noise away. So the estimate
is measured again, in axes of its own, and corrected; then again. Each round adds to the
output $F$ of the network
$$ F \leftarrow F + \sum_k s_k(g(\hat x_1), h, c)\, e_k(\hat x_1), \qquad
   \hat x_1 = m + s F, $$
with the axes $e_k$ and the geometry $g$ of `equijump.cloud`, what the residue is known
to be, $h$, and its type and the noise, $c$. Without it side chains turn too freely: see
`docs/results.md`.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equijump.cloud import NUM_CLOSURES, Cloud, Tree, along_axes, shape_of
from equijump.transport.paths import Shape

LENGTH = 1.5
"""Å, a bond: the unit in which the network sees vectors."""

SPREAD = 0.1
"""Standard deviation of the shape of an estimate, at most, beside that of the data."""

NUM_AXES = 3 + NUM_CLOSURES
"""Axes of `equijump.cloud.local_axes`."""

Geometry = Float[Array, "num_nodes num_slots num_feats"]


def geometry_of(
    cloud: Cloud,
    tree: Tree,
    shape: Shape | None,
    spread: Float[Array, "*num_nodes num_slots 1"],
    others: tuple[Cloud, ...],
) -> Geometry:
    """Returns the geometry around each bond, and other vectors along its axes.

    The shape is told less that of the data, in units of what its own spread and that of
    the data leave open.

    Args:
        cloud: tensor cloud, in Å.
        tree: tree of the molecule.
        shape: shape of the data; None for the shape as it is.
        spread: spread of the shape of this cloud.
        others: other vectors in the slots.
    """
    found = shape_of(cloud, tree)
    if shape is not None:
        variance = jnp.square(shape.std) + jnp.square(spread)
        found = (found - shape.mean) * jax.lax.rsqrt(variance + 1e-4)
    return jnp.concatenate([found, along_axes(cloud, tree, others)], axis=-1)


class Refinement(nn.Module):
    """One round: what to add along the axes of each bond of an estimate.

    Attributes:
        width: width of its MLP.
        num_heads: clouds that the network gives.
    """

    width: int
    num_heads: int

    @nn.compact
    def __call__(
        self,
        geometry: Geometry,
        hidden: Float[Array, "num_nodes num_hidden"],
        condition: Float[Array, "num_nodes num_condition"],
    ) -> tuple[
        Float[Array, "num_nodes num_slots num_heads num_axes"],
        Float[Array, "num_nodes width"],
    ]:
        """Returns the shares of the axes, zero before training, and what is known now.

        Args:
            geometry: geometry around each bond of the estimate.
            hidden: what the round before knew of each residue.
            condition: embedding of residue type, noise and conditions.
        """
        known = jnp.concatenate([hidden, condition], axis=-1)
        flat = nn.Dense(self.width, name="geometry")(geometry.reshape(len(known), -1))
        scale = nn.Dense(self.width, name="scale")(condition)
        mixed = flat * (1.0 + scale) + nn.Dense(self.width, name="shift")(known)
        mixed = jnp.concatenate([nn.silu(mixed), known], axis=-1)
        mixed = nn.silu(nn.Dense(self.width, name="mixed")(mixed))
        shape = *geometry.shape[:2], self.num_heads, NUM_AXES
        own = jnp.einsum(
            "nshkf,nsf->nshk",
            self._out("springs", (*shape, geometry.shape[2]), condition),
            geometry,
        )
        return own + self._out("last", shape, mixed), mixed

    def _out(
        self, name: str, shape: tuple[int, ...], inputs: Float[Array, "num_nodes size"]
    ) -> Float[Array, "num_nodes ..."]:
        """Returns numbers of a shape for each residue, zero before training."""
        zeros = nn.initializers.zeros
        dense = nn.Dense(math.prod(shape[1:]), kernel_init=zeros, name=name)
        return dense(inputs).reshape(shape)
