"""Rollouts: one compiled loop over jumps and inner steps, replicas side by side.

Jump `j` of replica `r` draws from a key of (seed, r, j) alone: a replica is the same
however many others run beside it and in whatever chunks.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Key

from equijump import build, gate
from equijump.data.pairs import ENSEMBLE_LAG
from equijump.data.residues import CA_SLOT
from equijump.data.topology import System
from equijump.model import (
    ROOM_TEMPERATURE,
    EquiJump,
    from_cloud,
    make_scene,
    recentred,
    to_cloud,
)
from equijump.transport import paths


class Chain(NamedTuple):
    """What stays the same along a rollout.

    Attributes:
        tokens: Residue types.
        slot_mask: True for atoms.
        chains: Number of the chain of each residue.
        numbers: Place of each residue in its chain.
        places: Slot of each kept atom, slots of all residues counted through.
        temperature: K.
    """

    tokens: Int[Array, " num_nodes"]
    slot_mask: Bool[Array, "num_nodes num_slots"]
    chains: Int[Array, " num_nodes"]
    numbers: Int[Array, " num_nodes"]
    places: Int[Array, " num_atoms"]
    temperature: Float[Array, ""]


def chain_of(system: System, temperature: float = ROOM_TEMPERATURE) -> Chain:
    """Returns the arrays of a system that the network reads."""
    atoms = system.slot_atoms.ravel()
    places = np.flatnonzero(atoms >= 0)
    return Chain(
        tokens=jnp.asarray(system.tokens),
        slot_mask=jnp.asarray(system.slot_atoms >= 0),
        chains=jnp.asarray(system.chains),
        numbers=jnp.asarray(system.numbers),
        places=jnp.asarray(places[np.argsort(atoms[places])]),
        temperature=jnp.float32(temperature),
    )


def make_jump(
    model: EquiJump,
    transport: Any,
    statistics: build.Statistics,
    noise_factor: float,
    num_steps: int,
    method: str = "",
    free_frames: bool = False,
) -> Callable[..., Float[Array, "num_nodes num_slots 3"]]:
    """Returns `(params, cloud, chain, lag, key) -> cloud`, one jump of one replica.

    At `ENSEMBLE_LAG` the frame that it is given is not looked at.

    Args:
        model: The network.
        transport: A module of `equijump.transport`.
        statistics: Of the training data.
        noise_factor: See `equijump.build.scales_at`.
        num_steps: Evaluations of the network.
        method: One of the transport's `METHODS`; the first if empty.
        free_frames: See `equijump.build.has_free_frames`.
    """
    method = method or transport.METHODS[0]

    def jump(
        params: Any,
        x_0: Float[Array, "num_nodes num_slots 3"],
        chain: Chain,
        lag: Float[Array, ""],
        key: Key[Array, ""],
    ) -> Float[Array, "num_nodes num_slots 3"]:
        bound = model.bind(params)
        x_0 = jnp.where(lag < ENSEMBLE_LAG, x_0, 0.0)
        origin, of_path = build.begin_path(x_0, lag, free_frames)
        scales = build.scales_at(statistics, of_path, noise_factor)
        scene = make_scene(
            x_0[:, CA_SLOT],
            chain.tokens,
            chain.slot_mask,
            chain.chains,
            chain.numbers,
            lag,
            chain.temperature,
            model.num_neighbours,
            model.reach,
        )
        predict = build.make_predict(bound, transport, scales, scene, x_0, origin)
        noise = partial(
            paths.draw_noise, slot_mask=chain.slot_mask, places=chain.places
        )
        request = paths.Request(predict, noise, key, origin, scales, num_steps, method)
        x_1 = transport.jump(request)
        return recentred(x_1, chain.slot_mask)

    return jump


class State(NamedTuple):
    """Where replicas stand, or one of them: all that a rollout goes on from.

    Attributes:
        cloud: Å.
        num_draws: Jumps drawn so far, those that the gate rejected among them.
        num_accepted: Those that it let pass; all, without a gate.
        broken_at: First jump whose end was broken, from 1; 0 for none. See
            `equijump.gate.BROKEN`.
    """

    cloud: Float[Array, "*replicas num_nodes num_slots 3"]
    num_draws: Int[Array, "*replicas"]
    num_accepted: Int[Array, "*replicas"]
    broken_at: Int[Array, "*replicas"]


class Chunk(NamedTuple):
    """Frames of a rollout, on the host.

    Attributes:
        frames: Å, the kept atoms.
        num_jumps: Of each replica, up to the last of these frames.
        state: Behind the last of these frames.
    """

    frames: Float32[np.ndarray, "num_frames num_replicas num_atoms 3"]
    num_jumps: int
    state: State


class Plan(NamedTuple):
    """What is rolled out, and how.

    Attributes:
        system: The molecule.
        starts: Å, the kept atoms of each replica's first frame.
        lag: ps.
        seed: See the module's head.
        every: Jumps from one frame that is kept to the next.
        chunk: Frames between two yields.
        max_redraws: Of the gate, see `equijump.gate.draw`; None for no gate.
        temperature: K.
    """

    system: System
    starts: Float32[np.ndarray, "num_replicas num_atoms 3"]
    lag: float
    seed: int
    every: int = 1
    chunk: int = 100
    max_redraws: int | None = None
    temperature: float = ROOM_TEMPERATURE


def begin(plan: Plan) -> Chunk:
    """Returns the starts, centred, as the first frame."""
    system, count = plan.system, len(plan.starts)
    rows, columns = np.nonzero(system.slot_atoms >= 0)
    placed = np.zeros((count, *system.slot_atoms.shape, 3), np.float32)
    placed[:, rows, columns] = plan.starts[:, system.slot_atoms[rows, columns]]
    chain = chain_of(system)
    clouds = jax.vmap(to_cloud, (0, None))(jnp.asarray(placed), chain.slot_mask)
    frame = jax.vmap(atoms_of, (0, None))(clouds, chain.places)
    none = jnp.zeros(count, jnp.int32)
    return Chunk(np.asarray(frame)[None], 0, State(clouds, none, none, none))


def atoms_of(
    cloud: Float[Array, "num_nodes num_slots 3"], places: Int[Array, " num_atoms"]
) -> Float[Array, "num_atoms 3"]:
    """Returns the positions of the kept atoms of a tensor cloud, Å."""
    return from_cloud(cloud).reshape(-1, 3)[places]


def rollout(
    jump: Callable[..., Float[Array, "num_nodes num_slots 3"]],
    params: Any,
    plan: Plan,
    state: State,
    first: int,
    num_jumps: int,
) -> Iterator[Chunk]:
    """Yields the frames after jumps, in chunks; memory does not grow.

    The device works on the next chunk while the caller has this one.

    Args:
        jump: See `make_jump`.
        params: Of the network.
        plan: See `Plan`.
        state: Of `begin`, or of the chunk to go on from.
        first: Jumps done already.
        num_jumps: Of each replica, those done included; a multiple of `plan.every`,
            as `first` is.
    """
    fixed = _fixed(params, plan)
    run = _compiled(jump, plan.chunk, plan.max_redraws)
    waiting = None
    while first < num_jumps:
        count = min(plan.chunk, (num_jumps - first) // plan.every)
        state, frames = run(fixed, state, jnp.int32(first), jnp.int32(count))
        first += count * plan.every
        if waiting is not None:
            yield _fetch(*waiting)
        waiting = state, frames, count, first
    if waiting is not None:
        yield _fetch(*waiting)


def _fetch(state: State, frames: Array, count: int, num_jumps: int) -> Chunk:
    """Waits for a chunk."""
    return Chunk(np.asarray(frames)[:count], num_jumps, state)


class _Fixed(NamedTuple):
    """What a compiled rollout is given besides its state; the last two, by replica."""

    params: Any
    chain: Chain
    graph: gate.Graph
    lag: Float[Array, ""]
    every: Int[Array, ""]
    keys: Key[Array, " num_replicas"]
    references: gate.Reference


def _fixed(params: Any, plan: Plan) -> _Fixed:
    graph = gate.graph_of(plan.system)
    seeded = partial(jax.random.fold_in, jax.random.key(plan.seed))
    return _Fixed(
        params=params,
        chain=chain_of(plan.system, plan.temperature),
        graph=graph,
        lag=jnp.float32(plan.lag),
        every=jnp.int32(plan.every),
        keys=jax.vmap(seeded)(jnp.arange(len(plan.starts))),
        references=_references(graph, plan.starts),
    )


@jax.jit
def _references(
    graph: gate.Graph, starts: Float[Array, "num_replicas num_atoms 3"]
) -> gate.Reference:
    return jax.vmap(partial(gate.reference_of, graph))(starts)


@cache
def _compiled(
    jump: Callable[..., Array], chunk: int, max_redraws: int | None
) -> Callable[..., tuple[State, Array]]:
    """Returns the loop over jumps, compiled once for any number of them."""

    @jax.jit
    def run(
        fixed: _Fixed, state: State, first: Int[Array, ""], num_frames: Int[Array, ""]
    ) -> tuple[State, Float[Array, "chunk num_replicas num_atoms 3"]]:
        def advance(
            number: Array, key: Array, reference: gate.Reference, now: State
        ) -> State:
            """Makes jump `number`, from 0, of one replica."""
            key = jax.random.fold_in(key, number)
            propose = partial(jump, fixed.params, now.cloud, fixed.chain, fixed.lag)
            intact = lambda limits, cloud: gate.is_intact(
                fixed.graph, reference, limits, atoms_of(cloud, fixed.chain.places)
            )
            if max_redraws is None:
                drawn = gate.Drawn(propose(key), jnp.int32(1), jnp.asarray(True))
            else:
                passes = partial(intact, gate.GATE)
                drawn = gate.draw(propose, passes, now.cloud, key, max_redraws)
            breaks = (now.broken_at == 0) & ~intact(gate.BROKEN, drawn.cloud)
            return State(
                cloud=drawn.cloud,
                num_draws=now.num_draws + drawn.num_draws,
                num_accepted=now.num_accepted + drawn.accepted,
                broken_at=jnp.where(breaks, number + 1, now.broken_at),
            )

        def step(number: Array, state: State) -> State:
            side_by_side = jax.vmap(advance, (None, 0, 0, 0))
            return side_by_side(number, fixed.keys, fixed.references, state)

        def add_frame(index: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
            state, frames = carry
            number = first + index * fixed.every
            state = jax.lax.fori_loop(number, number + fixed.every, step, state)
            atoms = jax.vmap(atoms_of, (0, None))(state.cloud, fixed.chain.places)
            return state, frames.at[index].set(atoms)

        frames = jnp.zeros((chunk, len(fixed.keys), len(fixed.chain.places), 3))
        return jax.lax.fori_loop(0, num_frames, add_frame, (state, frames))

    return run
