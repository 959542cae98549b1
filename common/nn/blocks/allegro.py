r"""Allegro: features of pairs that know the surroundings of their receiver only.

A pair has scalars and tensors, at first
$$ u_{ij} = e_{ij}\, \mathrm{MLP}(x_i^0, x_j^0, r_{ij}), \qquad
   V_{ij} = w(u_{ij}) \odot (x_j \otimes Y(\hat r_{ij})), $$
e the envelope. Each of several layers multiplies the tensors with the surroundings,
$$ V_{ij} \leftarrow W \Big( V_{ij} \otimes \frac{1}{\sqrt n} \sum_k w(u_{ik}) \odot
   Y(\hat r_{ik}) \Big), \qquad
   u_{ij} \leftarrow \frac{u_{ij} + \alpha\, e_{ij}\, \mathrm{MLP}(u_{ij}, V_{ij}^0)}
   {\sqrt{1 + \alpha^2}}, $$
and the receivers get the sums of both (Musaelian et al. 2023, arXiv:2204.05249). No
message passes from one receiver to another: after any number of layers a receiver sees
as far as the cutoff.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from common.nn.activations import swish
from common.nn.blocks.messages import Rows, message_product
from common.nn.features import Features, add, scalars_of
from common.nn.graph import Graph, gather, receiver_feats
from common.nn.linear import Linear
from common.nn.mlp import MLP
from common.so3.clebsch_gordan import clebsch_gordan
from common.so3.irreps import SCALAR, Irrep, Path, format_irreps, parse, product_paths

RESIDUAL = 0.5
"""The weight alpha of an update; the paper's."""

PairScalars = Float[Array, "num_receivers num_senders width"]


class AllegroBlock(nn.Module):
    """All layers of pairs, and a residual connection of the receivers.

    Attributes:
        irreps: irreps of the output, and of the tensors of pairs.
        avg_num_neighbors: number whose root divides sums over neighbours.
        num_hidden: scalars of a pair; as many as of the output if zero.
        product: row of `common.nn.products.PRODUCTS` that makes the first tensors; the
            products with surroundings are complete.
        num_layers: layers of pairs.
        num_tensors: channels of the tensors of a pair; the fewest of `irreps` if zero.
    """

    irreps: str
    avg_num_neighbors: float = 1.0
    num_hidden: int = 0
    product: str = "scalar"
    num_layers: int = 2
    num_tensors: int = 0

    @nn.compact
    def __call__(self, x: Features, graph: Graph, condition: Rows = None) -> Features:
        irreps = parse(self.irreps)
        width = self.num_hidden or irreps[SCALAR]
        num_tensors = self.num_tensors or min(irreps.values())
        own = receiver_feats(x, graph)
        scalars = self._first_scalars(x, own, graph, condition, width)
        tensors = self._first_tensors(x, graph, scalars, num_tensors)
        for _ in range(self.num_layers):
            layer = PairLayer(width, num_tensors, self.avg_num_neighbors)
            scalars, tensors = layer(scalars, tensors, graph)
        pairs = {**tensors, SCALAR: scalars[:, :, None]}
        scale = self.avg_num_neighbors**0.5
        sums = jax.tree.map(lambda part: jnp.sum(part, axis=1) / scale, pairs)
        update = Linear(self.irreps, name="sums")(sums)
        return add(Linear(self.irreps, name="own")(own), update)

    def _first_scalars(
        self, x: Features, own: Features, graph: Graph, condition: Rows, width: int
    ) -> PairScalars:
        """Embeds both atoms and their distance."""
        of_receivers = nn.Dense(width, name="receivers")(scalars_of(own))
        if condition is not None:
            of_receivers += nn.Dense(width, name="condition")(condition)
        of_senders = nn.Dense(width, use_bias=False, name="senders")(scalars_of(x))
        hidden = nn.Dense(width, name="distances")(graph.feats)
        hidden += of_receivers[:, None] + gather(of_senders, graph)
        pairs = MLP((width, width), swish, name="pairs")(swish(hidden))
        return pairs * graph.envelope[..., None]

    def _first_tensors(
        self, x: Features, graph: Graph, scalars: PairScalars, num_tensors: int
    ) -> Features:
        """Multiplies senders and harmonics; nothing is summed yet."""
        mixed = Linear(num_tensors, name="mixed")(x)
        row, spec = message_product(
            self.product, mixed, graph, tuple(parse(self.irreps))
        )
        weights = nn.Dense(row.num_weights(spec), use_bias=False, name="first")(scalars)
        senders = jax.tree.map(lambda part: gather(part, graph), mixed)
        tensors = row.product(senders, graph.harmonics, weights, spec)
        irreps = dict.fromkeys(parse(self.irreps), num_tensors)
        return Linear(format_irreps(irreps), name="tensors")(tensors)


class PairLayer(nn.Module):
    """One layer of pairs.

    Attributes:
        width: scalars of a pair.
        num_tensors: channels of its tensors.
        avg_num_neighbors: number whose root divides sums over neighbours.
    """

    width: int
    num_tensors: int
    avg_num_neighbors: float

    @nn.compact
    def __call__(
        self, scalars: PairScalars, tensors: Features, graph: Graph
    ) -> tuple[PairScalars, Features]:
        harmonics = graph.harmonics
        weights = nn.Dense(len(harmonics) * self.num_tensors, use_bias=False)(scalars)
        weights = jnp.split(weights / self.avg_num_neighbors**0.5, len(harmonics), -1)
        around = {
            irrep: jnp.einsum("rsc,rsm->rmc", own, harmonics[irrep][..., 0])
            for irrep, own in zip(sorted(harmonics), weights, strict=True)
        }
        tensors = Linear(self.num_tensors)(self._product(tensors, around))
        both = jnp.concatenate([scalars, scalars_of(tensors)], axis=-1)
        update = MLP((self.width, self.width), swish)(both) * graph.envelope[..., None]
        scalars = (scalars + RESIDUAL * update) / (1.0 + RESIDUAL**2) ** 0.5
        return scalars, tensors

    def _product(self, tensors: Features, around: Features) -> Features:
        """Multiplies along all paths, which are added up with learned weights.

        Surroundings are one for all pairs of a receiver: they become its matrices, one
        a channel, and no product of a pair ever exists.
        """
        irreps = tuple(sorted(tensors))
        paths = product_paths(irreps, sorted(around), irreps)
        counts = np.array([sum(p[2] == out for p in paths) for *_, out in paths])

        def init(key: Array, shape: tuple[int, ...]) -> Array:
            return jax.random.normal(key, shape) * counts[:, None] ** -0.5

        weights = self.param("weights", init, (len(paths), self.num_tensors))
        rows = [around[path[1]] * own for path, own in zip(paths, weights, strict=True)]
        table = jnp.asarray(_coupling_table(irreps, paths), weights.dtype)
        matrices = jnp.einsum("oxp,rpc->roxc", table, jnp.concatenate(rows, axis=1))
        stacked = jnp.concatenate([tensors[irrep] for irrep in irreps], axis=-2)
        products = jnp.einsum("roxc,rsxc->rsoc", matrices, stacked)
        ends = np.cumsum([irrep.dim for irrep in irreps])[:-1].tolist()
        return dict(zip(irreps, jnp.split(products, ends, axis=-2), strict=True))


@functools.cache
def _coupling_table(
    irreps: tuple[Irrep, ...], paths: tuple[Path, ...]
) -> Float[np.ndarray, "rows_out rows_x rows_of_paths"]:
    """Returns the couplings of all paths: second factors side by side."""
    ends = np.cumsum([0, *(irrep.dim for irrep in irreps)]).tolist()
    start = dict(zip(irreps, ends[:-1], strict=True))
    blocks = []
    for x, y, out in paths:
        block = np.zeros((ends[-1], ends[-1], y.dim))
        table = clebsch_gordan(x.degree, y.degree, out.degree) * math.sqrt(out.dim)
        rows_out, rows_x = (slice(start[i], start[i] + i.dim) for i in (out, x))
        block[rows_out, rows_x] = np.transpose(table, (2, 0, 1))
        blocks.append(block)
    return np.concatenate(blocks, axis=-1)
