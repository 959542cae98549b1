"""Rollouts: one compiled scan over jumps and inner steps, replicas side by side.

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

from equijump import build
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
from equijump.transport import heads, paths


class Chain(NamedTuple):
    """What stays the same along a rollout.

    Attributes:
        tokens: Residue types.
        slot_mask: True for atoms.
        chains: Number of the chain of each residue.
        numbers: Place of each residue in its chain.
        temperature: K.
    """

    tokens: Int[Array, " num_nodes"]
    slot_mask: Bool[Array, "num_nodes num_slots"]
    chains: Int[Array, " num_nodes"]
    numbers: Int[Array, " num_nodes"]
    temperature: Float[Array, ""]


def chain_of(system: System, temperature: float = ROOM_TEMPERATURE) -> Chain:
    """Returns the arrays of a system that the network reads."""
    arrays = (system.tokens, system.slot_atoms >= 0, system.chains, system.numbers)
    return Chain(*map(jnp.asarray, arrays), jnp.float32(temperature))


def make_jump(
    model: EquiJump,
    transport: Any,
    statistics: build.Statistics,
    noise_factor: float,
    num_steps: int,
    method: str = "",
) -> Callable[..., Float[Array, "num_nodes num_slots 3"]]:
    """Returns `(params, cloud, chain, lag, key) -> cloud`, one jump of one replica.

    Args:
        model: The network.
        transport: A module of `equijump.transport`.
        statistics: Of the training data.
        noise_factor: See `equijump.build.scales_at`.
        num_steps: Evaluations of the network.
        method: One of the transport's `METHODS`; the first if empty.
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
        scales = build.scales_at(statistics, lag, noise_factor)
        *arrays, temperature = chain
        scene = make_scene(
            x_0[:, CA_SLOT], *arrays, lag, temperature, model.num_neighbours,
            model.reach,
        )  # fmt: skip
        conditioned = bound.conditioner(scene, x_0)

        def predict(
            x_t: Float[Array, "num_nodes num_slots 3"], t: Float[Array, ""]
        ) -> tuple[Float[Array, "num_nodes num_slots 3"], ...]:
            known = paths.estimate(transport.path(t), scales, x_0, x_t)
            beyond = bound.transport(
                scene, x_0, conditioned, known.mean, known.displacement, known.log_level
            )
            priors = [
                heads.prior(head, transport.path, t, scales, x_0, x_t)
                for head in transport.HEADS
            ]
            return tuple(
                p.mean + p.std * f for p, f in zip(priors, beyond, strict=True)
            )

        noise = partial(paths.draw_noise, slot_mask=chain.slot_mask)
        x_1 = transport.jump(predict, noise, key, x_0, scales, num_steps, method)
        return recentred(x_1, chain.slot_mask)

    return jump


def rollout(
    jump: Callable[..., Float[Array, "num_nodes num_slots 3"]],
    params: Any,
    system: System,
    starts: Float32[np.ndarray, "num_replicas num_atoms 3"],
    lag: float,
    num_jumps: int,
    seed: int,
    chunk: int = 100,
    first: int = 0,
) -> Iterator[Float32[np.ndarray, "num_frames num_replicas num_atoms 3"]]:
    """Yields the frames after each jump, in chunks; memory does not grow.

    Args:
        jump: See `make_jump`.
        params: Of the network.
        system: What is rolled out.
        starts: Å, the kept atoms of each replica's first frame.
        lag: ps.
        num_jumps: Of each replica.
        seed: See the module's head.
        chunk: Jumps between two yields.
        first: Number of the first jump, for a rollout that goes on.
    """
    chain = chain_of(system)
    key = jax.random.key(seed)
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(len(starts)))
    rows, columns = np.nonzero(system.slot_atoms >= 0)
    placed = np.zeros((len(starts), *system.slot_atoms.shape, 3), np.float32)
    placed[:, rows, columns] = starts[:, system.slot_atoms[rows, columns]]
    clouds = jax.vmap(to_cloud, (0, None))(jnp.asarray(placed), chain.slot_mask)

    run = _compiled(jump)
    order = np.argsort(system.slot_atoms[rows, columns])
    done = first
    while done < first + num_jumps:
        count = min(chunk, first + num_jumps - done)
        numbers = jnp.arange(done, done + count)
        clouds, slots = run(params, clouds, chain, jnp.float32(lag), keys, numbers)
        done += count
        atoms = np.asarray(slots)[:, :, rows, columns]
        yield atoms[:, :, order]


@cache
def _compiled(jump: Callable[..., Array]) -> Callable[..., tuple[Array, Array]]:
    """Returns the scan over jumps, the same for all rollouts of one network."""

    @partial(jax.jit, donate_argnums=1)
    def run(
        params: Any,
        clouds: Array,
        chain: Chain,
        lag: Array,
        keys: Array,
        numbers: Array,
    ) -> tuple[Array, Array]:
        def step(clouds: Array, number: Array) -> tuple[Array, Array]:
            now = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
            clouds = jax.vmap(jump, (None, 0, None, None, 0))(
                params, clouds, chain, lag, now
            )
            return clouds, jax.vmap(from_cloud)(clouds)

        return jax.lax.scan(step, clouds, numbers)

    return run
