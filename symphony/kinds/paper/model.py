r"""The published network: fragment to focus and species, and to a joint density.

Two embedders that share nothing: E3SchNet (arXiv 1706.08566 made equivariant) for
focus and species, NequIP (arXiv 2101.03164) for the position, a signal on the sphere
for each of a set of radii. Linear maps have no biases and, with the activations, keep
unit second moments. One fragment at a time; atoms are a dense table of pairs.
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from common.nn.layers import (
    MLP,
    Linear,
    bessel_basis,
    gaussian_basis,
    polynomial_envelope,
    resize_degrees,
)
from common.nn.products.clebsch_gordan import (
    Degrees,
    message_per_degree,
    neighbour_convolution,
)
from common.so3.harmonics import SphereGrid, sphere_grid, spherical_harmonics
from common.so3.irreps import max_degree_of, tensor_product_paths
from symphony.kinds.paper.frames import (
    num_pair_weights,
    pair_convolution,
    pair_frames,
)


class FragmentPairs(NamedTuple):
    """Geometry of the pairs of a fragment, receivers in rows, senders in columns.

    Attributes:
        distances: Å; 1 where there is no pair.
        frames: See `frames.pair_frames`; where there is no pair, of the axis y.
        mask: True for two different placed atoms within the cutoff.
    """

    distances: Float[Array, "num_receivers num_senders"]
    frames: Float[Array, "num_receivers num_senders rows orders"]
    mask: Bool[Array, "num_receivers num_senders"]


class JointDensity(NamedTuple):
    r"""Unnormalised density of the next atom around the focus, on shells of radii.

    The logit of shell k in direction $\hat r$ is $b_k + \log \sum_c \exp f_{kc}(\hat
    r)$; the density is a sum over shells, without the measure $r^2$.

    Attributes:
        radial: $b_k$.
        signals: Coefficients of $f_{kc}$ in spherical harmonics; one shell stands for
            all if the density is factorised.
    """

    radial: Float[Array, " num_radii"]
    signals: Float[Array, "num_shells components channels"]


@functools.cache
def _root_second_moment(name: str) -> float:
    """Returns the root mean square of an activation of a standard normal number."""
    z, weights = np.polynomial.hermite_e.hermegauss(200)
    values = {
        "swish": z / (1.0 + np.exp(-z)),
        "softplus": np.logaddexp(z, 0.0),
        "shifted_softplus": np.logaddexp(z, 0.0) - math.log(2.0),
    }[name]
    return float(np.sqrt(np.sum(weights * values**2) / np.sum(weights)))


def swish(x: Array) -> Array:
    """Applies the swish, scaled to unit second moment."""
    return nn.silu(x) / _root_second_moment("swish")


def softplus(x: Array) -> Array:
    """Applies the softplus, scaled to unit second moment."""
    return nn.softplus(x) / _root_second_moment("softplus")


def shifted_softplus(x: Array) -> Array:
    """Applies the softplus less its value at zero, scaled to unit second moment."""
    return (nn.softplus(x) - math.log(2.0)) / _root_second_moment("shifted_softplus")


class E3SchNetBlock(nn.Module):
    """A residual block: filtered tensor products with harmonics, summed over pairs.

    Attributes:
        num_filters: Channels of the messages.
        max_degree: Largest degree of the features.
    """

    num_filters: int
    max_degree: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "num_nodes components channels"],
        harmonics: Float[Array, "num_nodes num_nodes components_harmonics"],
        radial: Float[Array, "num_nodes num_nodes num_radial"],
        envelope: Float[Array, "num_nodes num_nodes"],
    ) -> Float[Array, "num_nodes components_out channels"]:
        num_nodes, channels = x.shape[0], x.shape[-1]
        degrees = Degrees(
            max_degree_of(x.shape[1]), self.max_degree, self.max_degree, "O3"
        )
        num_weights = len(tensor_product_paths(*degrees)) * self.num_filters
        widths = (self.num_filters, num_weights)
        weights = MLP(widths, shifted_softplus, False)(radial)
        weights = (weights * envelope[..., None]).reshape(
            num_nodes, num_nodes, -1, self.num_filters
        )
        senders = jnp.broadcast_to(jnp.arange(num_nodes), (num_nodes, num_nodes))
        sums = neighbour_convolution(
            Linear(self.num_filters)(x), harmonics, weights, senders, self.max_degree
        )
        mixed = [
            nn.Dense(channels, use_bias=False)(block)
            for block in message_per_degree(sums, degrees)
        ]
        mixed[0] = shifted_softplus(mixed[0])
        update = Linear(channels)(jnp.concatenate(mixed, axis=1))
        return resize_degrees(x, self.max_degree) + update


class DegreeLinear(nn.Module):
    """Mixes the channels of each degree by a matrix of its own.

    Attributes:
        features: Number of output channels.
        kernel_scale: Variance of the output for inputs of unit variance.
    """

    features: int
    kernel_scale: float = 1.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch degrees orders channels"]
    ) -> Float[Array, "*batch degrees orders features"]:
        init = nn.initializers.variance_scaling(
            self.kernel_scale, "fan_in", "truncated_normal", batch_axis=(0,)
        )
        shape = (x.shape[-3], x.shape[-1], self.features)
        return jnp.einsum("...lkc,lcd->...lkd", x, self.param("kernel", init, shape))


class NequIPLayer(nn.Module):
    """A message-passing layer with a gate and a linear map for each species.

    Attributes:
        num_channels: Channels of every degree of the output.
        radial_width: Width of the two hidden layers of the radial network.
        num_species: Size of the species table.
        avg_num_neighbors: The sum of messages is divided by its root.
    """

    num_channels: int
    radial_width: int
    num_species: int
    avg_num_neighbors: float

    @nn.compact
    def __call__(
        self,
        senders: Float[Array, "num_senders degrees_in orders_in channels"],
        receivers: Float[Array, "num_receivers degrees_in orders_in channels"],
        species: Int[Array, " num_receivers"],
        radial: Float[Array, "num_receivers num_senders num_radial"],
        frames: Float[Array, "num_receivers num_senders rows orders"],
    ) -> Float[Array, "num_receivers degrees orders num_channels"]:
        max_degree = frames.shape[-1] // 2
        channels = senders.shape[-1]
        num_weights = num_pair_weights(senders.shape[1] - 1, max_degree)
        shape = (self.radial_width, num_weights * channels)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        hidden = MLP((self.radial_width,) * 2, swish, False)(radial)
        messages = pair_convolution(
            DegreeLinear(channels)(senders),
            frames,
            swish(hidden),
            kernel.reshape(self.radial_width, num_weights, channels),
        )
        messages = messages.reshape(*messages.shape[:3], -1)
        messages /= math.sqrt(self.avg_num_neighbors)
        # A matrix for each species: only one block of these inputs is not zero.
        one_hot = jnp.eye(self.num_species)[species]
        own = receivers[..., None, :] * one_hot[:, None, None, :, None]
        own = own.reshape(*receivers.shape[:3], -1)

        scale = float(self.num_species)
        update = DegreeLinear(self.num_channels, scale)(own)
        missing = [
            (0, m - n) for m, n in zip(messages.shape, update.shape, strict=True)
        ]
        update = jnp.pad(update, [*missing[:3], (0, 0)])
        update += DegreeLinear(self.num_channels)(messages)
        width = max_degree * self.num_channels
        gates = DegreeLinear(width, scale)(own[:, :1, :1])
        gates += DegreeLinear(width)(messages[:, :1, :1])
        gates = swish(gates.reshape(-1, max_degree, 1, self.num_channels))
        scalars = jnp.pad(
            swish(update[:, :1, :1]), ((0, 0), (0, 0), (0, 2 * max_degree), (0, 0))
        )
        return jnp.concatenate([scalars, gates * update[:, 1:]], axis=1)


class PaperSymphony(nn.Module):
    r"""The published model; see the module's docstring.

    Loss and sampler call its parts one by one, hence `setup`.

    Attributes:
        atomic_numbers: The species table.
        cutoff: Å, beyond which atoms exchange no message.
        focus_channels: Channels of E3SchNet.
        focus_layers: Its blocks.
        focus_max_degree: Its largest degree.
        focus_filters: Channels of its messages.
        focus_hidden: Width of the two hidden layers that give the logits.
        position_channels: Channels of NequIP.
        position_layers: Its layers, at least two; the last serves the focus alone.
        position_max_degree: Its largest degree, and that of the density.
        num_radial_basis: Functions that encode a distance, in both embedders.
        radial_width: Width of the radial networks of NequIP.
        avg_num_neighbors: Divisor under the root of the sums of messages in NequIP.
        num_radii: Number of shells.
        min_radius: Å, radius of the first shell.
        max_radius: Å, radius of the last shell.
        head_channels: Signals whose exponentials the density adds up.
        factorised: Whether the direction is independent of the radius.
        radial_hidden: Width of the radial network, if factorised.
        res_beta: Polar points of the grid of directions.
        res_alpha: Azimuthal points of the grid.
        target_inverse_temperature: $\beta$ of the target $q \propto \exp(\beta
            \delta_L)$.
        target_max_degree: L of the target.
        radial_variance: Å², $\sigma^2$ of the target's weights of shells.
        noise_std: Å, of the noise on the atoms of every fragment.
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
        self.first_species = self.param(
            "first_species", nn.initializers.zeros, (self.num_species,)
        )
        self.focus_embed = nn.Embed(self.num_species, self.focus_channels)
        self.focus_blocks = [
            E3SchNetBlock(self.focus_filters, self.focus_max_degree)
            for _ in range(self.focus_layers)
        ]
        hidden = (self.focus_hidden,) * 2
        self.focus_logits = MLP((*hidden, self.num_species), softplus, False)
        width = self.position_channels
        self.position_embed = nn.Embed(self.num_species, width)
        self.position_blocks = [
            NequIPLayer(
                width, self.radial_width, self.num_species, self.avg_num_neighbors
            )
            for _ in range(self.position_layers)
        ]
        self.position_linear = [
            DegreeLinear(width) for _ in range(self.position_layers)
        ]
        degrees = self.position_max_degree + 1
        self.target_embed = nn.Embed(self.num_species, degrees * width)
        num_shells = 1 if self.factorised else self.num_radii
        self.signal_linear = DegreeLinear(num_shells * self.head_channels)
        if self.factorised:
            widths = (self.radial_hidden, self.num_radii)
            self.radial_logits = MLP(widths, swish, False)

    @property
    def num_species(self) -> int:
        """Size of the species table."""
        return len(self.atomic_numbers)

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

    def pairs(
        self,
        positions: Float[Array, "num_nodes 3"],
        placed: Bool[Array, " num_nodes"],
    ) -> FragmentPairs:
        """Measures all pairs of placed atoms; positions in Å."""
        vectors = positions[:, None] - positions[None]
        squared = jnp.sum(jnp.square(vectors), axis=-1)
        others = ~jnp.eye(len(positions), dtype=bool) & (squared > 0)
        mask = placed[:, None] & placed & others & (squared < self.cutoff**2)
        vectors = jnp.where(mask[..., None], vectors, jnp.array([0.0, 1.0, 0.0]))
        return FragmentPairs(
            distances=jnp.sqrt(jnp.where(mask, squared, 1.0)),
            frames=pair_frames(vectors, self.position_max_degree),
            mask=mask,
        )

    def focus_species(
        self,
        species: Int[Array, " num_nodes"],
        positions: Float[Array, "num_nodes 3"],
        placed: Bool[Array, " num_nodes"],
        pairs: FragmentPairs,
    ) -> Float[Array, "num_nodes num_species"]:
        """Returns the logits of (focus, species), next to the 0 of stopping.

        Those of atoms that are not placed are minus infinity.
        """
        distances = pairs.distances
        radial = gaussian_basis(distances, 0.0, self.cutoff, self.num_radial_basis)
        envelope = 0.5 * (1.0 + jnp.cos(jnp.pi * distances / self.cutoff)) * pairs.mask
        vectors = positions[:, None] - positions[None]
        harmonics = spherical_harmonics(vectors, self.focus_max_degree)
        node_feats = self.focus_embed(species)[:, None]
        for block in self.focus_blocks:
            node_feats = block(node_feats, harmonics, radial, envelope)
        logits = self.focus_logits(node_feats[:, 0])
        return jnp.where(placed[:, None], logits, -jnp.inf)

    def focus_feats(
        self,
        species: Int[Array, " num_nodes"],
        pairs: FragmentPairs,
        focus: Int[Array, ""],
    ) -> Float[Array, "degrees orders position_channels"]:
        """Embeds the focus for the position; the last layer makes its row alone."""
        scaled = pairs.distances / self.cutoff
        radial = bessel_basis(scaled, self.num_radial_basis, 1.0)
        envelope = polynomial_envelope(scaled, 1.0) * pairs.mask
        radial = radial * envelope[..., None]
        frames = pairs.frames
        node_feats = self.position_embed(species)[:, None, None]
        receivers, receiving = node_feats, species
        for index, block in enumerate(self.position_blocks):
            if index == self.position_layers - 1:
                rows = focus[None]
                radial, frames = radial[rows], frames[rows]
                receivers, receiving = node_feats[rows], species[rows]
            update = block(node_feats, receivers, receiving, radial, frames)
            update = self.position_linear[index](update)
            node_feats = update if index == 0 else receivers + update
            receivers = node_feats
        scale = 0.5 ** np.arange(self.position_max_degree + 1, dtype=np.float32)
        return jnp.asarray(scale)[:, None, None] * node_feats[0]

    def density(
        self,
        focus_feats: Float[Array, "degrees orders position_channels"],
        target_species: Int[Array, ""],
    ) -> JointDensity:
        """Returns the density of the position of an atom of a species."""
        degrees, orders, channels = focus_feats.shape
        factors = self.target_embed(target_species[None]).reshape(degrees, 1, channels)
        condition = focus_feats * factors
        signals = self.signal_linear(condition) / math.sqrt(4.0 * math.pi)
        real = [l * orders + k for l in range(degrees) for k in range(2 * l + 1)]
        signals = signals.reshape(degrees * orders, -1, self.head_channels)
        radial = jnp.zeros(self.num_radii)
        if self.factorised:
            radial = self.radial_logits(condition[0, 0])
        return JointDensity(radial, jnp.swapaxes(signals[np.array(real)], 0, 1))
