"""Brings both sides to one step of time, into units, slow coordinates and states.

A side of a finer spacing keeps all its frames: its distributions are of all of them,
and what depends on the step, such as crossings, is counted from each frame to the one a
step later.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from common.commands.outcome import judge
from common.errors import UsageError
from equijump.data import features
from equijump.data.packed import Lazy
from equijump.data.topology import System
from equijump.evaluate import geometry, inputs, kinetics, validity

NAMES = ("trajectory", "reference")
NUM_BLOCKS = 10
LAG_FACTORS = (1, 2, 5)
"""Lags of models, as multiples of the first."""

FRAMES_PER_FEATURE = 2
"""Frames of the reference for each feature of slow coordinates, at least."""

_LEAST_LAG = 10.0  # ps

Units = tuple[Float[np.ndarray, "_ _"], ...]


Show = Callable[[int, str, str], AbstractContextManager[Callable[..., None]]]
"""Shows a stage of so many units of work: `common.commands.progress.progress`."""


def there(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the sides that an entry of a report has.

    >>> there({"trajectory": 1.0}), there({"trajectory": {}, "reference": None})
    (('trajectory',), ('trajectory',))
    """
    return tuple(name for name in NAMES if entry.get(name) is not None)


@contextlib.contextmanager
def silent(total: int, description: str, unit: str) -> Iterator[Callable[..., None]]:
    """Shows no progress."""
    del total, description, unit
    yield lambda count=1: None


class Watched(Sequence):
    """Units whose frames are counted while they are gone through.

    >>> counts = []
    >>> for _ in Watched([np.zeros(3), np.zeros(2)], counts.append):
    ...     pass
    >>> counts
    [3, 2]
    """

    def __init__(self, units: Sequence[Any], advance: Callable[..., None]) -> None:
        self._units, self._advance = units, advance

    def __len__(self) -> int:
        return len(self._units)

    def __getitem__(self, index: Any) -> Any:
        return self._units[index]

    def __iter__(self) -> Iterator[Any]:
        for unit in self._units:
            yield unit
            self._advance(len(unit))


class Side(NamedTuple):
    """One side, unit by unit.

    Attributes:
        every: number of frames in a step of the common spacing.
        positions: positions in Å, read at each access.
        torsions: torsions in radians, in the order of `geometry.find_torsions`, those
            of symmetric groups folded.
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
    replicas: inputs.Replicas, reference: inputs.Replicas, show: Show = silent
) -> tuple[inputs.Replicas, list[validity.Lost]]:
    """Leaves out replicas that broke; see `validity.find_loss`.

    Raises:
        RunError: All of them did.
    """
    total = _num_frames({"trajectory": replicas, "reference": reference})
    with show(total, "broken bonds", "frames") as advance:
        theirs, ours = (
            Watched(side.positions, advance) for side in (reference, replicas)
        )
        lengths = validity.mean_lengths(theirs, reference.system.bonds)
        found = [
            validity.find_loss(name, positions, replicas.system, lengths)
            for name, positions in zip(replicas.names, ours, strict=True)
        ]
    lost = [loss for loss in found if loss is not None]
    if lost:
        first = f"{lost[0].name} has {lost[0].reason} in frame {lost[0].frame}; "
        first += (
            "leave out what follows"
            if lost[0].frame
            else "does --topology list its atoms in their order?"
        )
        judge(len(found) - len(lost), len(found), "replicas stayed whole", first)
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
        lag: first lag in ps; 0 for the least multiple of the spacing from 10 ps on, or
            what fits twice into the shortest unit if that is less.
        spacing: spacing of a step, in ps.
        units: units of either side.

    Raises:
        UsageError: The lag is no multiple of the spacing, or a unit is too short.
    """
    sizes = [
        len(x) // round(spacing / r.spacing)
        for r in units.values()
        for x in r.positions
    ]
    usual = np.ceil(_LEAST_LAG / spacing - 1e-6)
    # Short trajectories have a shorter lag, if two of them fit at all.
    first = lag / spacing if lag else max(min(usual, (min(sizes) - 1) // 2), 1)
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
                    f"{replicas.spacing:g} ps, two lags of {first * spacing:g} ps, "
                    f"found {len(positions)} in {name}; give a smaller --lag or longer "
                    "trajectories"
                )
            shortest = min(shortest, len(positions) // every)
    lags = [factor * round(first) for factor in LAG_FACTORS]
    return tuple(lag for lag in lags if 2 * lag < shortest)


def prepare(
    trajectory: inputs.Replicas,
    reference: inputs.Replicas,
    lag: float,
    seed: int,
    show: Show = silent,
) -> Prepared:
    """Cuts into units, and finds slow coordinates and states.

    Args:
        trajectory: whole replicas.
        reference: reference of the same system.
        lag: first lag, see `choose_lags`.
        seed: seed of clusters.
        show: function that shows the progress of a stage, see `Show`.

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
    symmetric = geometry.find_symmetric(system, torsions)
    folded = lambda x, atoms: geometry.folded(geometry.torsions_of(x, atoms), symmetric)
    measured = partial(geometry.over_frames, folded)
    with show(_num_frames(cut), "torsions", "frames") as advance:
        angles = {
            name: tuple(
                measured(x, torsions.atoms) for x in Watched(side.positions, advance)
            )
            for name, side in cut.items()
        }
    try:
        lag = lags[0] * every["reference"]
        tics, of_what = _slow_coordinates(cut, angles, lag, show)
    except UsageError as error:
        flag = "trajectory" if trajectory is reference else "reference"
        raise UsageError(f"--{flag}: {error}") from error
    states, num_states, what = find_states(torsions, angles, tics, seed, of_what, lag)
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
    replicas: Mapping[str, inputs.Replicas],
    angles: Mapping[str, Units],
    lag: int,
    show: Show,
) -> tuple[dict[str, Units], str]:
    """Fits TICA to the reference; returns components of both sides, and of what.

    Features are distances of a protein, at most one for `FRAMES_PER_FEATURE` frames of
    the reference, else angles.
    """
    system = replicas["reference"].system
    if geometry.is_protein(system):
        carbons = geometry.alpha_carbons(system)
        num_frames = sum(map(len, replicas["reference"].positions))
        at_most = min(features.MOST_PAIRS, max(1, num_frames // FRAMES_PER_FEATURE))
        pairs = carbons[features.choose_pairs(len(carbons), at_most)]
        function = partial(geometry.distances_of, pairs=pairs)
        units = {name: side.positions for name, side in replicas.items()}
        count = len(carbons) * (len(carbons) - 1) // 2
        what = f"{len(pairs)} of {count} CA distances"
    elif angles["reference"][0].shape[1]:
        turns = 1.0 + geometry.find_symmetric(system, geometry.find_torsions(system))
        function, units, what = partial(_circular, turns=turns), angles, "torsions"
    else:
        raise UsageError(
            "expected a system with torsions of heavy atoms, found "
            f"{inputs.describe(system)}"
        )
    dimensions = kinetics.MAX_DIMENSIONS
    total = _num_frames(replicas) + sum(map(len, units["reference"]))
    with show(total, "slow coordinates", "frames") as advance:
        watched = {name: Watched(side, advance) for name, side in units.items()}
        tica = features.fit_tica(watched["reference"], function, lag, dimensions)
        return {
            name: tuple(features.project(tica, unit, function) for unit in side)
            for name, side in watched.items()
        }, what


def _num_frames(replicas: Mapping[str, inputs.Replicas]) -> int:
    return sum(len(x) for side in replicas.values() for x in side.positions)


def _circular(
    angles: Float[np.ndarray, "num_frames num_angles"],
    turns: Float[np.ndarray, " num_angles"],
) -> Float[np.ndarray, "num_frames num_feats"]:
    """Returns cos and sin, of twice an angle that is alike after half a turn."""
    angles = angles * turns.astype(angles.dtype)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def find_states(
    torsions: geometry.Torsions,
    angles: Mapping[str, Units],
    tics: Mapping[str, Units],
    seed: int,
    of_what: str,
    lag: int,
) -> tuple[dict[str, Any], int, str]:
    """Assigns frames to cells of phi and psi, or to clusters of slow coordinates.

    Args:
        torsions: torsions of the system.
        angles: their angles, by side and unit.
        tics: slow coordinates, by side and unit.
        seed: seed of the clusters.
        of_what: what the slow coordinates are of, in words.
        lag: lag of models in frames of the reference.

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
    clusters = kinetics.connected_clusters(tics["reference"], seed, lag)
    states = {
        name: tuple(clusters.transform(unit, n_jobs=1) for unit in units)
        for name, units in tics.items()
    }
    count = clusters.n_clusters
    dimensions = tics["reference"][0].shape[1]
    what = f"{count} k-means clusters in {dimensions} TICs of {of_what}"
    return states, count, what
