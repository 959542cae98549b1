"""Brings both sides to one step of time, into units, slow coordinates and states.

A side of a finer spacing keeps all its frames: its distributions are of all of them,
and what depends on the step, such as crossings, is counted from each frame to the one a
step later.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from common.errors import UsageError
from equijump.data.topology import System
from equijump.evaluate import geometry, inputs, kinetics, validity

NAMES = ("trajectory", "reference")
NUM_BLOCKS = 10
LAG_FACTORS = (1, 2, 5)
"""Lags of models, as multiples of the first."""

_LEAST_LAG = 10.0  # ps

Units = tuple[Float[np.ndarray, "_ _"], ...]


class Side(NamedTuple):
    """One side, unit by unit.

    Attributes:
        every: Frames in a step of the common spacing.
        positions: Å.
        torsions: Radians, in the order of `geometry.find_torsions`.
        tics: Time-lagged independent components, fitted to the reference.
        states: Of Markov models.
    """

    every: int
    positions: tuple[Float[np.ndarray, "_ num_atoms 3"], ...]
    torsions: Units
    tics: Units
    states: tuple[Int[np.ndarray, " _"], ...]


class Prepared(NamedTuple):
    """What every measure starts from.

    Attributes:
        system: Of both sides.
        torsions: Of the system.
        sides: By their names.
        num_runs: Trajectories on each side, before a single one is cut into blocks.
        spacing: ps, the smallest common multiple of those of the files.
        lags: Steps of the spacing, of models; the first one also of TICA.
        num_states: Of models.
        states: What they are, in words.
    """

    system: System
    torsions: geometry.Torsions
    sides: dict[str, Side]
    num_runs: dict[str, int]
    spacing: float
    lags: tuple[int, ...]
    num_states: int
    states: str


def keep_whole(
    replicas: inputs.Replicas, reference: inputs.Replicas
) -> tuple[inputs.Replicas, list[validity.Lost]]:
    """Leaves out replicas that broke; see `validity.find_loss`.

    Raises:
        UsageError: All of them did.
    """
    lengths = validity.mean_lengths(reference.positions, reference.system.bonds)
    found = [
        validity.find_loss(name, positions, replicas.system, lengths)
        for name, positions in zip(replicas.names, replicas.positions, strict=True)
    ]
    lost = [loss for loss in found if loss is not None]
    if len(lost) == len(found):
        raise UsageError(
            f"--trajectory: expected a replica that stays whole, found none of "
            f"{len(found)}: {lost[0].name} has {lost[0].reason} in frame "
            f"{lost[0].frame}"
        )
    kept = [index for index, loss in enumerate(found) if loss is None]
    whole = replicas._replace(
        names=tuple(replicas.names[index] for index in kept),
        positions=tuple(replicas.positions[index] for index in kept),
    )
    return whole, lost


def choose_lags(
    lag: float, spacing: float, units: Mapping[str, inputs.Replicas]
) -> tuple[int, ...]:
    """Returns the lags of models in steps.

    Args:
        lag: ps, the first; 0 for the least multiple of the spacing from 10 ps on.
        spacing: ps, of a step.
        units: Of either side.

    Raises:
        UsageError: The lag is no multiple of the spacing, or a unit is too short.
    """
    first = lag / spacing if lag else np.ceil(_LEAST_LAG / spacing - 1e-6)
    if round(first) < 1 or abs(first - round(first)) > 1e-3:
        raise UsageError(
            f"--lag: expected a multiple of {spacing:g} ps, the smallest common "
            f"multiple of the spacings, found {lag:g} ps"
        )
    shortest = np.inf
    for side, replicas in units.items():
        every = round(spacing / replicas.spacing)
        for name, positions in zip(replicas.names, replicas.positions, strict=True):
            least = 2 * round(first) * every
            if len(positions) <= least:
                raise UsageError(
                    f"--{side}: expected more than {least} frames of "
                    f"{replicas.spacing:g} ps, two lags, found {len(positions)} in "
                    f"{name}"
                )
            shortest = min(shortest, len(positions) // every)
    lags = [factor * round(first) for factor in LAG_FACTORS]
    return tuple(lag for lag in lags if 2 * lag < shortest)


def prepare(
    trajectory: inputs.Replicas, reference: inputs.Replicas, lag: float, seed: int
) -> Prepared:
    """Cuts into units, and finds slow coordinates and states.

    Args:
        trajectory: Whole replicas.
        reference: Of the same system.
        lag: See `choose_lags`.
        seed: Of clusters.

    Raises:
        UsageError: See `choose_lags`; or the system has no torsions.
    """
    system = reference.system
    spacing = inputs.common_spacing(trajectory.spacing, reference.spacing)
    replicas = {"trajectory": trajectory, "reference": reference}
    every = {name: round(spacing / side.spacing) for name, side in replicas.items()}
    cut = {name: _cut(side) for name, side in replicas.items()}
    lags = choose_lags(lag, spacing, cut)
    torsions = geometry.find_torsions(system)
    angles = {
        name: tuple(geometry.torsions_of(x, torsions.atoms) for x in side.positions)
        for name, side in cut.items()
    }
    tics = _slow_coordinates(cut, angles, lags[0] * every["reference"])
    states, num_states, what = find_states(torsions, angles, tics, seed)
    sides = {
        name: Side(
            every[name], cut[name].positions, angles[name], tics[name], states[name]
        )
        for name in NAMES
    }
    num_runs = {name: len(side.positions) for name, side in replicas.items()}
    return Prepared(system, torsions, sides, num_runs, spacing, lags, num_states, what)


def _cut(replicas: inputs.Replicas) -> inputs.Replicas:
    """Cuts a single trajectory into blocks of time."""
    if len(replicas.positions) > 1:
        return replicas
    blocks = tuple(np.array_split(replicas.positions[0], NUM_BLOCKS))
    names = tuple(f"a tenth of {replicas.names[0]}" for _ in blocks)
    return replicas._replace(names=names, positions=blocks)


def _slow_coordinates(
    replicas: Mapping[str, inputs.Replicas], angles: Mapping[str, Units], lag: int
) -> dict[str, Units]:
    """Fits TICA to the reference; features are distances of a protein, else angles."""
    system = replicas["reference"].system
    if geometry.is_protein(system):
        features = {name: _carbon_distances(side) for name, side in replicas.items()}
    else:
        features = {name: _circular(units) for name, units in angles.items()}
    if features["reference"][0].shape[1] == 0:
        raise UsageError(
            "--reference: expected a system with torsions of heavy atoms, found "
            f"{inputs.describe(system)}"
        )
    tica = kinetics.fit_tica(features["reference"], lag)
    return {
        name: tuple(tica.transform(unit) for unit in units)
        for name, units in features.items()
    }


def _circular(units: Units) -> Units:
    return tuple(np.concatenate([np.cos(x), np.sin(x)], axis=1) for x in units)


def _carbon_distances(replicas: inputs.Replicas) -> Units:
    carbons = geometry.alpha_carbons(replicas.system)
    pairs = geometry.all_pairs(len(carbons))
    return tuple(
        geometry.distances_of(positions[:, carbons], pairs)
        for positions in replicas.positions
    )


def find_states(
    torsions: geometry.Torsions,
    angles: Mapping[str, Units],
    tics: Mapping[str, Units],
    seed: int,
) -> tuple[dict[str, Any], int, str]:
    """Assigns frames to cells of phi and psi, or to clusters of slow coordinates.

    Returns:
        The states of either side unit by unit, their number, and what they are. Cells
        that neither side visits have no number.
    """
    pairs = geometry.pairs_of_phi_and_psi(torsions)
    if len(pairs) == 1:
        ((phi, psi),) = pairs.values()
        found = {
            name: [kinetics.cells_of(unit[:, phi], unit[:, psi]) for unit in units]
            for name, units in angles.items()
        }
        visited = np.unique(
            np.concatenate([x for units in found.values() for x in units])
        )
        states = {
            name: tuple(np.searchsorted(visited, unit) for unit in units)
            for name, units in found.items()
        }
        cells = f"{kinetics.NUM_CELLS} x {kinetics.NUM_CELLS}"
        return states, len(visited), f"cells of a grid of {cells} in phi and psi"
    clusters = kinetics.fit_clusters(tics["reference"], seed)
    states = {
        name: tuple(clusters.transform(unit, n_jobs=1) for unit in units)
        for name, units in tics.items()
    }
    count = clusters.n_clusters
    dimensions = tics["reference"][0].shape[1]
    return states, count, f"{count} k-means clusters in {dimensions} TICs"
