"""Puts a config's pieces together: network, transport, scales."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float, Key

from equijump.data.pairs import ENSEMBLE_LAG, Batch
from equijump.data.residues import CA_SLOT, NUM_SLOTS
from equijump.model import ROOM_TEMPERATURE, EquiJump, Scene, make_scene
from equijump.transport import TRANSPORTS, heads, paths
from equijump.transport.paths import Scales


class Statistics(NamedTuple):
    """Spread of the displacement against the lag, measured on the training data.

    Attributes:
        lags: ps, rising; the last is `ENSEMBLE_LAG` where sources are hidden at times.
        positions: Å, root mean square of the displacement of CA, per degree of freedom
            of positions that are centred.
        vectors: Å, of the vectors to the other atoms.
    """

    lags: Float[np.ndarray, " num_lags"]
    positions: Float[np.ndarray, " num_lags"]
    vectors: Float[np.ndarray, " num_lags"]


def make_model(config: ml_collections.ConfigDict) -> EquiJump:
    """Returns the network of a config."""
    heads = TRANSPORTS[config.transport.kind].HEADS
    return EquiJump(**config.model, num_heads=len(heads))


def starts_from_noise(transport: Any) -> bool:
    """Whether the source is no part of a transport's path, but a condition only."""
    return float(transport.path(jnp.array(0.5)).alpha) == 0.0


def has_free_frames(config: ml_collections.ConfigDict) -> bool:
    """Whether the end of a jump may come in any orientation, whatever its source's.

    So it is where targets are aligned to what is noised, see `config.loss.alignment`,
    on a transport from noise.
    """
    return config.loss.alignment != "single" and starts_from_noise(
        TRANSPORTS[config.transport.kind]
    )


def begin_path(
    x_0: Float[Array, "num_nodes num_slots 3"],
    lag: Float[Array, ""],
    free_frames: bool,
) -> tuple[Float[Array, "num_nodes num_slots 3"], Float[Array, ""]]:
    """Returns the origin of a path, Å, and the lag that decides its scales, ps.

    They are the source and its lag; where frames are free, none and the ensemble's.
    """
    if not free_frames:
        return x_0, lag
    return jnp.zeros_like(x_0), jnp.full_like(lag, ENSEMBLE_LAG)


def scales_at(
    statistics: Statistics, lag: Float[Array, ""], noise_factor: float
) -> Scales:
    """Returns the scales of the slots at a lag, between measured ones by interpolation.

    Without a source the displacement is the frame itself, whose spread is noise enough.

    Args:
        statistics: Of the training data.
        lag: ps.
        noise_factor: Noise over displacement.
    """
    known = jnp.log(jnp.asarray(statistics.lags, jnp.float32))
    at = lambda values: jnp.exp(
        jnp.interp(jnp.log(lag), known, jnp.log(jnp.asarray(values, jnp.float32)))
    )
    is_position = (jnp.arange(NUM_SLOTS) == CA_SLOT)[:, None]
    displacement = jnp.where(
        is_position, at(statistics.positions), at(statistics.vectors)
    )
    factor = jnp.where(lag < ENSEMBLE_LAG, noise_factor, 1.0)
    return Scales(displacement, factor * displacement)


def scene_of(model: EquiJump, batch: Batch) -> Scene:
    """Returns the scene of one pair, neighbours by its source frame."""
    return make_scene(
        batch.source[:, CA_SLOT],
        batch.tokens,
        batch.slot_mask,
        batch.chains,
        batch.numbers,
        batch.lag,
        batch.temperature,
        model.num_neighbours,
        model.reach,
    )


def make_predict(
    model: EquiJump,
    transport: Any,
    scales: Scales,
    scene: Scene,
    x_0: Float[Array, "num_nodes num_slots 3"],
    origin: Float[Array, "num_nodes num_slots 3"],
) -> Callable[..., tuple[Float[Array, "num_nodes num_slots 3"], ...]]:
    """Returns `(x_t, t) -> heads`, what samplers ask.

    Args:
        model: Bound to its parameters.
        transport: A module of `equijump.transport`.
        scales: Å, of each slot.
        scene: Of the source.
        x_0: Å, the source that the network sees.
        origin: Å, that of the path; the source, or zero where frames are free.
    """
    conditioned = model.conditioner(scene, x_0)

    def predict(
        x_t: Float[Array, "num_nodes num_slots 3"], t: Float[Array, ""]
    ) -> tuple[Float[Array, "num_nodes num_slots 3"], ...]:
        known = paths.estimate(transport.path(t), scales, origin, x_t)
        beyond = model.transport(
            scene, x_0, conditioned, known.mean, known.displacement, known.log_level
        )
        priors = [
            heads.prior(head, transport.path, t, scales, origin, x_t)
            for head in transport.HEADS
        ]
        return tuple(p.mean + p.std * f for p, f in zip(priors, beyond, strict=True))

    return predict


def init_params(config: ml_collections.ConfigDict, key: Key[Array, ""]) -> Any:
    """Returns fresh parameters."""
    model = make_model(config)
    num_nodes = 3
    batch = Batch(
        source=jnp.asarray(np.random.default_rng(0).normal(size=(num_nodes, 14, 3))),
        target=jnp.zeros((num_nodes, NUM_SLOTS, 3)),
        tokens=jnp.ones(num_nodes, jnp.int32),
        slot_mask=jnp.ones((num_nodes, NUM_SLOTS), bool),
        chains=jnp.zeros(num_nodes, jnp.int32),
        numbers=jnp.arange(num_nodes, dtype=jnp.int32),
        lag=jnp.ones(()),
        temperature=jnp.full((), ROOM_TEMPERATURE),
        before=jnp.zeros((0, num_nodes, NUM_SLOTS, 3)),
    )
    scene = scene_of(model, batch)
    source = jnp.asarray(batch.source, jnp.float32)
    return jax.jit(partial(nn.Module.init, model))(key, scene, source)
