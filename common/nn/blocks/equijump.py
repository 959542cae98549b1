r"""EquiJump's block: one round of messages, then products inside each node.

$$ A_i^l = \sum_j w^l_{ij} \odot s_j Y^l(\hat r_{ij}) + v^l_{ij} \odot h_j^l $$
with weights made from the edge; then the products $U[h, A] \otimes V[h, A]$ along all
paths, and gates on both from an MLP of the invariants, whose hidden layer is scaled and
shifted by the condition.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from common.nn.blocks.messages import Rows, edge_feats, message_product, with_scalars
from common.nn.features import Features, add, concatenate, irreps_of, scalars_of
from common.nn.graph import Graph, receiver_feats
from common.nn.linear import Linear
from common.nn.norm import RMSNorm
from common.nn.products import self_product
from common.nn.products.spec import make_spec
from common.so3.irreps import SCALAR, parse


class EquiJumpBlock(nn.Module):
    """A residual block.

    Attributes:
        irreps: irreps of the features, of one number of channels.
        num_hidden: width of the MLP; twice the number of channels if zero.
        product: row of `common.nn.products.PRODUCTS` that makes the messages.
        avg_num_neighbors: not used; the sums of messages are normalised.
    """

    irreps: str
    num_hidden: int = 0
    product: str = "scalar"
    avg_num_neighbors: float = 1.0

    @nn.compact
    def __call__(self, x: Features, graph: Graph, condition: Rows = None) -> Features:
        irreps = parse(self.irreps)
        width = irreps[SCALAR]
        normed = RMSNorm()(x)
        row, spec = message_product(self.product, normed, graph, tuple(irreps))
        weights = nn.Dense(row.num_weights(spec), use_bias=False)(edge_feats(graph))
        scalars = nn.Dense(width, use_bias=False)(scalars_of(normed))
        sums = row.convolve(with_scalars(normed, scalars), graph, weights, spec)
        own, sums = receiver_feats(normed, graph), RMSNorm()(sums)
        both = Linear(2 * width)(concatenate(own, sums))
        left = {irrep: part[..., :width] for irrep, part in both.items()}
        right = {irrep: part[..., width:] for irrep, part in both.items()}
        product = SelfProduct()(left, right)
        invariants = [scalars_of(part) for part in (own, left, product)]
        gates = self._gates(
            jnp.concatenate(invariants, -1), condition, width, len(left)
        )
        updates = {SCALAR: gates[0]}
        for l, irrep in enumerate(sorted(left)[1:], start=1):
            for_left, for_product = gates[2 * l - 1 : 2 * l + 1]
            updates[irrep] = left[irrep] * for_left + product[irrep] * for_product
        return add(receiver_feats(x, graph), Linear(width)(updates))

    def _gates(
        self, invariants: Array, condition: Array | None, width: int, num_irreps: int
    ) -> list[Array]:
        """Returns new scalars, then two gates for each other irrep."""
        num_hidden = self.num_hidden or 2 * width
        if condition is None:
            scale, shift = jnp.zeros(()), jnp.zeros(())
        else:
            both = nn.Dense(2 * num_hidden)(condition)[:, None]
            scale, shift = jnp.split(both, 2, -1)
        hidden = nn.Dense(num_hidden)(invariants[:, None])
        hidden = nn.silu(hidden * (1.0 + scale) + shift)
        num_gates = 2 * num_irreps - 1
        return jnp.split(nn.Dense(num_gates * width)(hidden), num_gates, -1)


class SelfProduct(nn.Module):
    """The product of two features of a node along every path, with learned weights."""

    @nn.compact
    def __call__(self, x: Features, y: Features) -> Features:
        spec = make_spec(irreps_of(x), irreps_of(y), irreps_of(x))
        every = self_product.paths(spec)
        counts = {out: sum(p[2] == out for p in every) for *_, out in every}
        deviation = np.array([counts[out] ** -0.5 for *_, out in every])

        def init(key: Array, shape: tuple[int, ...]) -> Array:
            return jax.random.normal(key, shape) * deviation[:, None]

        shape = (len(every), self_product.num_weights(spec) // len(every))
        weights = self.param("weights", init, shape)
        return self_product.product(x, y, weights.reshape(-1), spec)
