r"""EquiJump's network: from a source frame and a noised one to the end of the jump.

A frame is a tensor cloud, see `equijump.cloud`. Features are those of the core, under
SO(3): products of vectors include the cross product, so that the network tells left
from right.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.blocks import make_block
from common.nn.conditions import ConditionEmbedding
from common.nn.features import Features, add, from_scalars, scalars_of
from common.nn.graph import Graph, make_graph
from common.nn.linear import Linear
from common.nn.norm import RMSNorm
from common.nn.radial import gaussian_basis
from common.so3.irreps import PSEUDOVECTOR, SCALAR, format_irreps, uniform
from common.so3.vectors import safe_norm
from equijump.cloud import (
    NUM_ALONG,
    NUM_SHAPE,
    Cloud,
    Tree,
    local_axes,
    positions_of,
    without_positions,
)
from equijump.data.residues import NUM_TYPES, num_slots_of
from equijump.refinement import (
    LENGTH,
    NUM_AXES,
    SPREAD,
    Geometry,
    Refinement,
    geometry_of,
)
from equijump.scene import Scene, find_neighbours
from equijump.transport import paths
from equijump.transport.heads import Prior

GROUP = "SO3"
"""Products of vectors include the cross product: all irreps count as even."""

RATIOS = -7.0, 3.0
"""Logarithms of noise over signal that are told apart; training draws from -5.5 to 1.6,
and a frame that shows nothing but the source counts as the last."""


class EquiJump(nn.Module):
    """Conditioner on the source frame, and the network of the transport.

    Attributes:
        num_channels: channels of every degree.
        max_degree: largest degree of the features, at least 1.
        num_conditioner_layers: blocks that see the source frame only, once a jump.
        num_layers: blocks of every inner step.
        num_hidden: width of the MLPs.
        num_condition: width of what is known of time, lag and residue type.
        num_edge_feats: features of an edge.
        num_neighbours: neighbours of a residue, at most.
        reach: places along the chain within which residues are always neighbours.
        cutoff: distance in Å where the basis of distances ends.
        conditions: rows of `common.nn.conditions.CONDITIONS` that the network is given.
        block: row of `common.nn.blocks.BLOCKS`.
        product: row of `common.nn.products.PRODUCTS`, of the messages.
        num_heads: clouds that the network of the transport gives.
        residue_types: types of residues, the first of `equijump.data.residues`.
        cloud: kind of cloud, see `equijump.cloud`. Other than "ca", noise is told
            for each slot, in units of its scale.
        refinements: rounds in which the bonds of the estimate are seen again, see
            `equijump.refinement`; none where slots hold no bonds.
        refresh_neighbours: true if neighbours are found from the estimate of the end
            too, at every step; else only where the source is hidden.
    """

    num_channels: int
    max_degree: int
    num_conditioner_layers: int
    num_layers: int
    num_hidden: int
    num_condition: int
    num_edge_feats: int
    num_neighbours: int
    reach: int
    cutoff: float
    conditions: tuple[str, ...]
    block: str
    product: str
    num_heads: int = 1
    residue_types: int = NUM_TYPES
    cloud: str = "ca"
    refinements: int = 0
    refresh_neighbours: bool = False

    def setup(self) -> None:
        width, num_slots = self.num_channels, num_slots_of(self.residue_types)
        irreps = format_irreps(uniform(self.max_degree, width, GROUP))
        fields = {
            "irreps": irreps, "product": self.product, "num_hidden": self.num_hidden
        }  # fmt: skip
        make = lambda count: [make_block(self.block, **fields) for _ in range(count)]
        self.embed_token = nn.Embed(self.residue_types + 1, self.num_condition)
        self.embed_conditions = ConditionEmbedding(
            tuple(self.conditions), self.num_condition
        )
        self.embed_level = [nn.Dense(self.num_condition) for _ in range(2)]
        self.embed_offset = nn.Embed(2 * self.reach + 2, 16)
        self.source_edges = [nn.Dense(self.num_edge_feats) for _ in range(2)]
        self.source_vectors = Linear(irreps)
        self.source_scalars = nn.Dense(width)
        self.source_slots = nn.Dense(num_slots)
        self.conditioner_blocks = make(self.num_conditioner_layers)
        self.edges = [nn.Dense(self.num_edge_feats) for _ in range(2)]
        self.vectors = Linear(irreps)
        self.scalars = nn.Dense(width)
        self.slots = nn.Dense(3 * num_slots)
        self.from_conditioner = Linear(width)
        self.blocks = make(self.num_layers)
        if self.cloud != "ca":
            self.local = [nn.Dense(size) for size in (self.num_hidden, width)]
            self.local_condition = nn.Dense(2 * self.num_hidden)
            num_shares = NUM_AXES * self.num_heads * num_slots
            num_feats = NUM_SHAPE + 2 * NUM_ALONG
            self.last_local = nn.Dense(num_shares)
            self.last_linear = nn.Dense(num_shares * num_feats)
            self.rounds = [
                Refinement(self.num_hidden, self.num_heads)
                for _ in range(self.refinements)
            ]
        self.last_norm = RMSNorm()
        self.last_hidden = nn.Dense(self.num_hidden)
        self.last_gates = nn.Dense(self.num_heads * num_slots)
        self.last = Linear(self.num_heads * num_slots)

    def conditioner(self, scene: Scene, source: Cloud) -> Features:
        """Returns the features of the source frame, the same for a whole jump."""
        condition = nn.silu(self._condition(scene))
        inputs = without_positions(source, scene.tree) / LENGTH
        slots = 1.0 + self.source_slots(condition)
        node_feats = self.source_vectors(_from_vectors(inputs * slots[..., None]))
        node_feats = add(node_feats, from_scalars(self.source_scalars(condition)))
        graph = self._graph(scene, self.source_edges, source, source)
        for block in self.conditioner_blocks:
            node_feats = block(node_feats, graph, condition)
        return node_feats

    def transport(
        self,
        scene: Scene,
        source: Cloud,
        conditioned: Features,
        estimate: paths.Estimate,
        scales: paths.Scales,
    ) -> Float[Array, "num_heads num_nodes num_slots 3"]:
        """Returns what each head is beyond its prior, of unit variance.

        Args:
            scene: graph of the residues.
            source: source frame, in Å.
            conditioned: features of the source frame, from `conditioner`.
            estimate: what noise and source tell of the end of the jump.
            scales: scales of the slots, in Å.
        """
        first, second = self.embed_level
        level = second(nn.silu(first(self._level(estimate, scales))))
        condition = nn.silu(self._condition(scene) + level)
        inputs = [
            without_positions(source, scene.tree) / LENGTH,
            without_positions(estimate.mean, scene.tree) / LENGTH,
            estimate.displacement,
        ]
        slots = 1.0 + self.slots(condition)
        vectors = jnp.concatenate(inputs, axis=1) * slots[..., None]
        node_feats = add(
            self.vectors(_from_vectors(vectors)), self.from_conditioner(conditioned)
        )
        geometry = self._geometry(scene, source, estimate, scales.shape)
        local = self._embed(geometry, condition)
        scalars = self.scalars(condition) + (
            self.local[1](local) if local.size else 0.0
        )
        node_feats = add(node_feats, from_scalars(scalars))
        scene = self._around(scene, source, estimate.mean)
        graph = self._graph(scene, self.edges, source, estimate.mean)
        for block in self.blocks:
            node_feats = block(node_feats, graph, condition)
        node_feats = self.last_norm(node_feats)
        hidden = jnp.concatenate([scalars_of(node_feats), condition, local], axis=-1)
        hidden = nn.silu(self.last_hidden(hidden))
        vectors = self.last({PSEUDOVECTOR: node_feats[PSEUDOVECTOR]})[PSEUDOVECTOR]
        vectors = vectors * self.last_gates(hidden)[:, None]
        heads = vectors.reshape(*vectors.shape[:2], self.num_heads, source.shape[1])
        heads = jnp.transpose(heads, (2, 0, 3, 1))
        if local.size:
            shares = self._shares(geometry, hidden, condition)
            heads += _along(shares, estimate.mean, scene.tree)
            known = hidden, condition
            heads = self._refine(heads, scene, source, estimate, scales.shape, known)
        return jnp.where(scene.slot_mask[..., None], heads, 0.0)

    def _geometry(
        self,
        scene: Scene,
        source: Cloud,
        estimate: paths.Estimate,
        shape: paths.Shape | None,
    ) -> Geometry:
        """Returns the geometry of the noised frame; nothing where no bonds are held."""
        if scene.tree is None:
            return jnp.zeros((*source.shape[:2], 0))
        others, spread = (source / LENGTH, estimate.displacement), estimate.std / LENGTH
        return geometry_of(estimate.mean, scene.tree, shape, spread, others)

    def _refine(
        self,
        heads: Float[Array, "num_heads num_nodes num_slots 3"],
        scene: Scene,
        source: Cloud,
        estimate: paths.Estimate,
        shape: paths.Shape | None,
        known: tuple[Array, Array],
    ) -> Float[Array, "num_heads num_nodes num_slots 3"]:
        """Corrects the end of the jump, round by round; see `equijump.refinement`."""
        prior = Prior(estimate.mean, estimate.std, estimate.along)
        spread = jnp.minimum(estimate.std / LENGTH, SPREAD)
        hidden, condition = known
        for refinement in self.rounds:
            end = prior.from_unit(heads[0])
            others = source / LENGTH, estimate.displacement, heads[0]
            geometry = geometry_of(end, scene.tree, shape, spread, others)
            shares, hidden = refinement(geometry, hidden, condition)
            heads += _along(shares, end, scene.tree)
        return heads

    def _embed(
        self,
        geometry: Geometry,
        condition: Float[Array, "num_nodes num_condition"],
    ) -> Float[Array, "num_nodes num_hidden"]:
        """Embeds the geometry around all bonds of a residue."""
        flat = geometry.reshape(len(geometry), -1)
        if not flat.shape[1]:
            return flat
        scale, shift = jnp.split(self.local_condition(condition), 2, axis=-1)
        return nn.silu(self.local[0](flat) * (1.0 + scale) + shift)

    def _shares(
        self,
        geometry: Geometry,
        hidden: Float[Array, "num_nodes num_hidden"],
        condition: Float[Array, "num_nodes num_condition"],
    ) -> Float[Array, "num_nodes num_slots num_heads num_axes"]:
        """Returns the output along the axes of each bond.

        It is linear in the geometry around the bond, with weights of the condition,
        beside what the whole residue adds: so springs and rotamers are learnt at once.
        """
        shape = *geometry.shape[:2], self.num_heads, NUM_AXES
        weights = self.last_linear(condition).reshape(*shape, geometry.shape[2])
        own = jnp.einsum("nshkf,nsf->nshk", weights, geometry)
        return own + self.last_local(hidden).reshape(shape)

    def __call__(
        self, scene: Scene, source: Cloud
    ) -> Float[Array, "num_heads num_nodes num_slots 3"]:
        """Evaluates all of the network once, to make its parameters."""
        conditioned = self.conditioner(scene, source)
        ones = jnp.ones((*source.shape[:2], 1))
        none = jnp.zeros(())
        blank = paths.Estimate(source, ones, source, none, none, ones)
        return self.transport(
            scene, source, conditioned, blank, paths.Scales(ones, ones)
        )

    def _level(
        self, estimate: paths.Estimate, scales: paths.Scales
    ) -> Float[Array, "*num_nodes num_feats"]:
        """Encodes the noise: in Å, or in units of scales, which are told beside it."""
        if self.cloud == "ca":
            return gaussian_basis(estimate.log_level, -6.0, 3.0, 24)
        ratio = gaussian_basis(estimate.log_ratio, *RATIOS, 24)
        sizes = jnp.log(scales.displacement[..., 0])
        ratio = jnp.broadcast_to(ratio, (len(sizes), len(ratio)))
        return jnp.concatenate([ratio, sizes], axis=-1)

    def _condition(self, scene: Scene) -> Float[Array, "num_nodes num_condition"]:
        """Embeds residue types and conditions; an unknown condition adds nothing."""
        return self.embed_token(scene.tokens) + self.embed_conditions(scene.conditions)

    def _around(self, scene: Scene, source: Cloud, estimate: Cloud) -> Scene:
        """Finds neighbours from the estimate, beside those of a source."""
        if scene.senders.shape[1] == len(scene.tokens) - 1:
            return scene  # All residues are neighbours.
        ends = positions_of(estimate, scene.tree)
        has_source = scene.conditions["lag"].mask
        if self.refresh_neighbours:
            starts = jnp.where(has_source, positions_of(source, scene.tree), ends)
            return find_neighbours(scene, jnp.stack([starts, ends]), self.reach)
        find = lambda: find_neighbours(scene, ends, self.reach)
        return jax.lax.cond(has_source, lambda: scene, find)

    def _graph(
        self, scene: Scene, dense: Sequence[nn.Dense], source: Cloud, estimate: Cloud
    ) -> Graph:
        basis = []
        for frame in (source, estimate):
            positions = positions_of(frame, scene.tree)
            vectors = positions[scene.senders] - positions[:, None]
            basis.append(gaussian_basis(safe_norm(vectors), 2.0, self.cutoff, 24))
        feats = jnp.concatenate([*basis, self.embed_offset(scene.offsets)], axis=-1)
        for layer in dense:
            feats = nn.silu(layer(feats))
        envelope = scene.edge_mask.astype(feats.dtype)
        return make_graph(
            vectors, feats, envelope, self.max_degree, GROUP, scene.senders
        )


def _along(
    shares: Float[Array, "num_nodes num_slots num_heads num_axes"],
    cloud: Cloud,
    tree: Tree,
) -> Float[Array, "num_heads num_nodes num_slots 3"]:
    return jnp.einsum("nshk,knsx->hnsx", shares, local_axes(cloud, tree))


def _from_vectors(vectors: Float[Array, "num_nodes num_vectors 3"]) -> Features:
    vectors = jnp.swapaxes(vectors, 1, 2)
    return {SCALAR: jnp.zeros_like(vectors[:, :1]), PSEUDOVECTOR: vectors}
