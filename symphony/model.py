r"""Symphony's network: what is placed so far to the four decisions of the next step.

At step `t` the atoms `0..t` are placed. The network gives the logits of stopping, of
(focus, species), and, for a given focus and species, the density of the position of the
next atom. The trunk is causal: an atom receives only from atoms placed before it, so
that one pass serves every step of a molecule, and the features of placed atoms never
change. Its blocks and their product are rows of the tables of `common.nn`.
"""

from functools import partial
from typing import NamedTuple, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from common.nn.blocks import make_block
from common.nn.blocks.messages import edge_feats
from common.nn.blocks.symphony import SymphonyBlock
from common.nn.conditions import ConditionEmbedding, Conditions
from common.nn.features import Features, from_scalars, scalars_of
from common.nn.graph import (
    Graph,
    at_senders,
    keep_nearest,
    make_graph,
    mask_edges,
    nearest,
    take_senders,
)
from common.nn.linear import Linear
from common.nn.norm import RMSNorm
from common.nn.radial import bessel_basis, gaussian_basis, polynomial_envelope
from common.so3.grid import SphereGrid, sphere_grid
from common.so3.harmonics import spherical_harmonics
from common.so3.irreps import degree_slices, format_irreps, harmonic_irreps, uniform
from common.so3.vectors import safe_norm
from symphony.arrays import (
    NodeMask,
    PlacedMask,
    Positions,
    Species,
    StepFeats,
    StepIndices,
    StepScalars,
)
from symphony.densities import (
    FineMixture,
    RadialMixture,
    cap_curvature,
    exponential_map,
    tangent_part,
)
from symphony.property_inputs import Forecast, PropertyInputs, Whole

Senders: TypeAlias = Int[Array, "num_steps num_near"] | None
"""Atoms that a point sees at each step; all in their order where None."""


class NextAtom(NamedTuple):
    """Logits of what the next atom is, for each step.

    Attributes:
        stop: logit of stopping.
        focus_species: logits of (focus, species); minus infinity where not placed.
        hidden: features of the atoms as candidates for the focus.
        pooled: features of the whole fragment.
        forecast: properties of the molecule that it may become; None without any.
    """

    stop: StepScalars
    focus_species: Float[Array, "num_steps num_nodes num_species"]
    hidden: Float[Array, "num_steps num_nodes num_channels"]
    pooled: StepFeats
    forecast: Forecast | None = None


class Surroundings(NamedTuple):
    """Inputs of the position heads at each step.

    Attributes:
        node_feats: output of the trunk.
        positions: positions of the atoms, in Å.
        focus: index of the focus at each step.
        visible: true for the atoms placed at each step.
    """

    node_feats: Features
    positions: Positions
    focus: StepIndices
    visible: PlacedMask


class Probe(nn.Module):
    r"""Tangent vectors and features at a point where the next atom may be.

    Its vectors are sums of the directions to the atoms, projected on the tangent plane,
    with weights of the distances. One such sum is no more than a push along bonds, and
    takes an angle between several atoms some way to what they agree on; hence rounds.

    Attributes:
        num_channels: width of the layers.
        num_radial_basis: half the number of Gaussians that encode a distance.
        cutoff: largest distance to an atom, in Å.
        num_vectors: vectors that are returned.
        init_std: standard deviation of the initial weights of the vectors.
    """

    num_channels: int
    num_radial_basis: int
    cutoff: float
    num_vectors: int
    init_std: float

    @nn.compact
    def __call__(
        self,
        direction: Float[Array, "num_steps 3"],
        radius: StepScalars,
        condition: Float[Array, "num_steps num_inputs"],
        around: Surroundings,
        senders: Senders = None,
    ) -> tuple[Float[Array, "num_steps num_vectors 3"], StepFeats]:
        width = self.num_channels
        node_feats, positions, focus, visible = around
        condition = nn.Dense(width, name="condition")(condition)
        probe = positions[focus] + radius[:, None] * direction
        vectors = at_senders(positions, senders) - probe[:, None]
        distances = safe_norm(vectors)
        basis = gaussian_basis(distances, 0.5, self.cutoff, 2 * self.num_radial_basis)
        hidden = nn.Dense(width, name="pairs")(basis)
        scalars = nn.Dense(width, use_bias=False, name="senders")(
            scalars_of(node_feats)
        )
        hidden += at_senders(scalars, senders)
        hidden = nn.silu(hidden + condition[:, None])
        visible = take_senders(visible, senders)
        envelope = polynomial_envelope(distances, self.cutoff) * visible
        summed = jnp.sum(hidden * envelope[..., None], axis=1) / 4.0
        summed = jnp.concatenate([summed, condition], -1)
        summed = nn.silu(nn.Dense(width, name="sum")(summed))
        mixed = nn.silu(nn.Dense(width, name="mixed")(hidden) + summed[:, None])
        init = nn.initializers.normal(self.init_std)
        weights = nn.Dense(self.num_vectors, kernel_init=init, name="vectors")(mixed)
        units = vectors / jnp.maximum(distances, 0.1)[..., None]
        summed_units = jnp.einsum("tjk,tjx->tkx", weights * envelope[..., None], units)
        return tangent_part(direction[:, None], summed_units), summed


class Symphony(nn.Module):
    """The whole network; see the module's docstring.

    Loss, sampler and score call its parts one by one, hence `setup`.

    Attributes:
        atomic_numbers: species table.
        num_channels: channels of every degree in the trunk, width of the heads.
        num_layers: rounds of messages.
        max_degree: largest degree in the trunk.
        cutoff: distance beyond which atoms exchange no message, in Å.
        num_radial_basis: Bessel functions that encode a distance.
        num_pair_feats: width of the features of a pair.
        avg_num_neighbors: typical number of neighbours.
        head_max_degree: largest degree of the density on the sphere.
        head_channels: signals whose exponentials the density adds up.
        num_radial_components: components of the mixture for the radius.
        min_radius: smallest distance from the focus to the next atom, in Å.
        max_radius: largest distance from the focus to the next atom, in Å.
        max_curvature: largest curvature of a logit, see `densities.cap_curvature`.
        res_beta: polar points of the grid that normalises the coarse density.
        res_alpha: azimuthal points of that grid.
        blur: standard deviation per axis of the coarse direction around the true one,
            in radians; see `loss`.
        num_fine_components: components of the fine stage.
        num_fine_rounds: rounds of the fine stage, each with a probe.
        num_neighbors: nearest atoms that send to an atom or a point; all if zero.
        block: row of `common.nn.blocks.BLOCKS`, of the trunk.
        product: row of `common.nn.products.PRODUCTS`, of the trunk's messages.
        conditions: rows of `common.nn.conditions.CONDITIONS` that the network is given.
        properties: names of standardised properties that it is given, any of which
            may be hidden; see `symphony.columns`.
    """

    atomic_numbers: tuple[int, ...]
    num_channels: int
    num_layers: int
    max_degree: int
    cutoff: float
    num_radial_basis: int
    num_pair_feats: int
    avg_num_neighbors: float
    head_max_degree: int
    head_channels: int
    num_radial_components: int
    min_radius: float
    max_radius: float
    max_curvature: float
    res_beta: int
    res_alpha: int
    blur: float
    num_fine_components: int
    num_fine_rounds: int
    num_neighbors: int
    block: str
    product: str
    conditions: tuple[str, ...]
    properties: tuple[str, ...] = ()

    def setup(self) -> None:
        width = self.num_channels
        num_species = len(self.atomic_numbers)
        self.first_species = self.param(
            "first_species", nn.initializers.zeros, (num_species,)
        )
        self.embed_species = nn.Embed(num_species, width)
        self.embed_conditions = ConditionEmbedding(tuple(self.conditions), width)
        if self.properties:
            names = tuple(self.properties)
            self.property_inputs = PropertyInputs(names, width, num_species)
        self.pair_hidden = nn.Dense(self.num_pair_feats)
        fields = {
            "irreps": format_irreps(uniform(self.max_degree, width)),
            "product": self.product,
            "avg_num_neighbors": self.avg_num_neighbors,
        }
        self.layers = [make_block(self.block, **fields) for _ in range(self.num_layers)]
        self.trunk_norm = RMSNorm()
        self.focus_weights = nn.Dense(2 * width, use_bias=False)
        self.focus_senders = nn.Dense(2 * width, use_bias=False)
        self.focus_hidden = nn.Dense(width)
        self.focus_pool = nn.Dense(width)
        self.focus_mixed = nn.Dense(width)
        self.exchange_weights = nn.Dense(width, use_bias=False)
        self.exchange_senders = nn.Dense(width, use_bias=False)
        self.exchange = nn.Dense(width, use_bias=False)
        self.focus_global = nn.Dense(width)
        self.focus_logits = nn.Dense(num_species)
        self.stop_hidden = nn.Dense(width)
        self.stop_logit = nn.Dense(1)
        self.embed_target = nn.Embed(num_species, width)
        self.condition_inputs = nn.Dense(width)
        self.condition = nn.Dense(width)
        self.radial_hidden = nn.Dense(width)
        self.radial_outputs = nn.Dense(
            3 * self.num_radial_components, kernel_init=nn.initializers.normal(0.01)
        )
        self.coarse_condition = nn.Dense(width)
        self.coarse_pairs = nn.Dense(width)
        self.coarse_senders = nn.Dense(width, use_bias=False)
        self.coarse_weights = nn.Dense(self.head_max_degree * self.head_channels)
        self.coarse_layer = SymphonyBlock(**fields, zero_init=True)
        self.coarse_scalars = nn.Dense(
            width, use_bias=False, kernel_init=nn.initializers.zeros
        )
        self.coarse_focus = Linear(self.head_channels)
        self.coarse_gates = nn.Dense((self.max_degree + 1) * self.head_channels)
        probe = partial(Probe, width, self.num_radial_basis, self.cutoff)
        self.approaches = [
            probe(num_vectors=1, init_std=0.0) for _ in range(self.num_fine_rounds - 1)
        ]
        self.fine_probe = probe(num_vectors=2 * self.num_fine_components, init_std=0.1)
        self.fine_outputs = nn.Dense(
            2 * self.num_fine_components, kernel_init=nn.initializers.normal(0.01)
        )

    @property
    def grid(self) -> SphereGrid:
        """The grid that normalises the coarse density."""
        return sphere_grid(self.res_beta, self.res_alpha, self.head_max_degree)

    def graph(
        self,
        receivers: Float[Array, "num_receivers 3"],
        senders: Float[Array, "num_nodes 3"],
        mask: Bool[Array, "num_receivers num_senders"],
        index: Int[Array, " num_receivers"] | None = None,
        table: Senders = None,
    ) -> Graph:
        """Returns the edges from all senders to some receivers.

        Args:
            receivers: positions of the receivers, in Å.
            senders: positions of all nodes, in Å.
            mask: true where there is an edge, of all or of the table.
            index: node of each receiver; None if they are all nodes in their order.
            table: nodes that send to each receiver; None if all do.
        """
        vectors = receivers[:, None] - at_senders(senders, table)
        distances = safe_norm(vectors)
        basis = bessel_basis(distances, self.num_radial_basis, self.cutoff)
        envelope = polynomial_envelope(distances, self.cutoff) * mask
        feats = nn.silu(self.pair_hidden(basis))
        return make_graph(vectors, feats, envelope, self.max_degree, "O3", table, index)

    def near(
        self, points: Float[Array, "num_steps 3"], around: Surroundings
    ) -> Senders:
        """Returns the atoms nearest to a point of each step; None if it sees all."""
        if not 0 < self.num_neighbors < len(around.positions):
            return None
        distances = safe_norm(around.positions[None] - points[:, None])
        return nearest(distances, around.visible, self.num_neighbors)

    def embed(self, species: Species, conditions: Conditions) -> Features:
        """Embeds species and conditions of the molecule, properties apart."""
        scalars = self.embed_species(species) + self.embed_conditions(conditions)
        return from_scalars(scalars, uniform(self.max_degree, self.num_channels))

    def first_logits(self, conditions: Conditions) -> Float[Array, " num_species"]:
        """Returns the logits of the species of the first atom."""
        if not self.properties:
            return self.first_species
        return self.first_species + self.property_inputs.first(conditions)

    def focus_messages(
        self,
        sender_feats: Features,
        pair_feats: Float[Array, "num_receivers num_senders num_pair_feats"],
    ) -> Float[Array, "num_receivers num_senders twice_channels"]:
        """Returns the messages from placed atoms to candidates for the focus."""
        return self.focus_weights(pair_feats) * self.focus_senders(
            scalars_of(sender_feats)
        )

    def embed_steps(
        self,
        species: Species,
        positions: Positions,
        node_mask: NodeMask,
        placed: PlacedMask,
        conditions: Conditions,
    ) -> tuple[Features, NextAtom]:
        """Returns the features of the atoms and the logits of every step.

        An atom receives from those before it, so that one pass serves all steps.

        Args:
            species: indices into the species table, in the order of placement.
            positions: positions of the atoms, in Å.
            node_mask: true for real atoms.
            placed: true for the atoms placed at each step.
            conditions: conditions of the molecule.
        """
        num_nodes = len(species)
        others = node_mask[:, None] & node_mask & ~jnp.eye(num_nodes, dtype=bool)
        graph = self.graph(positions, positions, others)
        causal = jnp.tril(jnp.ones((num_nodes, num_nodes), bool), k=-1)
        past = keep_nearest(mask_edges(graph, causal), self.num_neighbors)
        node_feats = self.embed(species, conditions)
        for layer in self.layers:  # A loop of XLA would copy what gradients need.
            node_feats = layer(node_feats, past)
        node_feats = self.trunk_norm(node_feats)
        pair_feats = edge_feats(graph)
        messages = self.focus_messages(node_feats, pair_feats)
        messages = jnp.einsum("tj,ijc->tic", placed.astype(messages.dtype), messages)
        exchange = self.exchange_weights(pair_feats)
        return node_feats, self.next_atom(
            species, positions, node_feats, messages, placed, exchange, conditions
        )

    def next_atom(
        self,
        species: Species,
        positions: Positions,
        node_feats: Features,
        messages: Float[Array, "num_steps num_nodes twice_channels"],
        placed: PlacedMask,
        exchange: Float[Array, "num_nodes num_nodes num_channels"],
        conditions: Conditions,
    ) -> NextAtom:
        """Maps the sums of `focus_messages` over placed atoms to the logits.

        One round of messages between the placed atoms then adds features of the
        present step, since those of the causal trunk are fixed when an atom is placed.

        Args:
            species: indices into the species table.
            positions: positions of the atoms, in Å.
            node_feats: output of the trunk.
            messages: sums over placed atoms of messages to each.
            placed: true for the atoms placed at each step.
            exchange: `exchange_weights` of the features of the edges.
            conditions: conditions of the molecule.
        """
        arguments = (species, node_feats, messages, placed, conditions)
        hidden, fragment = self.fragment(*arguments)
        weight = placed[..., None].astype(hidden.dtype)
        pooled, forecast = self.focus_pool(fragment), None
        if self.properties:
            whole = Whole(fragment, hidden, node_feats, positions, placed)
            asked, forecast = self.property_inputs(conditions, whole)
            pooled += asked
        pooled = nn.silu(pooled)
        senders = self.exchange_senders(hidden) * weight
        received = jnp.einsum("ijc,tjc->tic", exchange, senders)
        mixed = self.focus_mixed(hidden) + self.exchange(received)
        mixed += self.focus_global(pooled)[:, None]
        hidden = nn.silu(mixed)
        logits = jnp.where(weight > 0, self.focus_logits(hidden), -jnp.inf)
        stop = self.stop_logit(nn.silu(self.stop_hidden(pooled)))[:, 0]
        return NextAtom(stop, logits, hidden, pooled, forecast)

    def fragment(
        self,
        species: Species,
        node_feats: Features,
        messages: Float[Array, "num_steps num_nodes twice_channels"],
        placed: PlacedMask,
        conditions: Conditions,
    ) -> tuple[
        Float[Array, "num_steps num_nodes num_channels"],
        Float[Array, "num_steps num_inputs"],
    ]:
        """Returns features of the atoms and of the whole fragment at each step.

        They know no property. The parity of the number of electrons is an input: few
        molecules end on an odd one, and a network of this kind does not learn to count
        modulo two. The molecule counts as neutral without the condition `charge`. The
        arguments are those of `next_atom`.
        """
        inputs = jnp.broadcast_to(
            scalars_of(node_feats), (*messages.shape[:2], self.num_channels)
        )
        hidden = nn.silu(self.focus_hidden(jnp.concatenate([inputs, messages], -1)))
        weight = placed[..., None].astype(hidden.dtype)
        count = jnp.maximum(jnp.sum(weight, axis=1), 1.0)
        total = jnp.sum(hidden * weight, axis=1)
        highest = jnp.max(jnp.where(weight > 0, hidden, -1.0), axis=1)
        is_odd = jnp.asarray(np.array(self.atomic_numbers) % 2)[species]
        num_odd = jnp.sum(jnp.where(placed, is_odd, 0), axis=1, keepdims=True)
        if "charge" in self.conditions:
            charge, is_known = conditions["charge"]
            num_odd -= jnp.where(is_known, jnp.rint(charge), 0.0).astype(jnp.int32)
        parity = 1.0 - 2.0 * (num_odd % 2)
        feats = jnp.concatenate(
            [total / count, total / 16.0, highest, count / 16.0, parity], -1
        )
        return hidden, feats

    def foresee(
        self,
        species: Species,
        positions: Positions,
        node_feats: Features,
        messages: Float[Array, "num_steps num_nodes twice_channels"],
        placed: PlacedMask,
        conditions: Conditions,
    ) -> Forecast:
        """Returns the properties that fragments may come to have; see `next_atom`."""
        arguments = (species, node_feats, messages, placed, conditions)
        hidden, fragment = self.fragment(*arguments)
        whole = Whole(fragment, hidden, node_feats, positions, placed)
        return self.property_inputs.foresee(whole)

    def position_condition(
        self,
        node_feats: Features,
        next_atom: NextAtom,
        focus: StepIndices,
        target_species: StepIndices,
    ) -> StepFeats:
        """Returns the input of the position heads: focus, species and fragment."""
        hidden = jnp.take_along_axis(next_atom.hidden, focus[:, None, None], 1)[:, 0]
        inputs = [hidden, scalars_of(node_feats)[focus], next_atom.pooled]
        mixed = self.condition_inputs(jnp.concatenate(inputs, -1))
        mixed = nn.silu(mixed + self.embed_target(target_species))
        return nn.silu(self.condition(mixed))

    def radial(self, condition: StepFeats) -> RadialMixture:
        """Returns the density of the distance from the focus."""
        outputs = self.radial_outputs(nn.silu(self.radial_hidden(condition)))
        logits, shifts, log_scales = jnp.split(outputs, 3, axis=-1)
        span = self.max_radius - self.min_radius
        spread = np.linspace(0.05, 0.95, self.num_radial_components) * span
        return RadialMixture(
            logits=logits,
            means=self.min_radius + spread + 0.2 * shifts,
            scales=0.002 + 0.05 * jnp.exp(jnp.minimum(log_scales, 2.0)),
        )

    def coarse(
        self, condition: StepFeats, radius: StepScalars, around: Surroundings
    ) -> Float[Array, "num_steps head_components head_channels"]:
        """Returns the signals of the density of directions at a radius (Å).

        In the trunk the focus knows nothing of what was placed after it; a block of
        its own shows it all that is placed.
        """
        node_feats, positions, focus, visible = around
        condition = self.coarse_condition(self._with_radius(condition, radius))
        senders = self.near(positions[focus], around)
        vectors = at_senders(positions, senders) - positions[focus][:, None]
        distances = safe_norm(vectors)
        basis = bessel_basis(distances, self.num_radial_basis, self.cutoff)
        scalars = self.coarse_senders(scalars_of(node_feats))
        hidden = self.coarse_pairs(basis) + at_senders(scalars, senders)
        others = visible & (jnp.arange(positions.shape[0]) != focus[:, None])
        others = take_senders(others, senders)
        graph = self.graph(positions[focus], positions, others, focus, senders)
        at_focus = self.coarse_layer(node_feats, graph)
        condition += self.coarse_scalars(scalars_of(at_focus))
        hidden = nn.silu(hidden + condition[:, None])
        envelope = polynomial_envelope(distances, self.cutoff) * others
        weights = self.coarse_weights(hidden) * envelope[..., None]
        shape = (*weights.shape[:2], self.head_max_degree, self.head_channels)
        weights = weights.reshape(shape)
        harmonics = spherical_harmonics(vectors, self.head_max_degree)

        gates = self.coarse_gates(condition)
        gates = jnp.split(gates, self.max_degree + 1, axis=-1)
        from_focus = self.coarse_focus(at_focus)
        signals = [gates[0][:, None]]
        degrees = degree_slices(self.head_max_degree)
        for irrep in harmonic_irreps(self.head_max_degree)[1:]:
            l = irrep.degree
            signal = jnp.einsum(
                "tjc,tjm->tmc", weights[:, :, l - 1], harmonics[:, :, degrees[l]]
            )
            if irrep in from_focus:
                signal += gates[l][:, None] * from_focus[irrep]
            signals.append(signal)
        return cap_curvature(jnp.concatenate(signals, axis=1), self.max_curvature)

    def fine(
        self,
        condition: StepFeats,
        radius: StepScalars,
        coarse_direction: Float[Array, "num_steps 3"],
        around: Surroundings,
    ) -> FineMixture:
        """Returns the density of the direction given a coarse one.

        Each round looks from a probe at the present direction, see `Probe`: all but the
        last move the direction towards where the atom is expected, the last gives means
        and squeezes around it.
        """
        condition = self._with_radius(condition, radius)
        centre = coarse_direction
        begin = around.positions[around.focus] + radius[:, None] * centre
        senders = self.near(begin, around)
        for approach in self.approaches:
            vectors, _ = approach(centre, radius, condition, around, senders)
            centre = exponential_map(centre, 0.3 * vectors[:, 0])
        vectors, summed = self.fine_probe(centre, radius, condition, around, senders)
        means, squeezes = jnp.split(vectors, 2, axis=1)
        logits, log_scales = jnp.split(self.fine_outputs(summed), 2, axis=-1)
        log_scales -= 0.7 * jnp.arange(self.num_fine_components)
        return FineMixture(
            logits=logits,
            means=0.3 * means,
            scales=0.001 + self.blur * jnp.exp(jnp.minimum(log_scales, 1.0)),
            squeezes=3.0 * squeezes,
            centre=centre,
        )

    def _with_radius(
        self, condition: StepFeats, radius: StepScalars
    ) -> Float[Array, "num_steps num_inputs"]:
        basis = gaussian_basis(radius, self.min_radius, self.max_radius, 16)
        return jnp.concatenate([condition, basis], axis=-1)
