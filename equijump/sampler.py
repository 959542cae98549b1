"""The sampler of trajectories behind `equijump.load` and `equijump sample`.

Replica `i` of a seed is the same however many run beside it. Frame 0 is the start,
frame `k` lies `k * every` jumps later. Positions are in Å and times in ps.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from absl import logging
from jaxtyping import Float32

from common.commands import cli
from common.commands.environment import pinned, step_by_step
from common.errors import RunError, UsageError
from equijump import outcome, rollout
from equijump.data.frames import ANGSTROM_PER_NM
from equijump.data.topology import to_topology
from equijump.options import Options, Request, choose, take_starts
from equijump.outcome import Summary
from equijump.rollout import Chunk, Plan, State
from equijump.starts import default_for
from equijump.weights import Weights, load_weights, make_jump, packaged_names

if TYPE_CHECKING:
    import mdtraj

CHUNK = 100
"""Frames in memory at a time, and between two writes."""


class Sampler:
    """Trained weights, and two ways to draw trajectories from them.

    Attributes:
        weights: trained model.
        summary: figures of the last call of `sample`, or of `stream` as far as its
            frames came: draws that passed the gate, replicas that moved, what broke,
            how far to trust it. None before the first of them.
        dynamics: dynamics that were learnt, in words; empty where it is not stated.
    """

    def __init__(self, weights: Weights, picks: bool = False) -> None:
        """Takes weights, and whether others are picked for what they cannot serve."""
        self.weights = weights
        self.summary: Summary | None = None
        self._picks = picks
        self._load = functools.cache(load_weights)
        self._jump = functools.cache(
            lambda name, *how: make_jump(self._named(name), *how)
        )

    @property
    def dynamics(self) -> str:
        """Returns the dynamics that were learnt, in words."""
        return self.weights.dynamics

    def _named(self, name: str) -> Weights:
        return self.weights if name == self.weights.name else self._load(name)

    def sample(
        self, num_jumps: int, replicas: int = 1, seed: int = 0, **asked: Unpack[Request]
    ) -> "list[mdtraj.Trajectory]":
        """Returns a trajectory of MDTraj for each replica, its heavy atoms.

        Where the command would warn or fail, since few draws passed the gate, few
        replicas moved or their geometry broke, it warns; `summary` has the figures.

        Args:
            num_jumps: number of jumps of each replica.
            replicas: number of trajectories side by side.
            seed: seed of the random numbers.
            asked: other keywords of `equijump.options.choose`, as `lag` or `start`.

        Raises:
            UsageError: A value is out of range, or a start cannot be used.
            RunError: A position is not finite.
        """
        import mdtraj

        options = self._choose(replicas, seed, asked)
        chunks = self._draw(options, num_jumps, seed, CHUNK)
        frames = np.concatenate(list(chunks)) / np.float32(ANGSTROM_PER_NM)
        try:
            outcome.check(self.summary)
        except RunError as error:
            logging.warning("%s", error)
        topology = to_topology(options.system)
        times = options.frame_time * np.arange(len(frames))
        return [
            mdtraj.Trajectory(frames[:, replica], topology, times)
            for replica in range(replicas)
        ]

    def stream(
        self,
        num_jumps: int,
        replicas: int = 1,
        seed: int = 0,
        *,
        chunk: int = CHUNK,
        **asked: Unpack[Request],
    ) -> Iterator[Float32[np.ndarray, "num_frames num_replicas num_atoms 3"]]:
        """Yields frames in Å as they come, the starts alone first.

        Args:
            num_jumps: number of jumps of each replica.
            replicas: number of trajectories side by side.
            seed: seed of the random numbers.
            chunk: frames that come at once, at most.
            asked: options of `sample`.

        Raises:
            UsageError: A value is out of range, or a start cannot be used.
            RunError: A position is not finite.
        """
        options = self._choose(replicas, seed, asked)
        return self._draw(options, num_jumps, seed, chunk)

    def _choose(self, replicas: int, seed: int, asked: Mapping[str, Any]) -> Options:
        """Checks what is asked, and takes the weights that can serve it."""
        given, rest = take_starts(asked, replicas, seed)
        if self._picks:
            with pinned():
                self.weights = self._named(default_for(given, packaged_names()))
        return choose(self.weights, replicas, given=given, **rest)

    def _draw(
        self, options: Options, num_jumps: int, seed: int, chunk: int
    ) -> Iterator[Float32[np.ndarray, "num_frames num_replicas num_atoms 3"]]:
        check_numbers(seed, num_jumps, options.every, chunk)
        self.summary = None
        plan = plan_of(options, seed, chunk)
        with pinned():
            jump = self._jump(
                self.weights.name, options.num_steps, options.method, options.repulsion
            )
        drawn = draw(jump, self.weights.params, plan, None, 0, num_jumps)
        drawn = step_by_step(drawn)
        return self._frames(drawn, plan, self.weights)

    def _frames(
        self, drawn: Iterator[Chunk], plan: Plan, weights: Weights
    ) -> Iterator[Float32[np.ndarray, "num_frames num_replicas num_atoms 3"]]:
        """Yields frames, and keeps what came of them up to there.

        Where the gate refuses nearly all draws, it warns as soon as that is seen.
        """
        is_told = False
        for chunk in drawn:
            if not is_told and outcome.is_hopeless(chunk.state):
                is_told = True
                logging.warning(
                    "the gate refuses nearly all draws: most frames will repeat the "
                    "one before; gate=False shows the draws"
                )
            found = outcome.summary_of(chunk.state, chunk.num_jumps, plan.jump_time)
            self.summary = outcome.with_confidence(found, plan, weights)
            yield chunk.frames


def load(name_or_path: str | os.PathLike[str] | None = None) -> Sampler:
    """Returns a sampler; see `equijump.load`."""
    cli.use_compilation_cache()
    with pinned():
        return Sampler(load_weights(name_or_path or "ala2"), picks=name_or_path is None)


def check_numbers(seed: int, num_jumps: int, every: int, chunk: int) -> None:
    """Raises `UsageError` for numbers that no rollout can do with."""
    if not 0 <= seed < 2**32:
        raise UsageError(f"--seed: expected 0 to {2**32 - 1}, found {seed}")
    if chunk < 1:
        raise UsageError(f"--chunk: expected 1 or more, found {chunk}")
    if not 1 <= num_jumps < 2**31 or num_jumps % every:
        multiple = f", a multiple of --every={every}" if every > 1 else ""
        raise UsageError(
            f"--num_jumps: expected 1 to {2**31 - 1}{multiple}, found {num_jumps}"
        )


def plan_of(options: Options, seed: int, chunk: int) -> Plan:
    """Returns what a rollout needs of the options."""
    return Plan(
        system=options.system,
        starts=options.starts,
        conditions=options.conditions,
        seed=seed,
        every=options.every,
        chunk=chunk,
        max_redraws=options.max_redraws,
        cloud=options.cloud,
    )


def draw(
    jump: Callable[..., Any],
    params: Any,
    plan: Plan,
    state: State | None,
    first: int,
    num_jumps: int,
) -> Iterator[Chunk]:
    """Yields the chunks of a rollout, the starts first if it begins.

    Args:
        jump: function of `equijump.jump.make_jump`.
        params: parameters of the network.
        plan: request, see `Plan`.
        state: state to go on from; None to begin.
        first: number of jumps done already.
        num_jumps: jumps of each replica, with those done.

    Raises:
        RunError: A position is not finite; the chunks before are whole.
    """
    if state is None:
        start = rollout.begin(plan)
        state = start.state
        yield start
    for chunk in rollout.rollout(jump, params, plan, state, first, num_jumps):
        bad = ~np.isfinite(chunk.frames).all(axis=(2, 3))
        if bad.any():
            frame, replica = np.argwhere(bad)[0].tolist()
            number = chunk.num_jumps - (len(bad) - 1 - frame) * plan.every
            kept = chunk.num_jumps - len(bad) * plan.every
            ps = plan.jump_time
            raise RunError(
                f"replica {plan.first + replica} is not finite after jump {number} "
                f"({number * ps:g} ps); frames up to {kept * ps:g} ps are kept"
            )
        yield chunk
