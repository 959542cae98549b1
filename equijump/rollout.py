"""Rollouts: one compiled loop over jumps and inner steps, replicas side by side.

Jump `j` of replica `r` draws from a key of (seed, r, j) alone: a replica is the same
however many others run beside it and in whatever chunks.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, UInt32

from common.programs import digest, kept
from equijump import rejection, steering
from equijump.cloud import Cloud, to_cloud
from equijump.data.topology import System
from equijump.jump import Chain, atoms_of, chain_of

TRIAL = 1_000
"""Draws of the first chunk where the gate refuses all of them, about."""


Counts = Int[Array, "*replicas"]


class State(NamedTuple):
    """Where replicas stand, or one of them: all that a rollout goes on from.

    Attributes:
        cloud: tensor cloud, in Å.
        num_draws: number of jumps drawn so far, rejected ones among them.
        num_accepted: number of jumps that passed the gate; all, without one.
        broken_at: first jump whose end was broken, from 1; 0 for none. See
            `equijump.rejection.BROKEN`.
    """

    cloud: Float[Array, "*replicas num_nodes num_slots 3"]
    num_draws: Counts
    num_accepted: Counts
    broken_at: Counts


class Chunk(NamedTuple):
    """Frames of a rollout, on the host.

    Attributes:
        frames: positions of the kept atoms, in Å.
        num_jumps: jumps of each replica up to the last of these frames.
        state: state after the last of these frames.
    """

    frames: Float32[np.ndarray, "num_frames num_replicas num_atoms 3"]
    num_jumps: int
    state: State


class Plan(NamedTuple):
    """Request for a rollout.

    Attributes:
        system: molecule.
        starts: kept atoms of each replica's first frame, in Å.
        conditions: numbers that the network is given, the lag in ps among them; see
            `chain_of`.
        seed: seed, see the module's head.
        every: jumps from one frame that is kept to the next.
        chunk: frames between two yields.
        max_redraws: redraws, see `equijump.rejection.attempt`; None for no gate.
        cloud: kind of cloud that the network sees, see `equijump.cloud`.
        first: number of the first replica of the seed.
        sizes: sizes that arrays are padded to, so that one program serves several
            systems of as many residues; the system's own where None.
    """

    system: System
    starts: Float32[np.ndarray, "num_replicas num_atoms 3"]
    conditions: Mapping[str, float]
    seed: int
    every: int = 1
    chunk: int = 100
    max_redraws: int | None = None
    cloud: str = "ca"
    first: int = 0
    sizes: rejection.Sizes | None = None

    @property
    def jump_time(self) -> float:
        """Returns the time of a jump in ps; frames of an ensemble are a ps apart."""
        return self.conditions.get("lag", 1.0)


def begin(plan: Plan) -> Chunk:
    """Returns the starts, centred, as the first frame."""
    system, count = plan.system, len(plan.starts)
    rows, columns = np.nonzero(system.slot_atoms >= 0)
    placed = np.zeros((count, *system.slot_atoms.shape, 3), np.float32)
    placed[:, rows, columns] = plan.starts[:, system.slot_atoms[rows, columns]]
    chain = chain_of(system, plan.conditions, plan.cloud)
    clouds, frame = _centred(placed, chain)
    none = jnp.zeros(count, jnp.int32)
    return Chunk(np.asarray(frame)[None], 0, State(clouds, none, none, none))


@jax.jit
def _centred(
    placed: Float[Array, "num_replicas num_nodes num_slots 3"], chain: Chain
) -> tuple[
    Float[Array, "num_replicas num_nodes num_slots 3"],
    Float[Array, "num_replicas num_atoms 3"],
]:
    """Returns positions in slots as clouds, and the kept atoms of these."""
    clouds = jax.vmap(to_cloud, (0, None, None))(placed, chain.slot_mask, chain.tree)
    return clouds, jax.vmap(atoms_of, (0, None))(clouds, chain)


def rollout(
    jump: Callable[..., Cloud],
    params: Any,
    plan: Plan,
    state: State,
    first: int,
    num_jumps: int,
) -> Iterator[Chunk]:
    """Yields the frames after jumps, in chunks; memory does not grow.

    The device works on the next chunk while the caller has this one, but for the first:
    it is a short trial, so that a caller can stop where the gate refuses all draws.
    Those after it are twice as long each, up to `plan.chunk`.

    Args:
        jump: function of `equijump.jump.make_jump`.
        params: parameters of the network.
        plan: request, see `Plan`.
        state: state of `begin`, or of the chunk to go on from.
        first: number of jumps done already.
        num_jumps: jumps of each replica, with those done; a multiple of `plan.every`,
            as `first` is.
    """
    fixed = _fixed(params, plan)
    run = _compiled(jump, plan.chunk, plan.max_redraws)
    waiting, most, is_trial = None, _trial(plan), True
    while first < num_jumps:
        count = min(most, (num_jumps - first) // plan.every)
        state, frames = run(fixed, state, jnp.int32(first), jnp.int32(count))
        first += count * plan.every
        if waiting is not None:
            yield _fetch(plan, *waiting)
        waiting = state, frames, count, first
        if is_trial and most < plan.chunk:
            yield _fetch(plan, *waiting)
            waiting = None
        is_trial, most = False, min(2 * most, plan.chunk)
    if waiting is not None:
        yield _fetch(plan, *waiting)


def _trial(plan: Plan) -> int:
    """Returns the number of frames of the first chunk."""
    if plan.max_redraws is None:
        return plan.chunk
    draws = len(plan.starts) * plan.every * (1 + plan.max_redraws)
    return min(plan.chunk, -(-TRIAL // draws))


def _fetch(
    plan: Plan, state: State, frames: Array, count: int, num_jumps: int
) -> Chunk:
    """Waits for a chunk."""
    kept = np.asarray(frames)[:count, :, : plan.starts.shape[1]]
    return Chunk(kept, num_jumps, state)


class _Fixed(NamedTuple):
    """What a compiled rollout is given besides its state; the last two, by replica.

    Keys are their numbers: an exported program takes arrays.
    """

    params: Any
    chain: Chain
    graph: rejection.Graph
    every: Int[Array, ""]
    keys: UInt32[Array, "num_replicas words"]
    references: rejection.Reference


def _fixed(params: Any, plan: Plan) -> _Fixed:
    graph, starts = rejection.graph_of(plan.system), plan.starts
    chain = chain_of(plan.system, plan.conditions, plan.cloud)
    contacts = steering.contacts_of(plan.system, np.asarray(graph.is_far))
    if plan.sizes is not None:
        extra = plan.sizes.atoms - starts.shape[1]
        contacts = np.pad(contacts, (0, extra))
        graph = rejection.padded(graph, plan.sizes)
        starts = np.pad(starts, ((0, 0), (0, extra), (0, 0)), mode="edge")
        chain = chain._replace(places=_with_none(chain, extra))
    seeded = partial(jax.random.fold_in, jax.random.key(plan.seed))
    replicas = plan.first + jnp.arange(len(plan.starts))
    return _Fixed(
        params=params,
        chain=chain._replace(contacts=jnp.asarray(contacts)),
        graph=graph,
        every=jnp.int32(plan.every),
        keys=jax.random.key_data(jax.vmap(seeded)(replicas)),
        references=_references(graph, starts),
    )


def _with_none(chain: Chain, extra: int) -> Int[Array, " num_atoms"]:
    """Returns the places of atoms, and some beyond all slots, which take no noise."""
    beyond = chain.slot_mask.size + jnp.arange(extra, dtype=chain.places.dtype)
    return jnp.concatenate([chain.places, beyond])


@jax.jit
def _references(
    graph: rejection.Graph, starts: Float[Array, "num_replicas num_atoms 3"]
) -> rejection.Reference:
    return jax.vmap(partial(rejection.reference_of, graph))(starts)


class _Turn(NamedTuple):
    """How far a replica is in a chunk.

    Attributes:
        state: state after the last jump that is done.
        jumps: jumps done in this chunk.
        refused: draws of the next jump that did not pass.
    """

    state: State
    jumps: Counts
    refused: Counts


@cache
def _compiled(
    jump: Callable[..., Array], chunk: int, max_redraws: int | None
) -> Callable[..., tuple[State, Array]]:
    """Returns the loop over draws, compiled once for any number of jumps.

    In each round every replica draws once, for the jump that it has come to: those that
    passed go on, and do not wait for those that draw again.
    """

    def run(
        fixed: _Fixed, state: State, first: Int[Array, ""], num_frames: Int[Array, ""]
    ) -> tuple[State, Float[Array, "chunk num_replicas num_atoms 3"]]:
        total = num_frames * fixed.every
        fixed = fixed._replace(keys=jax.random.wrap_key_data(fixed.keys))
        draw = jax.vmap(partial(_draw, jump, max_redraws, fixed, first, total))

        def one_round(carry: tuple[_Turn, Array]) -> tuple[_Turn, Array]:
            turn, frames = carry
            turn, atoms, is_kept = draw(fixed.keys, fixed.references, turn)
            place = jnp.where(is_kept, turn.jumps // fixed.every - 1, chunk)
            replicas = jnp.arange(len(place))
            return turn, frames.at[place, replicas].set(atoms, mode="drop")

        frames = jnp.zeros((chunk, len(fixed.keys), len(fixed.chain.places), 3))
        none = jnp.zeros(len(fixed.keys), jnp.int32)
        begin = _Turn(state, none, none), frames
        is_short = lambda carry: jnp.any(carry[0].jumps < total)
        turn, frames = jax.lax.while_loop(is_short, one_round, begin)
        return turn.state, frames

    name = getattr(jump, "name", None)  # A function of one's own has none.
    name = name and digest("rollout", name, chunk, max_redraws)
    # By JAX's own options, a jump is what it is outside the loop, bit for bit.
    return kept(run, name, like=lambda fixed, state, *_: (state, 0), quick=False)


def _draw(
    jump: Callable[..., Array],
    max_redraws: int | None,
    fixed: _Fixed,
    first: Array,
    total: Array,
    key: Array,
    reference: rejection.Reference,
    turn: _Turn,
) -> tuple[_Turn, Float[Array, "num_atoms 3"], Bool[Array, ""]]:
    """Draws the next jump of a replica once; with its atoms, and whether to keep them.

    A replica that has made all its jumps stays as it is.
    """
    state, number = turn.state, first + turn.jumps
    intact = lambda limits, cloud: rejection.is_intact(
        fixed.graph, reference, limits, atoms_of(cloud, fixed.chain)
    )
    found = rejection.attempt(
        partial(jump, fixed.params, state.cloud, fixed.chain),
        (lambda cloud: jnp.asarray(True))
        if max_redraws is None
        else partial(intact, rejection.GATE),
        state.cloud,
        jax.random.fold_in(key, number),
        turn.refused,
        max_redraws or 0,
    )
    breaks = (state.broken_at == 0) & ~intact(rejection.BROKEN, found.cloud)
    after = State(
        cloud=found.cloud,
        num_draws=state.num_draws + 1,
        num_accepted=state.num_accepted + found.accepted,
        broken_at=jnp.where(breaks & found.is_last, number + 1, state.broken_at),
    )
    jumps = turn.jumps + found.is_last
    refused = jnp.where(found.is_last, 0, turn.refused + 1)
    is_done = turn.jumps >= total
    after = jax.tree.map(
        partial(jnp.where, is_done), turn, _Turn(after, jumps, refused)
    )
    is_kept = ~is_done & found.is_last & (jumps % fixed.every == 0)
    return after, atoms_of(after.state.cloud, fixed.chain), is_kept
