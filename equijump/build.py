"""Puts a config's pieces together: network, transport, scales."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from common.nn.conditions import Known, known
from common.programs import run_once
from equijump import cloud as clouds
from equijump.cloud import Cloud, PerResidue
from equijump.data.residues import CA_SLOT, NUM_SLOTS, NUM_TYPES, num_slots_of
from equijump.model import EquiJump
from equijump.scene import Scene, make_scene
from equijump.transport import TRANSPORTS, heads, paths
from equijump.transport.paths import Scales, Shape


class Statistics(NamedTuple):
    """Spread of the displacement against the lag, measured on the training data.

    Attributes:
        lags: lags in ps, rising.
        positions: root mean square of the displacement of CA, in Å, per degree of
            freedom of positions that are centred.
        vectors: spread of the other vectors, in Å: one number for all, or one for each
            slot of each token where clouds are trees (`equijump.cloud`).
        ensemble: both of a frame whose source is hidden, in Å: its own spread; None
            where it was not measured.
        ensemble_vectors: spread of vectors of such a frame, as `vectors`, for trees.
    """

    lags: Float[np.ndarray, " num_lags"]
    positions: Float[np.ndarray, " num_lags"]
    vectors: Float[np.ndarray, "num_lags ..."]
    ensemble: Float[np.ndarray, " 2"] | None = None
    lengths: Float[np.ndarray, "num_tokens num_slots"] | None = None
    shape: Float[np.ndarray, "2 num_tokens num_slots num_shape"] | None = None


BOND_NOISE = 2.0
r"""Å: scale $\sigma$ of the noise on vectors of trees, whatever residue and lag: bonds
that turn are some 2.5 Å apart, and half a molecule may turn at once."""

FREE = (2.0 / 3.0) ** 0.5
"""Displacement of a bond, over its length, that knows nothing of where it was."""

LEAST_SCALE = 1e-3
"""Å; the position of the only segment of a molecule never moves."""

_OLD_ENSEMBLE_LAG = 1e6  # ps; runs up to version 0.1.0 listed hidden sources under it.


def read_statistics(record: Mapping[str, Sequence[float] | None]) -> Statistics:
    """Returns the statistics that a run has written as lists of numbers.

    >>> old = {"lags": [10.0, 1e6], "positions": [0.2, 3.0], "vectors": [0.3, 2.0]}
    >>> read_statistics(old).ensemble
    array([3., 2.])
    """
    columns = {k: None if v is None else np.array(v, float) for k, v in record.items()}
    if "ensemble" in columns:
        return Statistics(**columns)
    rows = [columns.pop(name) for name in ("lags", "positions", "vectors")]
    if columns:
        raise ValueError(f"statistics named {', '.join(columns)}")
    if rows[0][-1] == _OLD_ENSEMBLE_LAG:
        rows = np.stack(rows)
        return Statistics(*rows[:, :-1], ensemble=rows[1:, -1])
    return Statistics(*rows)


def write_statistics(statistics: Statistics) -> dict[str, list[float] | None]:
    """Returns statistics as lists of numbers; see `read_statistics`."""
    columns = statistics._asdict().items()
    return {name: None if x is None else x.tolist() for name, x in columns}


def make_model(config: ml_collections.ConfigDict) -> EquiJump:
    """Returns the network of a config."""
    heads = TRANSPORTS[config.transport.kind].HEADS
    fields = {**config.model, "residue_types": config.model.residue_types or NUM_TYPES}
    return EquiJump(**fields, num_heads=len(heads))


def starts_from_noise(transport: Any) -> bool:
    """Whether the source is no part of a transport's path, but a condition only."""
    return float(transport.path(jnp.array(0.5)).alpha) == 0.0


def has_random_frames(config: ml_collections.ConfigDict) -> bool:
    """Whether the end of a jump may come in any orientation, whatever its source's.

    So it is where targets are aligned to what is noised, see `config.loss.alignment`,
    on a transport from noise.
    """
    return config.loss.alignment != "single" and starts_from_noise(
        TRANSPORTS[config.transport.kind]
    )


def begin_path(x_0: Cloud, lag: Known, random_frames: bool) -> tuple[Cloud, Known]:
    """Returns the origin of a path, in Å, and the lag that decides its scales, in ps.

    They are the source and its lag; where frames are random, zero and an unknown lag.
    """
    if not random_frames:
        return x_0, lag
    return jnp.zeros_like(x_0), lag._replace(mask=jnp.zeros_like(lag.mask))


def scales_at(
    statistics: Statistics,
    lag: Known,
    noise_factor: float,
    num_slots: int = NUM_SLOTS,
    tokens: PerResidue | None = None,
    roots: Bool[Array, " num_nodes"] | None = None,
) -> Scales:
    """Returns the scales of the slots at a lag, between measured ones by interpolation.

    Without a source the displacement is the frame itself, whose spread is noise enough.

    Args:
        statistics: spreads of the training data.
        lag: lag in ps; unknown where there is no source.
        noise_factor: noise over displacement.
        num_slots: number of slots of a residue.
        tokens: residue types, where the scales of vectors are theirs.
        roots: true for residues whose slot of CA holds a position; all where None.
    """
    positions = _at_lag(statistics.lags, statistics.positions, lag)
    vectors = _at_lag(statistics.lags, statistics.vectors, lag)
    ensemble = jnp.full(2, jnp.nan)
    if statistics.ensemble is not None:
        ensemble = jnp.asarray(statistics.ensemble, jnp.float32)
    hidden, bonds = ensemble[1], None
    if tokens is not None:
        bonds = jnp.asarray(statistics.lengths, jnp.float32)
        hidden = FREE * bonds
    position = jnp.where(lag.mask, positions, ensemble[0])
    vector = jnp.where(lag.mask, vectors, hidden)
    is_position = (jnp.arange(num_slots) == CA_SLOT)[:, None]
    factor = jnp.where(lag.mask, noise_factor, 1.0)
    if tokens is None:
        displacement = jnp.where(is_position, position, vector)
        return Scales(displacement, factor * displacement)
    is_position = is_position & roots[:, None, None]
    displacement = jnp.where(is_position, position, vector[tokens][..., None])
    displacement = jnp.maximum(displacement, LEAST_SCALE)
    return Scales(
        displacement,
        noise=jnp.where(is_position, factor * displacement, BOND_NOISE),
        bonds=jnp.where(is_position, 0.0, bonds[tokens][..., None]),
        shape=Shape(*jnp.asarray(statistics.shape, jnp.float32)[:, tokens]),
    )


def _at_lag(
    lags: Float[np.ndarray, " num_lags"],
    values: Float[np.ndarray, "num_lags ..."],
    lag: Known,
) -> Float[Array, "..."]:
    """Interpolates between the logarithms of lags and values."""
    log = lambda values: jnp.log(jnp.asarray(values, jnp.float32))
    known, at = log(lags), jnp.log(lag.value)
    interpolate = lambda column: jnp.exp(jnp.interp(at, known, column))
    columns = log(values).reshape(len(known), -1)
    found = jax.vmap(interpolate, in_axes=1)(columns)
    return found.reshape(values.shape[1:])


def scales_of(
    statistics: Statistics,
    lag: Known,
    noise_factor: float,
    molecule: Any,
    tree: clouds.Tree | None,
) -> Scales:
    """Returns the scales of the slots of one molecule; see `scales_at`.

    Args:
        statistics: spreads of the training data.
        lag: lag in ps; unknown where there is no source.
        noise_factor: noise over displacement.
        molecule: pair of `equijump.data.pairs.Batch`, or an `equijump.jump.Chain`.
        tree: tree of the molecule; None for vectors from CA.
    """
    num_slots = molecule.slot_mask.shape[-1]
    if tree is None:
        return scales_at(statistics, lag, noise_factor, num_slots)
    roots = clouds.roots_of(molecule.slot_mask, tree)
    tokens = molecule.tokens
    return scales_at(statistics, lag, noise_factor, num_slots, tokens, roots)


def tree_of(model: EquiJump, molecule: Any) -> clouds.Tree | None:
    """Returns the tree of the clouds of one molecule; see `scales_of`."""
    return clouds.tree_of(
        model.cloud,
        model.residue_types,
        molecule.tokens,
        molecule.chains,
        molecule.numbers,
    )


def scene_of(
    model: EquiJump, positions: Float[Array, "num_nodes 3"], molecule: Any
) -> Scene:
    """Returns the scene of one molecule.

    Args:
        model: network, which decides the number of neighbours.
        positions: positions of CA in the source frame, in Å.
        molecule: pair of `equijump.data.pairs.Batch`, or an `equijump.jump.Chain`.
    """
    return make_scene(
        positions,
        molecule.tokens,
        molecule.slot_mask,
        molecule.chains,
        molecule.numbers,
        molecule.conditions,
        model.num_neighbours,
        model.reach,
        tree_of(model, molecule),
    )


def make_predict(
    model: EquiJump,
    transport: Any,
    scales: Scales,
    scene: Scene,
    x_0: Cloud,
    origin: Cloud,
    steer: Callable[..., Cloud] | None = None,
) -> Callable[..., tuple[Cloud, ...]]:
    """Returns `(x_t, t) -> heads`, the function that samplers evaluate.

    Args:
        model: network, bound to its parameters.
        transport: module of `equijump.transport`.
        scales: scales of the slots, in Å.
        scene: scene of the source.
        x_0: source that the network sees, in Å.
        origin: start of the path, in Å: the source, or zero where frames are random.
        steer: function of the end of a jump and its deviation that gives the end to go
            on with; for transports that tell the end alone.
    """
    conditioned = model.conditioner(scene, x_0)

    def predict(x_t: Cloud, t: Float[Array, ""]) -> tuple[Cloud, ...]:
        estimate = paths.estimate(transport.path(t), scales, origin, x_t)
        outputs = model.transport(scene, x_0, conditioned, estimate, scales)
        priors = [
            heads.prior(head, transport.path, t, scales, origin, x_t)
            for head in transport.HEADS
        ]
        told = tuple(p.from_unit(f) for p, f in zip(priors, outputs, strict=True))
        return told if steer is None else (steer(*told, priors[0].std),)

    return predict


def init_params(config: ml_collections.ConfigDict, key: Key[Array, ""]) -> Any:
    """Returns fresh parameters."""
    model = make_model(config)
    num_slots = num_slots_of(model.residue_types)
    source = np.random.default_rng(0).normal(size=(3, num_slots, 3))
    tokens, numbers = jnp.ones(3, jnp.int32), jnp.arange(3, dtype=jnp.int32)
    chains = jnp.zeros(3, jnp.int32)
    scene = make_scene(
        jnp.asarray(source[:, CA_SLOT], jnp.float32),
        tokens=tokens,
        slot_mask=jnp.ones((3, num_slots), bool),
        chains=chains,
        numbers=numbers,
        conditions=known({name: jnp.ones(()) for name in model.conditions}),
        num_neighbours=model.num_neighbours,
        reach=model.reach,
        tree=clouds.tree_of(model.cloud, model.residue_types, tokens, chains, numbers),
    )
    init = partial(nn.Module.init, model)
    return run_once(init, key, scene, jnp.asarray(source, jnp.float32))
