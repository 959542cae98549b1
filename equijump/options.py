"""What is asked of the sampler besides the weights, checked. Positions are in Å."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from common.errors import UsageError
from equijump import build
from equijump.data import frames
from equijump.data.pairs import ENSEMBLE_LAG, time_of
from equijump.data.topology import System
from equijump.model import ROOM_TEMPERATURE
from equijump.weights import Molecule, Weights

MAX_REPLICAS = 10_000
MAX_STEPS = 1_000
MAX_REDRAWS = 10


class Options(NamedTuple):
    """What decides the rollouts of a seed, besides the weights.

    Attributes:
        name: Of the system.
        system: What is rolled out.
        starts: Å, first frame of each replica.
        lag: ps; `ENSEMBLE_LAG` for frames that are independent of each other.
        temperature: K.
        num_steps: Evaluations of the network in a jump.
        method: Of the transport's samplers.
        every: Jumps from one frame that is kept to the next.
        max_redraws: Of the gate; None for no gate.
    """

    name: str
    system: System
    starts: Float32[np.ndarray, "num_replicas num_atoms 3"]
    lag: float
    temperature: float
    num_steps: int
    method: str
    every: int
    max_redraws: int | None

    @property
    def frame_time(self) -> float:
        """Returns ps from frame to frame; those of an ensemble are a ps apart."""
        return self.every * time_of(self.lag)


def choose(
    weights: Weights,
    replicas: int = 1,
    lag: float | None = None,
    num_steps: int | None = None,
    start: Any = None,
    topology: str | os.PathLike[str] | None = None,
    system: str | None = None,
    every: int = 1,
    gate: bool = True,
    max_redraws: int = MAX_REDRAWS,
    temperature: float | None = None,
    method: str | None = None,
    ensemble: bool = False,
) -> Options:
    """Checks what is asked of a sampler.

    Args:
        weights: The trained model.
        replicas: Trajectories side by side.
        lag: ps, of a jump; the first of the config's where None.
        num_steps: Evaluations of the network in a jump; the config's where None.
        start: A file with one structure or several, or a list of such files, or a
            trajectory of MDTraj. Replicas take them in turn. Where None, frames that
            come with the weights.
        topology: For files of `start` that have none.
        system: Name of a system of the weights, where they have several.
        every: Jumps from one frame that is kept to the next.
        gate: Whether jumps that break the geometry are drawn again.
        max_redraws: How often; then the replica stays where it is.
        temperature: K; the first of the config's where None.
        method: One of the transport's samplers; the config's where None.
        ensemble: Whether each frame is drawn by itself, whatever was before it.

    Raises:
        UsageError: A value is out of range, or a start cannot be used.
    """
    config = weights.config
    num_steps = config.sample.num_steps if num_steps is None else num_steps
    for name, value, smallest, largest in (
        ("replicas", replicas, 1, MAX_REPLICAS),
        ("num_steps", num_steps, 2, MAX_STEPS),
        ("every", every, 1, 1_000_000),
        ("max_redraws", max_redraws, 0, 1_000),
    ):
        if not smallest <= value <= largest:
            raise UsageError(
                f"--{name}: expected {smallest} to {largest}, found {value}"
            )
    lag = _check_ensemble(config.data) if ensemble else _check_lag(config.data, lag)
    chosen, molecule = _find(weights, system, start, topology, replicas)
    starts = molecule.starts[np.arange(replicas) % len(molecule.starts)]
    return Options(
        name=chosen,
        system=molecule.system,
        starts=starts,
        lag=lag,
        temperature=_check_temperature(config, temperature),
        num_steps=num_steps,
        method=_check_method(config, method),
        every=every,
        max_redraws=max_redraws if gate else None,
    )


def _check_method(config: Any, method: str | None) -> str:
    """Returns the name of a sampler that the transport has."""
    known = build.TRANSPORTS[config.transport.kind].METHODS
    method = method or config.sample.method or known[0]
    if method not in known:
        raise UsageError(
            f"--method: expected one of {', '.join(known)}, found {method}"
        )
    return method


def _check_temperature(config: Any, temperature: float | None) -> float:
    """Returns the temperature, if the network was trained for it."""
    known = tuple(map(float, config.data.temperatures)) or (ROOM_TEMPERATURE,)
    if temperature is None:
        return known[0]
    coldest, hottest = min(known), max(known)
    if not coldest <= temperature <= hottest:
        raise UsageError(
            f"--temperature: expected {coldest:g} to {hottest:g} K, for which the "
            f"network was trained, found {temperature:g}"
        )
    if not config.model.has_temperature and temperature != known[0]:
        raise UsageError(
            f"--temperature: expected {known[0]:g} K, since the network is not told "
            f"the temperature, found {temperature:g}"
        )
    return float(temperature)


def _check_lag(config: Any, lag: float | None) -> float:
    """Returns the lag, if the network was trained for it."""
    known = tuple(map(float, config.lags))
    if lag is None:
        return known[0]
    if config.log_uniform:
        if not known[0] <= lag <= known[-1]:
            raise UsageError(
                f"--lag: expected {known[0]:g} to {known[-1]:g} ps, for which the "
                f"network was trained, found {lag:g}"
            )
    elif not any(np.isclose(lag, known, rtol=1e-6)):
        listed = ", ".join(f"{value:g}" for value in known)
        raise UsageError(
            f"--lag: expected {listed} ps, for which the network was trained, found "
            f"{lag:g}"
        )
    return float(lag)


def _check_ensemble(config: Any) -> float:
    """Returns the lag of an ensemble, if the network was trained for it."""
    if not config.ensemble_share:
        raise UsageError(
            "--ensemble: expected weights trained with config.data.ensemble_share "
            "above 0, found 0"
        )
    return ENSEMBLE_LAG


def _find(
    weights: Weights,
    name: str | None,
    start: Any,
    topology: str | os.PathLike[str] | None,
    at_most: int,
) -> tuple[str, Molecule]:
    """Returns the system that is asked for, and the starts."""
    known = weights.molecules
    if name is not None and name not in known:
        raise UsageError(f"--system: expected one of {', '.join(known)}, found {name}")
    if name is not None:
        known = {name: known[name]}
    if start is None:
        if len(known) > 1:
            raise UsageError(
                f"expected --start, or --system as one of {', '.join(known)}; found "
                "neither"
            )
        return next(iter(known.items()))
    if hasattr(start, "xyz"):
        found = [("start", *frames.of_mdtraj(start, "start", at_most))]
    else:
        is_one = isinstance(start, str | os.PathLike)
        given: Sequence[Any] = [start] if is_one else start
        found = [(p, *frames.read_structures(p, topology, at_most)) for p in given]
    matched = [_match(known, *one) for one in found]
    name = matched[0][0]
    for (path, _, _), (other, _) in zip(found, matched, strict=True):
        if other != name:
            raise UsageError(f"{path}: expected {name} as in the first, found {other}")
    starts = np.concatenate([positions for _, positions in matched])
    return name, Molecule(known[name].system, starts)


def _match(
    known: dict[str, Molecule],
    path: str | os.PathLike[str],
    system: System,
    positions: Float32[np.ndarray, "num_frames num_atoms 3"],
) -> tuple[str, Float32[np.ndarray, "num_frames num_atoms 3"]]:
    """Returns the trained system of some structures, and them in its order of atoms."""
    for name, (trained, _) in known.items():
        if _is_same(trained, system):
            filled = trained.slot_atoms >= 0
            ordered = np.empty_like(positions)
            ordered[:, trained.slot_atoms[filled]] = positions[
                :, system.slot_atoms[filled]
            ]
            return name, ordered
    listed = "; ".join(f"{name}: {_sequence(m.system)}" for name, m in known.items())
    raise UsageError(
        f"{path}: expected a system that the network was trained on ({listed}), found "
        f"{_sequence(system)}"
    )


def _is_same(trained: System, system: System) -> bool:
    """Compares residues and chains; names and numbers in files may differ."""
    numbered = lambda chains: np.unique(chains, return_inverse=True)[1]
    return np.array_equal(trained.tokens, system.tokens) and np.array_equal(
        numbered(trained.chains), numbered(system.chains)
    )


def _sequence(system: System) -> str:
    names = system.residue_names
    shown = "-".join(names[:12])
    return f"{shown}-... ({len(names)} residues)" if len(names) > 12 else shown
