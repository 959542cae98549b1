r"""The published network: fragment to focus and species, and to a joint density.

Two embedders that share nothing: E3SchNet (arXiv 1706.08566 made equivariant) for
focus and species, NequIP (arXiv 2101.03164) for the position, a signal on the sphere
for each of a set of radii. Linear maps have no biases and, with the activations, keep
unit second moments. One fragment at a time; atoms are a dense table of pairs.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from common.nn.activations import softplus, swish
from common.nn.blocks.e3schnet import E3SchNetBlock
from common.nn.blocks.nequip import NequIPBlock
from common.nn.features import Features, add, from_scalars, scalars_of, take
from common.nn.graph import Graph, make_graph, select_receivers
from common.nn.linear import Linear
from common.nn.mlp import MLP
from common.nn.radial import bessel_basis, gaussian_basis, polynomial_envelope
from common.so3.grid import SphereGrid, sphere_grid
from common.so3.irreps import format_irreps, uniform
from symphony.arrays import Index, NodeMask, Positions, Species


class FragmentPairs(NamedTuple):
    """Geometry of the pairs of a fragment, receivers in rows, senders in columns.

    Attributes:
        vectors: vectors from sender to receiver, in Å; the axis y where masked.
        distances: lengths of the vectors, in Å; 1 where masked.
        mask: true for two different placed atoms within the cutoff.
    """

    vectors: Float[Array, "num_receivers num_senders 3"]
    distances: Float[Array, "num_receivers num_senders"]
    mask: Bool[Array, "num_receivers num_senders"]


class JointDensity(NamedTuple):
    r"""Unnormalised density of the next atom around the focus, on shells of radii.

    The logit of shell k in direction $\hat r$ is $b_k + \log \sum_c \exp f_{kc}(\hat
    r)$; the density is a sum over shells, without the measure $r^2$.

    Attributes:
        radial: $b_k$.
        signals: coefficients of $f_{kc}$ in spherical harmonics; one shell stands for
            all if the density is factorised.
    """

    radial: Float[Array, " num_radii"]
    signals: Float[Array, "num_shells components channels"]


class PaperSymphony(nn.Module):
    r"""The published model; see the module's docstring.

    Loss and sampler call its parts one by one, hence `setup`.

    Attributes:
        atomic_numbers: species table.
        cutoff: distance beyond which atoms exchange no message, in Å.
        focus_channels: channels of E3SchNet.
        focus_layers: number of blocks of E3SchNet.
        focus_max_degree: largest degree of E3SchNet.
        focus_filters: channels of the messages of E3SchNet.
        focus_hidden: width of the two hidden layers that give the logits.
        position_channels: channels of NequIP.
        position_layers: layers of NequIP, at least two; the last is of the focus alone.
        position_max_degree: largest degree of NequIP and of the density.
        num_radial_basis: functions that encode a distance, in both embedders.
        radial_width: width of the radial networks of NequIP.
        avg_num_neighbors: divisor under the root of the sums of messages in NequIP.
        num_radii: number of shells.
        min_radius: radius of the first shell, in Å.
        max_radius: radius of the last shell, in Å.
        head_channels: signals whose exponentials the density adds up.
        factorised: true for a direction that is independent of the radius.
        radial_hidden: width of the radial network, if factorised.
        res_beta: polar points of the grid of directions.
        res_alpha: azimuthal points of the grid.
        target_inverse_temperature: $\beta$ of the target $q \propto \exp(\beta
            \delta_L)$.
        target_max_degree: L of the target.
        radial_variance: variance in Å², $\sigma^2$ of the target's weights of shells.
        noise_std: noise on the atoms of every fragment, in Å.
    """

    atomic_numbers: tuple[int, ...]
    cutoff: float
    focus_channels: int
    focus_layers: int
    focus_max_degree: int
    focus_filters: int
    focus_hidden: int
    position_channels: int
    position_layers: int
    position_max_degree: int
    num_radial_basis: int
    radial_width: int
    avg_num_neighbors: float
    num_radii: int
    min_radius: float
    max_radius: float
    head_channels: int
    factorised: bool
    radial_hidden: int
    res_beta: int
    res_alpha: int
    target_inverse_temperature: float
    target_max_degree: int
    radial_variance: float
    noise_std: float

    def setup(self) -> None:
        num_species = len(self.atomic_numbers)
        self.first_species = self.param(
            "first_species", nn.initializers.zeros, (num_species,)
        )
        self.focus_embed = nn.Embed(num_species, self.focus_channels)
        focus_irreps = uniform(self.focus_max_degree, self.focus_channels)
        self.focus_blocks = [
            E3SchNetBlock(format_irreps(focus_irreps), num_hidden=self.focus_filters)
            for _ in range(self.focus_layers)
        ]
        hidden = (self.focus_hidden,) * 2
        self.focus_logits = MLP((*hidden, num_species), softplus, False)
        width = self.position_channels
        self.position_embed = nn.Embed(num_species, width)
        fields = {
            "irreps": format_irreps(uniform(self.position_max_degree, width)),
            "product": "so2",
            "avg_num_neighbors": self.avg_num_neighbors,
            "num_hidden": self.radial_width,
        }
        layers = range(self.position_layers)
        self.position_blocks = [NequIPBlock(**fields) for _ in layers]
        self.position_linear = [Linear(width) for _ in layers]
        degrees = self.position_max_degree + 1
        self.target_embed = nn.Embed(num_species, degrees * width)
        num_shells = 1 if self.factorised else self.num_radii
        self.signal_linear = Linear(num_shells * self.head_channels)
        if self.factorised:
            widths = (self.radial_hidden, self.num_radii)
            self.radial_logits = MLP(widths, swish, False)

    @property
    def grid(self) -> SphereGrid:
        """The grid of directions, with the harmonics of the signals."""
        return sphere_grid(self.res_beta, self.res_alpha, self.position_max_degree)

    @property
    def target_grid(self) -> SphereGrid:
        """The same directions, with the harmonics of the target."""
        return sphere_grid(self.res_beta, self.res_alpha, self.target_max_degree)

    @property
    def radii(self) -> Float[np.ndarray, " num_radii"]:
        """Radii of the shells in Å."""
        return np.linspace(
            self.min_radius, self.max_radius, self.num_radii, dtype=np.float32
        )

    def pairs(self, positions: Positions, placed: NodeMask) -> FragmentPairs:
        """Measures all pairs of placed atoms; positions in Å."""
        vectors = positions[:, None] - positions[None]
        squared = jnp.sum(jnp.square(vectors), axis=-1)
        others = ~jnp.eye(len(positions), dtype=bool) & (squared > 0)
        mask = placed[:, None] & placed & others & (squared < self.cutoff**2)
        vectors = jnp.where(mask[..., None], vectors, jnp.array([0.0, 1.0, 0.0]))
        return FragmentPairs(
            vectors=vectors,
            distances=jnp.sqrt(jnp.where(mask, squared, 1.0)),
            mask=mask,
        )

    def focus_species(
        self,
        species: Species,
        positions: Positions,
        placed: NodeMask,
        pairs: FragmentPairs,
    ) -> Float[Array, "num_nodes num_species"]:
        """Returns the logits of (focus, species), next to the 0 of stopping.

        Those of atoms that are not placed are minus infinity.
        """
        distances = pairs.distances
        radial = gaussian_basis(distances, 0.0, self.cutoff, self.num_radial_basis)
        envelope = 0.5 * (1.0 + jnp.cos(jnp.pi * distances / self.cutoff)) * pairs.mask
        vectors = positions[:, None] - positions[None]
        graph = make_graph(vectors, radial, envelope, self.focus_max_degree)
        node_feats = from_scalars(self.focus_embed(species))
        for block in self.focus_blocks:
            node_feats = block(node_feats, graph)
        logits = self.focus_logits(scalars_of(node_feats))
        return jnp.where(placed[:, None], logits, -jnp.inf)

    def focus_feats(
        self, species: Species, pairs: FragmentPairs, focus: Index
    ) -> Features:
        """Embeds the focus for the position; the last layer makes its row alone."""
        graph = self._position_graph(pairs)
        one_hot = jnp.eye(len(self.atomic_numbers))[species]
        node_feats = from_scalars(self.position_embed(species))
        for index, block in enumerate(self.position_blocks):
            own = node_feats
            if index == self.position_layers - 1:
                rows = focus[None]
                graph, own = select_receivers(graph, rows), take(node_feats, rows)
                one_hot = one_hot[rows]
            update = self.position_linear[index](block(node_feats, graph, one_hot))
            node_feats = update if index == 0 else add(own, update)
        return {i: 0.5**i.degree * part[0] for i, part in node_feats.items()}

    def _position_graph(self, pairs: FragmentPairs) -> Graph:
        scaled = pairs.distances / self.cutoff
        radial = bessel_basis(scaled, self.num_radial_basis, 1.0)
        envelope = polynomial_envelope(scaled, 1.0) * pairs.mask
        return make_graph(pairs.vectors, radial, envelope, self.position_max_degree)

    def density(self, focus_feats: Features, target_species: Index) -> JointDensity:
        """Returns the density of the position of an atom of a species."""
        width = self.position_channels
        factors = self.target_embed(target_species[None]).reshape(-1, 1, width)
        condition = {i: part * factors[i.degree] for i, part in focus_feats.items()}
        signals = self.signal_linear(condition)
        rows = jnp.concatenate([signals[irrep] for irrep in sorted(signals)])
        rows = rows.reshape(len(rows), -1, self.head_channels)
        radial = jnp.zeros(self.num_radii)
        if self.factorised:
            radial = self.radial_logits(scalars_of(condition))
        signals = jnp.swapaxes(rows, 0, 1) / math.sqrt(4.0 * math.pi)
        return JointDensity(radial, signals)
