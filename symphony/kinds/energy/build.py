r"""Builds the energy model from a config, and evaluates its losses on one molecule.

$$ L = w_E\, |E - \hat E| / n + w_F\, \mathrm{mean}_i \|F_i - \hat F_i\|
   + w_H\, \mathrm{mean} |H e_c - \hat H e_c|
   + w_D\, \mathrm{mean} \|\epsilon - \hat\epsilon\|^2 / 3 $$
for a random coordinate c, and noise on some of the atoms; see `common.nn.energy_loss`.
The network of training gives energies relative to lone atoms, which total energies in
single precision could not tell.
"""

from typing import NamedTuple

import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array

from common.errors import UsageError
from common.nn import energy_loss
from common.nn.energy import EnergyModel, Structure, predict
from common.nn.neighbours import Neighbours
from symphony.arrays import NodeMask, Positions, RandomKey, Scalar, Species
from symphony.data import Batch, Molecules
from symphony.data.molecules import to_species

ENERGY, FORCES = "energy", "forces"
COLUMN, COORDINATE = "hessian_column", "hessian_coordinate"


class Settings(NamedTuple):
    """Settings of the loss, from the config.

    Attributes:
        energy_weight: weight of the error of the energy for each atom.
        force_weight: weight of the mean length of errors of forces.
        hessian_weight: weight of the error of a column of the Hessian; none if zero.
        noise_weight: weight of denoising; none if zero.
        noise_std: standard deviation of the noise, in Å.
        noise_share: share of the atoms that are moved.
    """

    energy_weight: float
    force_weight: float
    hessian_weight: float
    noise_weight: float
    noise_std: float
    noise_share: float


def labels_of(
    config: ml_collections.ConfigDict,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the labels that the loss needs, of molecules and of atoms."""
    if config.loss.hessian_weight:
        return (ENERGY, COORDINATE), (FORCES, COLUMN)
    return (ENERGY,), (FORCES,)


def make_model(config: ml_collections.ConfigDict) -> EnergyModel:
    """Returns the network that a config describes, relative to lone atoms."""
    species = tuple(config.data.species)
    return EnergyModel(species, (0.0,) * len(species), **config.model)


def prepare(config: ml_collections.ConfigDict, molecules: Molecules) -> Molecules:
    """Subtracts the energies of lone atoms, in double precision.

    Raises:
        UsageError: They are not one for each species.
    """
    species = to_species(molecules.atomic_numbers, tuple(config.data.species))
    energies = np.asarray(config.data.atom_energies, np.float64)
    counts = np.zeros((len(molecules.num_atoms), len(config.data.species)))
    rows = np.repeat(np.arange(len(counts)), molecules.num_atoms)
    np.add.at(counts, (rows, species), 1.0)
    labels = molecules.labels
    total = labels.of_molecules[ENERGY]
    if len(energies) != counts.shape[1]:
        fitted = np.linalg.lstsq(counts, total, rcond=None)[0].round(4).tolist()
        raise UsageError(
            f"config.data.atom_energies: expected {counts.shape[1]} energies in eV, of "
            f"a lone atom of each of config.data.species, found {len(energies)}; least "
            f"squares over these molecules give {tuple(fitted)}"
        )
    relative = {**labels.of_molecules, ENERGY: total - counts @ energies}
    return molecules._replace(labels=labels._replace(of_molecules=relative))


def all_pairs(positions: Positions, species: Species, node_mask: NodeMask) -> Structure:
    """Returns a molecule whose atoms all see each other, as far as the cutoff.

    >>> ones = jnp.ones(3, bool)
    >>> structure = all_pairs(jnp.zeros((3, 3)), jnp.zeros(3, int), ones)
    >>> structure.neighbours.senders.shape
    (3, 2)
    """
    size = len(species)
    # Row i has the nodes 0 to size - 1, but for i.
    table = np.arange(size - 1) + (np.arange(size - 1) >= np.arange(size)[:, None])
    senders = jnp.asarray(table.astype(np.int32))
    mask = node_mask[:, None] & node_mask[senders]
    near = Neighbours(senders, jnp.zeros((*senders.shape, 3)), mask)
    return Structure(positions, species, node_mask, near)


def run(config: ml_collections.ConfigDict, model: EnergyModel) -> Array:
    """Evaluates four atoms, so that every parameter is made."""
    positions, zeros = jnp.eye(4, 3), jnp.zeros(4, jnp.int32)
    structure = all_pairs(positions, zeros, jnp.ones(4, bool))
    forces = positions if config.loss.noise_weight else None
    return model(structure, forces).energy


def molecule_totals(
    config: ml_collections.ConfigDict,
    model: EnergyModel,
    batch: Batch,
    key: RandomKey,
    train: bool,
) -> dict[str, Scalar]:
    """Returns the loss of one molecule and its terms, in eV and Å.

    Noise is drawn in training alone.
    """
    settings = Settings(**config.loss)
    structure = all_pairs(batch.positions, batch.species, batch.node_mask)
    mask, wanted = batch.node_mask, batch.vectors[FORCES]
    energy_fn = lambda structure: jnp.sum(model(structure).energy)
    found = predict(energy_fn, structure)
    energy = batch.targets[ENERGY].value
    terms = {
        "energy_error": energy_loss.energy_error(found.energy, energy, mask),
        "force_norm_error": energy_loss.force_error(found.forces, wanted, mask),
        "force_error": energy_loss.component_error(found.forces, wanted, mask),
    }
    total = settings.energy_weight * terms["energy_error"]
    total += settings.force_weight * terms["force_norm_error"]
    if settings.hessian_weight:
        coordinate = batch.targets[COORDINATE].value.astype(jnp.int32)
        column = batch.vectors[COLUMN]
        terms["hessian_error"] = energy_loss.curvature_error(
            energy_fn, structure, coordinate, column
        )
        total += settings.hessian_weight * terms["hessian_error"]
    if settings.noise_weight and train:
        spread = settings.noise_std, settings.noise_share
        moved, told, noise, chosen = energy_loss.corrupt(
            key, structure, wanted, *spread
        )
        guess = model(moved, told).noise
        terms["noise_error"] = energy_loss.noise_error(guess, noise, chosen)
        total += settings.noise_weight * terms["noise_error"]
    return {"weighted_error": total, **terms, "num_steps": jnp.ones(())}
