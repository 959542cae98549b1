"""What is asked of the sampler besides the weights, checked. Positions are in Å."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
from absl import logging
from jaxtyping import Float32

from common.errors import UsageError
from common.nn.conditions import CONDITIONS, ROOM_TEMPERATURE
from equijump import build, starts, steering
from equijump.data.residues import NUM_TYPES
from equijump.data.topology import System
from equijump.weights import Molecule, Weights

MAX_REPLICAS = 10_000
MAX_STEPS = 1_000
MAX_REDRAWS = 10


class Options(NamedTuple):
    """What decides the rollouts of a seed, besides the weights.

    Attributes:
        name: name of the system.
        system: molecule that is rolled out.
        starts: first frame of each replica, in Å.
        conditions: numbers that the network is given: the lag in ps, none for frames
            that are independent of each other; the temperature in K; and others.
        num_steps: evaluations of the network in a jump.
        method: one of the transport's samplers.
        every: jumps from one frame that is kept to the next.
        max_redraws: redraws of the gate; None for no gate.
        cloud: kind of cloud that the network sees, see `equijump.cloud`.
        outside: what lies outside the training of the weights, in words.
        repulsion: least distances of atoms in units of `equijump.steering.RADII`; 0 for
            none.
    """

    name: str
    system: System
    starts: Float32[np.ndarray, "num_replicas num_atoms 3"]
    conditions: dict[str, float]
    num_steps: int
    method: str
    every: int
    max_redraws: int | None
    cloud: str = "ca"
    outside: tuple[str, ...] = ()
    repulsion: float = 0.0

    @property
    def frame_time(self) -> float:
        """Returns ps from frame to frame; those of an ensemble are a ps apart."""
        return self.every * self.conditions.get("lag", 1.0)


class Request(TypedDict, total=False):
    """Keywords of `choose` that a user may give; it documents them."""

    lag: float | None
    num_steps: int | None
    start: Any
    topology: str | os.PathLike[str] | None
    sequence: str | None
    add_caps: bool | None
    system: str | None
    every: int
    gate: bool
    max_redraws: int
    repulsion: float | None
    temperature: float | None
    method: str | None
    ensemble: bool
    conditions: Mapping[str, float] | None
    select: str


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
    repulsion: float | None = None,
    temperature: float | None = None,
    method: str | None = None,
    ensemble: bool = False,
    conditions: Mapping[str, float] | None = None,
    select: str = "",
    sequence: str | None = None,
    add_caps: bool | None = None,
    seed: int = 0,
    given: Sequence[starts.Given] | None = None,
) -> Options:
    """Checks what is asked of a sampler.

    Args:
        weights: trained model.
        replicas: number of trajectories side by side.
        lag: time of a jump in ps; the first of the config's where None.
        num_steps: evaluations of the network in a jump; the config's where None.
        start: file with one structure or several, or a list of such files, or a
            trajectory of MDTraj. Replicas go round the files, one structure of each in
            turn. Where None, frames that come with the weights.
        topology: topology for files of `start` that have none.
        system: name of a system of the weights, where they have several.
        every: jumps from one frame that is kept to the next.
        gate: true to draw jumps again that break the geometry.
        max_redraws: largest number of redraws; then the replica stays where it is.
        repulsion: least distances that atoms of other residues are kept at, in units
            of those of `equijump.steering`; 0 for none; the config's where None.
        temperature: temperature in K; of one outside the training the nearest that
            the network knows, with a warning. Where None it is the first of the
            config's, or that of training nearest to room temperature.
        method: one of the transport's samplers; the config's where None.
        ensemble: true to draw each frame by itself, whatever was before it.
        conditions: other numbers that the network is given, by their names in
            `common.nn.conditions.CONDITIONS`.
        select: atoms of `start` that are read, in MDTraj's selection language; all
            where empty.
        sequence: one-letter codes of a peptide whose starts are built, another one
            for each replica.
        add_caps: true to put ACE and NME on free ends; by default of a sequence, but
            not of a start.
        seed: seed of starts that are built.
        given: starts as `equijump.starts.take` returns them, where they were read
            before the weights were chosen.

    Raises:
        UsageError: A value is out of range, or a start cannot be used.
    """
    config = weights.config
    num_steps = config.sample.num_steps if num_steps is None else num_steps
    _check_numbers(
        replicas=replicas, num_steps=num_steps, every=every, max_redraws=max_redraws
    )
    asked = dict(conditions or {})
    if temperature is not None:
        asked["temperature"] = temperature
    numbers = _check_lag(weights, lag, ensemble) | _check_conditions(weights, asked)
    if given is None:
        request = starts.Request(start, topology, select, sequence, add_caps)
        given = starts.take(request, replicas, seed)
    known = config.model.residue_types or NUM_TYPES
    chosen, molecule, outside = _find(weights, system, given, replicas, known)
    outside += _other_temperature(weights, asked.get("temperature"), numbers)
    return Options(
        name=chosen,
        system=molecule.system,
        starts=molecule.starts[np.arange(replicas) % len(molecule.starts)],
        conditions=numbers,
        num_steps=num_steps,
        method=_check_method(config, method),
        every=every,
        max_redraws=max_redraws if gate else None,
        repulsion=_check_repulsion(config, repulsion),
        cloud=config.model.cloud,
        outside=tuple(outside),
    )


_START = ("start", "topology", "select", "sequence", "add_caps")


def take_starts(
    asked: dict[str, Any], replicas: int, seed: int
) -> tuple[list[starts.Given], dict[str, Any]]:
    """Reads or builds the starts that are asked for, before weights are chosen.

    Args:
        asked: keywords of `choose`.
        replicas: number of replicas.
        seed: seed of starts that are built.

    Returns:
        The starts, and the other keywords.
    """
    _check_numbers(replicas=replicas, seed=seed)
    wanted = {name: asked[name] for name in _START if name in asked}
    given = starts.take(starts.Request(**wanted), replicas, seed)
    return given, {k: v for k, v in asked.items() if k not in _START}


_RANGES = {
    "replicas": (1, MAX_REPLICAS),
    "num_steps": (2, MAX_STEPS),
    "every": (1, 1_000_000),
    "max_redraws": (0, 1_000),
    "seed": (0, 2**32 - 1),
}


def _check_numbers(**values: int) -> None:
    for name, value in values.items():
        smallest, largest = _RANGES[name]
        if not smallest <= value <= largest:
            raise UsageError(
                f"--{name}: expected {smallest} to {largest}, found {value}"
            )


def _check_repulsion(config: Any, repulsion: float | None) -> float:
    """Returns the repulsion, which needs a transport that tells the end of a jump."""
    repulsion = config.sample.repulsion if repulsion is None else repulsion
    most, kind = steering.MAX_REPULSION, config.transport.kind
    if not 0.0 <= repulsion <= most:
        raise UsageError(f"--repulsion: expected 0 to {most:g}, found {repulsion:g}")
    if repulsion and build.TRANSPORTS[kind].HEADS != ("end",):
        raise UsageError(
            f"--repulsion: expected 0 with {kind}, which does not tell the end of a "
            f"jump, found {repulsion:g}"
        )
    return repulsion


def _check_method(config: Any, method: str | None) -> str:
    """Returns the name of a sampler that the transport has."""
    known = build.TRANSPORTS[config.transport.kind].METHODS
    method = method or config.sample.method or known[0]
    if method not in known:
        raise UsageError(
            f"--method: expected one of {', '.join(known)}, found {method}"
        )
    return method


def _check_conditions(weights: Weights, asked: Mapping[str, float]) -> dict[str, float]:
    """Returns the numbers that the network is given besides the lag, all of them."""
    given = weights.config.model.conditions
    names = [name for name in given if name not in ("lag", "temperature")]
    for name in asked:
        if name not in ("temperature", *names):
            raise UsageError(
                f"--condition: expected one of {', '.join(['temperature', *names])}, "
                f"which the network is given, found {name}"
            )
    chosen = {"temperature": _check_temperature(weights, asked.get("temperature"))}
    for name in names:
        row, value = CONDITIONS[name], asked.get(name)
        low, high = weights.ranges.get(name, (row.low, row.high))
        if value is None or not low <= value <= high:
            raise UsageError(
                f"--condition: expected {name}={low:g} to {high:g} {row.unit}, for "
                "which the network was trained, found "
                f"{'none' if value is None else value}"
            )
        chosen[name] = float(value)
    return chosen


def _check_temperature(weights: Weights, temperature: float | None) -> float:
    """Returns the temperature, or the nearest that the network was trained for."""
    row = CONDITIONS["temperature"]
    if temperature is not None and not row.low <= temperature <= row.high:
        raise UsageError(
            f"--temperature: expected {row.low:g} to {row.high:g} K, found "
            f"{temperature:g}"
        )
    listed = tuple(map(float, weights.config.data.temperatures))
    known = weights.ranges.get("temperature", listed or (ROOM_TEMPERATURE,))
    low, high = min(known), max(known)
    usual = listed[0] if listed else min(max(ROOM_TEMPERATURE, low), high)
    is_given = "temperature" in weights.config.model.conditions
    if temperature is None or not is_given:
        return usual
    return float(min(max(temperature, low), high))


def _other_temperature(
    weights: Weights, asked: float | None, numbers: Mapping[str, float]
) -> list[str]:
    """Returns in words where a rollout is not at the temperature asked for, and warns.

    A network is not asked for what it never saw: its answer would mean nothing.
    """
    used = numbers["temperature"]
    if asked is None or asked == used:
        return []
    why = "the nearest of its training"
    if "temperature" not in weights.config.model.conditions:
        why = "since the network is not told the temperature"
    logging.warning(
        "--temperature=%g: the rollout of %s is at %g K, %s; train on data at %g K",
        asked, weights.name, used, why, asked,
    )  # fmt: skip
    return [f"temperature of {asked:g} K (rolled out at {used:g} K)"]


def _check_ensemble(weights: Weights) -> None:
    """Raises `UsageError` for weights that cannot draw frames of the ensemble."""
    if not weights.config.data.ensemble_share:
        raise UsageError(
            "--ensemble: expected weights trained with config.data.ensemble_share "
            "above 0, found 0"
        )
    if not weights.ranges:  # The network was given a hidden source as a lag of 1 µs.
        raise UsageError(
            f"--ensemble: expected weights of version 0.2.0 or later, found earlier "
            f"ones in {weights.name}; version 0.1.0 reads them"
        )


def _check_lag(weights: Weights, lag: float | None, ensemble: bool) -> dict[str, float]:
    """Returns the lag, if the network was trained for it; none for an ensemble."""
    if ensemble:
        _check_ensemble(weights)
        return {}
    data = weights.config.data
    known = tuple(dict.fromkeys(map(float, data.lags)))  # Some come more often.
    lag = known[0] if lag is None else lag
    listed = ", ".join(f"{value:g}" for value in dict.fromkeys(known))
    fits = any(np.isclose(lag, known, rtol=1e-6))
    if data.log_uniform:
        listed = f"{known[0]:g} to {known[-1]:g}"
        fits = known[0] <= lag <= known[-1]
    if not fits:
        raise UsageError(
            f"--lag: expected {listed} ps, for which the network was trained, found "
            f"{lag:g}"
        )
    return {"lag": float(lag)}


def _find(
    weights: Weights,
    name: str | None,
    given: Sequence[starts.Given],
    replicas: int,
    num_types: int,
) -> tuple[str, Molecule, list[str]]:
    """Returns the system that is asked for, and the starts; see `starts.serve`."""
    molecules = weights.molecules
    if name is not None and name not in molecules:
        raise UsageError(
            f"--system: expected one of {', '.join(molecules)}, found {name}"
            if molecules
            else f"--system: expected --start or --sequence instead, since "
            f"{weights.name} has no systems of its own, found {name}"
        )
    if given:
        if name is not None:
            molecules = {name: molecules[name]}
            weights = weights._replace(transferable=None)
        return starts.serve(weights, molecules, given, replicas, num_types)
    if name is None and len(molecules) != 1:
        if not molecules:
            raise UsageError(
                f"expected --sequence or --start, since {weights.name} has no systems "
                "of its own, found neither"
            )
        listed = ", ".join(list(molecules)[:20])
        more = f" and {len(molecules) - 20} more" if len(molecules) > 20 else ""
        also = ", --sequence" if weights.transferable else ""
        raise UsageError(
            f"expected --start{also}, or --system as one of {listed}{more}; found "
            "neither"
        )
    chosen = name or next(iter(molecules))
    return chosen, molecules[chosen], []
