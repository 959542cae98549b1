"""Brings both sides to one step of time, into units, slow coordinates and states.

A side of a finer spacing keeps all its frames: its distributions are of all of them,
and what depends on the step, such as crossings, is counted from each frame to the one a
step later.
"""

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from common.errors import UsageError
from equijump.data import features
from equijump.data.packed import Lazy
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
        every: number of frames in a step of the common spacing.
        positions: positions in Å, read at each access.
        torsions: torsions in radians, in the order of `geometry.find_torsions`.
        tics: time-lagged independent components, fitted to the reference.
        states: states of Markov models.
    """

    every: int
    positions: Sequence[Float[np.ndarray, "_ num_atoms 3"]]
    torsions: Units
    tics: Units
    states: tuple[Int[np.ndarray, " _"], ...]


class Prepared(NamedTuple):
    """What every measure starts from.

    Attributes:
        system: system of both sides.
        torsions: torsions of the system.
        sides: sides by their names.
        num_runs: trajectories on each side, before a single one is cut into blocks.
        spacing: smallest common multiple of the files' spacings, in ps.
        lags: lags of models in steps of the spacing; the first one also of TICA.
        num_states: number of states of models.
        states: description of the states.
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
        positions=Lazy(replicas.positions.__getitem__, kept),
    )
    return whole, lost


def choose_lags(
    lag: float, spacing: float, units: Mapping[str, inputs.Replicas]
) -> tuple[int, ...]:
    """Returns the lags of models in steps.

    Args:
        lag: first lag in ps; 0 for the least multiple of the spacing from 10 ps on.
        spacing: spacing of a step, in ps.
        units: units of either side.

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
        trajectory: whole replicas.
        reference: reference of the same system.
        lag: first lag, see `choose_lags`.
        seed: seed of clusters.

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
    ends = np.linspace(0, len(replicas.positions[0]), NUM_BLOCKS + 1).astype(int)
    block = lambda rows: replicas.positions[0][slice(*rows)]
    blocks = Lazy(block, list(itertools.pairwise(ends.tolist())))
    names = tuple(f"a tenth of {replicas.names[0]}" for _ in blocks)
    return replicas._replace(names=names, positions=blocks)


def _slow_coordinates(
    replicas: Mapping[str, inputs.Replicas], angles: Mapping[str, Units], lag: int
) -> dict[str, Units]:
    """Fits TICA to the reference; features are distances of a protein, else angles."""
    system = replicas["reference"].system
    if geometry.is_protein(system):
        carbons = geometry.alpha_carbons(system)
        pairs = carbons[features.choose_pairs(len(carbons))]
        function = partial(geometry.distances_of, pairs=pairs)
        units = {name: side.positions for name, side in replicas.items()}
    elif angles["reference"][0].shape[1]:
        function, units = _circular, angles
    else:
        raise UsageError(
            "--reference: expected a system with torsions of heavy atoms, found "
            f"{inputs.describe(system)}"
        )
    dimensions = kinetics.MAX_DIMENSIONS
    tica = features.fit_tica(units["reference"], function, lag, dimensions)
    return {
        name: tuple(features.project(tica, unit, function) for unit in side)
        for name, side in units.items()
    }


def _circular(
    angles: Float[np.ndarray, "num_frames num_angles"],
) -> Float[np.ndarray, "num_frames num_feats"]:
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


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
