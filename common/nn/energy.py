r"""Energies from a network of any block, and what follows from them by derivatives.

$$ E = \sum_i (\sigma\, W x_i^{(L)} + E_{s_i}), \qquad F_i = -\partial E / \partial r_i,
   \qquad \tau = \frac{1}{V} \frac{\partial E}{\partial \varepsilon}, $$
$x^{(L)}$ the scalars of the last layer, $E_s$ the energy of a lone atom of species s
and $\varepsilon$ a symmetric strain of positions and cell. Å, eV.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from common.nn.blocks import make_block
from common.nn.features import Features, add, from_scalars, harmonics, scalars_of
from common.nn.graph import Graph, make_graph
from common.nn.linear import Linear
from common.nn.neighbours import Neighbours, displacements, find_neighbours
from common.nn.radial import bessel_basis, polynomial_envelope
from common.so3.irreps import SCALAR, VECTOR, Irreps, format_irreps, parse
from common.so3.vectors import safe_norm

Energy: TypeAlias = Float[Array, ""]


class Structure(NamedTuple):
    """Atoms, and who is near whom.

    Attributes:
        positions: positions in Å.
        species: indices into the species table.
        node_mask: true for atoms.
        neighbours: table of neighbours within the cutoff.
        cell: cell vectors as rows, in Å; None if nothing is periodic.
    """

    positions: Float[Array, "num_nodes 3"]
    species: Int[Array, " num_nodes"]
    node_mask: Bool[Array, " num_nodes"]
    neighbours: Neighbours
    cell: Float[Array, "3 3"] | None = None


def make_structure(
    positions: Float[np.ndarray | Array, "num_nodes 3"],
    species: Int[np.ndarray | Array, " num_nodes"],
    cutoff: float,
    cell: Float[np.ndarray | Array, "3 3"] | None = None,
    multiple: int = 1,
) -> Structure:
    """Returns a structure with its neighbours, found on the host.

    >>> structure = make_structure(np.zeros((1, 3)), np.zeros(1, int), 1.5, np.eye(3))
    >>> structure.neighbours.senders.shape
    (1, 18)

    Args:
        positions: positions in Å.
        species: indices into the species table.
        cutoff: largest distance of neighbours, in Å.
        cell: cell vectors as rows, in Å; None if nothing is periodic.
        multiple: see `find_neighbours`.
    """
    box = None if cell is None else np.asarray(cell)
    near = find_neighbours(np.asarray(positions), cutoff, box, multiple)
    return Structure(
        positions=jnp.asarray(positions, jnp.float32),
        species=jnp.asarray(species, jnp.int32),
        node_mask=jnp.ones(len(positions), bool),
        neighbours=Neighbours(*map(jnp.asarray, near)),
        cell=None if cell is None else jnp.asarray(cell, jnp.float32),
    )


class AtomOutputs(NamedTuple):
    """What the network gives for each atom.

    Attributes:
        energy: energy in eV; zero where there is no atom.
        noise: displacement that an atom had before, in units of its spread; None where
            no forces were told.
    """

    energy: Float[Array, " num_nodes"]
    noise: Float[Array, "num_nodes 3"] | None


class EnergyModel(nn.Module):
    """The network; see the module's docstring.

    Attributes:
        atomic_numbers: species table.
        atom_energies: energy of a lone atom of each species, in eV.
        energy_scale: spread of the energy of an atom in a molecule, in eV.
        irreps: irreps of the features of all layers but the last, which has the
            scalars only.
        num_layers: rounds of messages.
        max_degree: largest degree of the harmonics.
        cutoff: distance beyond which atoms exchange no message, in Å.
        num_radial_basis: Bessel functions that encode a distance.
        num_hidden: width of the radial network.
        avg_num_neighbors: typical number of neighbours.
        block: row of `common.nn.blocks.BLOCKS`.
        product: row of `common.nn.products.PRODUCTS`, of the messages.
    """

    atomic_numbers: tuple[int, ...]
    atom_energies: tuple[float, ...]
    energy_scale: float
    irreps: str
    num_layers: int
    max_degree: int
    cutoff: float
    num_radial_basis: int
    num_hidden: int
    avg_num_neighbors: float
    block: str = "nequix"
    product: str = "clebsch_gordan"

    @nn.compact
    def __call__(
        self, structure: Structure, forces: Float[Array, "num_nodes 3"] | None = None
    ) -> AtomOutputs:
        """Returns the energy of each atom and, where forces are told, its noise.

        Args:
            structure: atoms and their neighbours.
            forces: forces on the atoms before they were moved, in eV/Å, zero for those
                that were not (DeNS, Liao et al. 2024, arXiv:2403.09549): the network
                then tells how far they were moved. Ordinary use has none.
        """
        irreps, species = parse(self.irreps), structure.species
        graph = self._graph(structure)
        width = irreps[SCALAR]
        x = from_scalars(nn.Embed(len(self.atomic_numbers), width)(species))
        for index in range(self.num_layers - 1):
            x = self._block(irreps, f"layers_{index}")(x, graph)
            if index == 0 and forces is not None:
                x = add(x, Linear(self.irreps, name="force")(_encoded(forces, x)))
        last = self._block({SCALAR: width}, f"layers_{self.num_layers - 1}")
        parts = nn.Dense(1, use_bias=False, name="readout")(scalars_of(last(x, graph)))
        lone = jnp.asarray(np.array(self.atom_energies, np.float32))[species]
        energies = self.energy_scale * parts[:, 0] + lone
        energies = jnp.where(structure.node_mask, energies, 0.0)
        if forces is None:
            return AtomOutputs(energies, None)
        kept = {SCALAR: width, VECTOR: irreps[VECTOR]}
        vectors = self._block(kept, "noise")(x, graph)[VECTOR]
        return AtomOutputs(energies, nn.Dense(1, use_bias=False)(vectors)[..., 0])

    def _graph(self, structure: Structure) -> Graph:
        vectors = displacements(
            structure.positions, structure.neighbours, structure.cell
        )
        distances = safe_norm(vectors)
        envelope = polynomial_envelope(distances, self.cutoff)
        envelope *= structure.neighbours.mask
        basis = bessel_basis(distances, self.num_radial_basis, self.cutoff)
        senders = jnp.asarray(structure.neighbours.senders)
        return make_graph(vectors, basis, envelope, self.max_degree, senders=senders)

    def _block(self, irreps: Irreps, name: str) -> Any:
        return make_block(
            self.block,
            irreps=format_irreps(irreps),
            product=self.product,
            avg_num_neighbors=self.avg_num_neighbors,
            num_hidden=self.num_hidden,
            name=name,
        )


def _encoded(forces: Float[Array, "num_nodes 3"], x: Features) -> Features:
    """Returns the harmonics of forces, times their lengths, of the irreps of x."""
    lengths = safe_norm(forces)[:, None, None]
    rows = harmonics(forces, max(irrep.degree for irrep in x))
    return {irrep: rows[irrep] * lengths for irrep in rows if irrep in x}


class Prediction(NamedTuple):
    """What a structure has.

    Attributes:
        energy: energy in eV.
        forces: forces in eV/Å.
        stress: stress in eV/Å³, positive under tension; None if nothing is periodic.
    """

    energy: Energy
    forces: Float[Array, "num_nodes 3"]
    stress: Float[Array, "3 3"] | None


EnergyFn: TypeAlias = Callable[[Structure], Energy]
"""The energy in eV, as `lambda s: model.apply(params, s).energy.sum()`."""


def predict(energy_fn: EnergyFn, structure: Structure) -> Prediction:
    """Returns energy, forces and stress, by one pass of reverse mode.

    >>> positions = jnp.array([[0.0, 0, 0], [0, 0, 1.5]])
    >>> pair = make_structure(positions, jnp.zeros(2, int), cutoff=2.0)
    >>> spring = lambda s: jnp.sum((s.positions[1] - s.positions[0]) ** 2)
    >>> predict(spring, pair).forces[:, 2].tolist()
    [3.0, -3.0]
    """
    if structure.cell is None:
        at = lambda positions: energy_fn(structure._replace(positions=positions))
        energy, slope = jax.value_and_grad(at)(structure.positions)
        return Prediction(energy, -slope, None)

    def strained(
        positions: Float[Array, "num_nodes 3"], strain: Float[Array, "3 3"]
    ) -> Energy:
        deform = jnp.eye(3) + (strain + strain.T) / 2
        turn = lambda rows: jnp.matmul(rows, deform, precision="highest")
        moved = structure._replace(positions=turn(positions), cell=turn(cell))
        return energy_fn(moved)

    cell = structure.cell
    given = structure.positions, jnp.zeros((3, 3))
    energy, (slope, virial) = jax.value_and_grad(strained, (0, 1))(*given)
    return Prediction(energy, -slope, virial / jnp.abs(jnp.linalg.det(cell)))


def hessian_vector(
    energy_fn: EnergyFn, structure: Structure, direction: Float[Array, "num_nodes 3"]
) -> Float[Array, "num_nodes 3"]:
    """Returns the Hessian times a vector, in eV/Å² times its unit: no matrix exists.

    >>> lone = make_structure(jnp.ones((1, 3)), jnp.zeros(1, int), 2.0)
    >>> well = lambda s: jnp.sum(s.positions**2)
    >>> hessian_vector(well, lone, jnp.array([[1.0, 0.0, 0.0]])).tolist()
    [[2.0, 0.0, 0.0]]
    """

    def along(positions: Float[Array, "num_nodes 3"]) -> Energy:
        at = lambda positions: energy_fn(structure._replace(positions=positions))
        return jnp.vdot(jax.grad(at)(positions), direction)

    # Twice in reverse: the blocked convolution has no forward mode.
    return jax.grad(along)(structure.positions)


def hessian(
    energy_fn: EnergyFn, structure: Structure
) -> Float[Array, "num_nodes 3 num_nodes 3"]:
    """Returns all second derivatives, in eV/Å², a column at a time.

    >>> lone = make_structure(jnp.ones((1, 3)), jnp.zeros(1, int), 2.0)
    >>> hessian(lambda s: jnp.sum(s.positions**2), lone)[0, 0, 0].tolist()
    [2.0, 0.0, 0.0]
    """
    size = structure.positions.size
    units = jnp.eye(size).reshape(size, *structure.positions.shape)
    columns = jax.lax.map(
        lambda unit: hessian_vector(energy_fn, structure, unit), units
    )
    return columns.reshape(*structure.positions.shape, *structure.positions.shape)
