r"""The denoiser's network: a noised molecule and its elements to the clean one.

$$ D(y) = c_\mathrm{skip}\, y + c_\mathrm{out} F(y; \sigma) $$
(Karras et al. 2022, arXiv:2206.00364), F a vector for each atom. Distances enter in Å,
whatever the noise, since at small noise they are those of bonds. Mirror images are
treated alike, as they are in nature.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from common.generative.preconditioning import precondition
from common.generative.schedules import variance_exploding
from common.geometry import alignment
from common.nn.blocks import make_block
from common.nn.features import from_scalars, scalars_of
from common.nn.graph import make_graph
from common.nn.norm import RMSNorm
from common.nn.radial import bessel_basis, gaussian_basis, polynomial_envelope
from common.so3.irreps import VECTOR, format_irreps, uniform
from common.so3.vectors import safe_norm
from symphony.arrays import NodeMask, Positions, Scalar, Species

FIXED_PRECISION = 1e4
"""Weight of an atom that is fixed: its noise is a hundredth of the others'."""


def precision_of(fixed: NodeMask) -> Float[Array, " num_nodes"]:
    """Returns the precision of each atom, in that of the atoms that are not fixed."""
    return jnp.where(fixed, FIXED_PRECISION, 1.0)


class Denoiser(nn.Module):
    """The whole network; see the module's docstring.

    Attributes:
        atomic_numbers: species table.
        num_channels: channels of every degree.
        num_layers: rounds of messages.
        max_degree: largest degree of the features, at least 1.
        cutoff: distance beyond which atoms exchange no message, in Å.
        num_radial_basis: Bessel functions that encode a distance.
        num_pair_feats: width of the features of a pair.
        avg_num_neighbors: typical number of neighbours.
        sigma_data: spread of the clean molecules, in Å. One larger than theirs
            makes the output depend on the neighbours alone.
        min_noise: smallest noise of the training, in Å.
        max_noise: largest noise of the training, in Å.
        block: row of `common.nn.blocks.BLOCKS`.
        product: row of `common.nn.products.PRODUCTS`, of the messages.
    """

    atomic_numbers: tuple[int, ...]
    num_channels: int
    num_layers: int
    max_degree: int
    cutoff: float
    num_radial_basis: int
    num_pair_feats: int
    avg_num_neighbors: float
    sigma_data: float
    min_noise: float
    max_noise: float
    block: str
    product: str

    @nn.compact
    def __call__(
        self,
        species: Species,
        y: Positions,
        sigma: Scalar,
        node_mask: NodeMask,
        fixed: NodeMask,
    ) -> Positions:
        """Returns the expected clean molecule, where the noised one lies.

        Args:
            species: indices into the species table.
            y: positions of the noised molecule, in Å.
            sigma: standard deviation of the noise, in Å.
            node_mask: true for atoms.
            fixed: true for atoms that are known; they come back as they are.
        """
        y, centre = alignment.center(y, node_mask, precision_of(fixed))
        num_species = len(self.atomic_numbers)
        ends = math.log(self.min_noise), math.log(self.max_noise)
        level = gaussian_basis(jnp.log(sigma), *ends, 8)
        scalars = nn.Embed(num_species, self.num_channels)(species)
        scalars += nn.Embed(2, self.num_channels)(fixed.astype(jnp.int32))
        scalars += nn.Dense(self.num_channels)(level)
        irreps = uniform(self.max_degree, self.num_channels)
        node_feats = from_scalars(scalars, irreps)

        displacements = y[:, None] - y[None]
        distances = safe_norm(displacements)
        basis = bessel_basis(distances, self.num_radial_basis, self.cutoff)
        envelope = polynomial_envelope(distances, self.cutoff)
        others = node_mask[:, None] & node_mask & ~jnp.eye(len(y), dtype=bool)
        hidden = nn.silu(nn.Dense(self.num_pair_feats)(basis))
        feats = nn.silu(nn.Dense(self.num_pair_feats)(hidden))
        graph = make_graph(displacements, feats, envelope * others, self.max_degree)
        for index in range(self.num_layers):
            layer = make_block(
                self.block,
                irreps=format_irreps(irreps),
                product=self.product,
                avg_num_neighbors=self.avg_num_neighbors,
                name=f"layers_{index}",
            )
            node_feats = layer(node_feats, graph)
        node_feats = RMSNorm()(node_feats)
        gates = nn.Dense(self.num_channels)(
            nn.silu(nn.Dense(self.num_channels)(scalars_of(node_feats)))
        )
        vectors = node_feats[VECTOR] * gates[:, None]
        moves = nn.Dense(1, use_bias=False)(vectors)[..., 0]

        scales = precondition(variance_exploding(sigma), self.sigma_data)
        output = scales.skip * y + scales.out * moves
        output = jnp.where(fixed[:, None], y, output) + centre
        return jnp.where(node_mask[:, None], output, 0.0)
