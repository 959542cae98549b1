r"""What training minimises: the squared error of a jump's end, at all levels of noise.

A head $h$ of the network (see `equijump.transport.heads`) has a prior of mean $m$ and
spread $s$. With the output $F$ and the truth $y$ of a pair and a noise,
$$ L = \sum_h E_{t, z} \, \mathrm{mean}_{\mathrm{residues}} \,
   \mathrm{mean}_{\mathrm{atoms}} \left\| F_h - \frac{y_h - m_h}{s_h} \right\|^2 / 3, $$
whose minimum is $m + s F = E[y \mid x_t, x_0]$ at every $t$; each level of noise counts
the same. The target is superposed on the source first: where the whole molecule tumbles
to is not learnt. Where there is no source on the path, the end may come in any
orientation, and $x_1$ gives way to what is expected of it over all of them, given $x_t$
(`common.geometry.alignment`).

Of a transport that is asked for the end of the jump, DeepJump's vector map may take the
place of the square.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from common.generative import denoising
from common.generative.schedules import Level
from common.geometry import alignment, matrix_fisher
from common.so3.vectors import safe_norm
from equijump.build import Statistics, begin_path, make_predict, scales_of, scene_of
from equijump.cloud import Cloud, from_cloud, roots_of, to_cloud
from equijump.data.pairs import Batch
from equijump.data.residues import CA_SLOT, exchanges, num_types_of
from equijump.model import EquiJump
from equijump.scene import Scene
from equijump.transport import heads, paths

KINDS = ("quadratic", "vector_map")
VECTOR_MAP_RADIUS, VECTOR_MAP_CLIP = 25.0, 10.0
"""Å, and Å, of `vector_map_error`."""


class Settings(NamedTuple):
    """What the loss is made of: a transport, the spread of the data, the config.

    Attributes:
        transport: module of `equijump.transport`.
        statistics: spreads of the training data.
        noise_factor: noise over displacement, see `equijump.build.scales_at`.
        source_noise: noise on the atoms of the source frame, in Å, so that rollouts
            forgive their own errors.
        align: true if the target is superposed on the source.
        kind: "quadratic", or "vector_map" for transports whose only head is the end.
        unroll: number of jumps of the network that lead to the source, see
            `self_rollout`.
        num_steps: evaluations of the network in a jump of the sampler.
        median_level: level of noise around which times are drawn, see
            `foellmer.draw_time`; the transport's own law where 0.
        alignment: method of `alignment.rotation_target`, for pairs without a source on
            their path.
        random_frames: true if no pair has one, see `equijump.build.has_random_frames`.
    """

    transport: Any
    statistics: Statistics
    noise_factor: float
    source_noise: float
    align: bool
    kind: str = "quadratic"
    unroll: int = 0
    num_steps: int = 10
    alignment: str = "single"
    median_level: float = 0.0
    random_frames: bool = False


class Noised(NamedTuple):
    """A pair of frames on its path.

    Attributes:
        scene: scene of the source.
        x_0: source that the network sees, in Å.
        x_1: end of the jump, in Å.
        x_t: noised frame, in Å.
        origin: start of the path, in Å: the source or zero.
        scales: scales of the slots.
        t: time.
        z: noise.
        has_source: true if there is a source on the path.
    """

    scene: Scene
    x_0: Cloud
    x_1: Cloud
    x_t: Cloud
    origin: Cloud
    scales: paths.Scales
    t: Float[Array, ""]
    z: Cloud
    has_source: Bool[Array, ""]


class Keys(NamedTuple):
    """Keys of all that a pair draws, independent of each other."""

    time: Key[Array, ""]
    noise: Key[Array, ""]
    source: Key[Array, ""]
    rotation: Key[Array, ""]
    rollout: Key[Array, ""]


def split_key(key: Key[Array, ""]) -> Keys:
    """Splits the key of a pair.

    One split for all: `fold_in(key, i)` may equal `split(key, n)[i]`.

    >>> split_key(jax.random.key(0)).noise.shape
    ()
    """
    return Keys(*jax.random.split(key, len(Keys._fields)))


def pair_loss(
    model: EquiJump, settings: Settings, batch: Batch, key: Key[Array, ""]
) -> Float[Array, ""]:
    """Returns the loss of one pair of frames at one random time.

    Args:
        model: network, bound to its parameters.
        settings: settings of the loss.
        batch: one pair.
        key: key of the time and all noises.
    """
    keys = split_key(key)
    if settings.unroll:
        batch = self_rollout(model, settings, batch, keys.rollout)
    pair = noise_pair(model, settings, batch, keys)
    path = settings.transport.path(pair.t)
    estimate = paths.estimate(path, pair.scales, pair.origin, pair.x_t)
    conditioned = model.conditioner(pair.scene, pair.x_0)
    outputs = model.transport(pair.scene, pair.x_0, conditioned, estimate, pair.scales)
    if settings.kind == "quadratic":
        return head_errors(settings, pair, outputs)
    atoms = lambda cloud: from_cloud(cloud, pair.scene.tree).reshape(-1, 3)
    end = heads.Prior(estimate.mean, estimate.std, estimate.along).from_unit(outputs[0])
    return vector_map_error(atoms(end), atoms(pair.x_1), batch.slot_mask.reshape(-1))


def noise_pair(model: EquiJump, settings: Settings, batch: Batch, keys: Keys) -> Noised:
    """Draws time and noise, and puts a pair on its path; see `pair_loss`."""
    transport, mask = settings.transport, batch.slot_mask
    source, target = centred_pair(batch, settings.align)
    scene = scene_of(model, batch.source[:, CA_SLOT], batch)
    disturbance = settings.source_noise * jax.random.normal(keys.source, source.shape)
    x_0 = to_cloud(source + disturbance * mask[..., None], mask, scene.tree)
    x_1 = to_cloud(target, mask, scene.tree)
    origin, lag = begin_path(x_0, batch.conditions["lag"], settings.random_frames)
    if settings.random_frames:
        x_1 = random_rotation(keys.rotation, x_1)
    scales = scales_of(
        settings.statistics, lag, settings.noise_factor, batch, scene.tree
    )
    level = settings.median_level
    t = transport.draw_time(keys.time, *([level] if level else []))
    z = paths.draw_noise(keys.noise, mask, roots=roots_of(mask, scene.tree))
    x_t = paths.noised(transport.path(t), scales, origin, x_1, z)
    return Noised(scene, x_0, x_1, x_t, origin, scales, t, z, lag.mask)


def head_errors(
    settings: Settings,
    pair: Noised,
    outputs: Float[Array, "num_heads num_nodes num_slots 3"],
) -> Float[Array, ""]:
    """Returns the squared error of all heads, per number."""
    transport, path = settings.transport, settings.transport.path
    scales, origin, x_t = pair.scales, pair.origin, pair.x_t
    mask, end, z = pair.scene.slot_mask, pair.x_1, pair.z
    if settings.alignment != "single":
        mean = expected(path(pair.t), scales, x_t, end, mask, settings.alignment)
        end = jnp.where(pair.has_source, end, mean.clean)
        z = jnp.where(pair.has_source, z, mean.noise)
    total = jnp.zeros(())
    for head, output in zip(transport.HEADS, outputs, strict=True):
        prior = heads.prior(head, path, pair.t, scales, origin, x_t)
        truth = heads.truth(head, path, pair.t, scales, origin, end, z)
        error = jnp.where(mask[..., None], output - prior.to_unit(truth), 0.0)
        total += mean_over_residues(jnp.sum(jnp.square(error), axis=-1) / 3.0, mask)
    return total


def mean_over_residues(
    errors: Float[Array, "num_nodes num_slots"],
    mask: Bool[Array, "num_nodes num_slots"],
) -> Float[Array, ""]:
    """Returns the mean over residues of the mean over the atoms of each.

    >>> errors, mask = jnp.array([[1.0, 3.0], [4.0, 0.0]]), jnp.array([[1, 1], [1, 0]])
    >>> float(mean_over_residues(errors, mask > 0))
    3.0
    """
    counts = jnp.sum(mask, axis=-1)
    means = jnp.sum(jnp.where(mask, errors, 0.0), -1) / jnp.maximum(counts, 1)
    return jnp.sum(means) / jnp.maximum(jnp.sum(counts > 0), 1)


def expected(
    path: paths.Path,
    scales: paths.Scales,
    x_t: Cloud,
    x_1: Cloud,
    mask: Bool[Array, "num_nodes num_slots"],
    method: str,
) -> denoising.Expected:
    """Returns the end of a jump and the noise as expected over all orientations.

    Args:
        path: path at the time of the noised frame, without a source.
        scales: scales of each slot, in Å.
        x_t: noised frame, in Å.
        x_1: end of the jump, in Å, in any orientation.
        mask: true for atoms.
        method: method of `alignment.rotation_target`.
    """
    flat = lambda x: x.reshape(-1, 3)
    # All noises in units of that of one slot.
    unit = scales.noise.reshape(-1)[0]
    precision = jnp.square(unit / scales.noise)[..., 0]
    precision = jnp.broadcast_to(precision, mask.shape).reshape(-1)
    # Where nothing is seen, not even noise, every orientation is as likely.
    sigma = jnp.maximum(path.gamma, 1e-6) * unit
    level = Level(path.beta, sigma)
    found = denoising.expected(
        flat(x_t), flat(x_1), level, mask.reshape(-1), precision, method
    )
    return denoising.Expected(*(x.reshape(x_1.shape) for x in found))


def random_rotation(key: Key[Array, ""], cloud: Cloud) -> Cloud:
    """Rotates a cloud by a uniform rotation.

    >>> cloud = random_rotation(jax.random.key(0), jnp.ones((1, 14, 3)))
    >>> round(float(jnp.linalg.norm(cloud[0, 0])), 3)
    1.732
    """
    return alignment.rotate(cloud, matrix_fisher.uniform(key, 1)[0])


def self_rollout(
    model: EquiJump, settings: Settings, batch: Batch, key: Key[Array, ""]
) -> Batch:
    """Returns the pair with a source that the network made itself, as in a rollout.

    Were it a jump from the frame before, the pair would no longer be one of the
    dynamics. So only the end of that jump is the network's: from the inner time on at
    which the true source lies under some tenths of an Å of noise. Errors of bonds and
    angles are then the network's own, and what moves slowly is the trajectory's. This
    is repeated over all frames before the source; gradients do not go through it.

    Args:
        model: network, bound to its parameters.
        settings: settings of the loss; the transport has `remake`.
        batch: one pair, with frames before its source.
        key: key of the noise.
    """
    later = jnp.concatenate([batch.before[1:], batch.source[None]])
    transport, mask = settings.transport, batch.slot_mask
    keys = jax.random.split(key, len(later))
    source = batch.before[0]
    for target, key in zip(later, keys, strict=True):
        pair = batch._replace(source=source, target=target)
        scene = scene_of(model, source[:, CA_SLOT], batch)
        x_0, x_1 = (
            to_cloud(x, mask, scene.tree) for x in centred_pair(pair, settings.align)
        )
        scales = scales_of(
            settings.statistics, batch.conditions["lag"], settings.noise_factor, batch,
            scene.tree,
        )  # fmt: skip
        noise = partial(
            paths.draw_noise, slot_mask=mask, roots=roots_of(mask, scene.tree)
        )
        predict = make_predict(model, transport, scales, scene, x_0, x_0)
        request = paths.Request(predict, noise, key, x_0, scales, settings.num_steps)
        remade = transport.remake(request, x_1)
        source = from_cloud(remade, scene.tree) * mask[..., None]
    return batch._replace(source=jax.lax.stop_gradient(source))


def vector_map_error(
    output: Float[Array, "num_atoms 3"],
    truth: Float[Array, "num_atoms 3"],
    mask: Bool[Array, " num_atoms"],
) -> Float[Array, ""]:
    """Returns Huber's loss (1 Å) of the errors in the vectors between all atoms.

    Of the norm of each error, so that it does not depend on the axes; pairs of atoms
    up to `VECTOR_MAP_RADIUS` apart count, each at most `VECTOR_MAP_CLIP`.

    >>> truth, mask = jnp.eye(3), jnp.ones(3, bool)
    >>> float(vector_map_error(truth + 5.0, truth, mask)) < 1e-9
    True
    """
    vectors = truth[:, None] - truth[None]
    error = safe_norm(output[:, None] - output[None] - vectors)
    huber = jnp.where(error < 1.0, 0.5 * jnp.square(error), error - 0.5)
    counts = mask[:, None] & mask[None] & ~jnp.eye(mask.shape[0], dtype=bool)
    counts &= safe_norm(vectors) < VECTOR_MAP_RADIUS
    total = jnp.sum(jnp.where(counts, jnp.minimum(huber, VECTOR_MAP_CLIP), 0.0))
    return total / jnp.maximum(jnp.sum(counts), 1)


def centred_pair(batch: Batch, align: bool) -> tuple[Cloud, Cloud]:
    """Returns source and target, centred, the target superposed if asked.

    Of a target that is superposed, atoms whose names mean nothing have those that bring
    it nearest to the source. They have no say in the superposition.
    """
    flat, mask = (lambda x: x.reshape(-1, 3)), batch.slot_mask.reshape(-1)
    source, _ = alignment.center(flat(batch.source), mask)
    target, _ = alignment.center(flat(batch.target), mask)
    shape = batch.source.shape
    if not align:
        return source.reshape(shape), target.reshape(shape)
    exchange = _exchange_of(batch)
    named = mask & (exchange == jnp.arange(shape[1])).reshape(-1)
    centred = [alignment.center(x, named)[0] for x in (source, target)]
    rotation = alignment.kabsch_rotation(alignment.cross_covariance(*centred, named))
    target = alignment.rotate(target, rotation)
    source, target = source.reshape(shape), target.reshape(shape)
    return source, exchange_atoms(target, source, exchange)


def _exchange_of(batch: Batch) -> Int[Array, "num_nodes num_slots"]:
    """Returns the slot whose atom may come to each slot, see `exchanges`."""
    table = exchanges(num_types_of(batch.slot_mask.shape[-1]))
    return jnp.asarray(table)[batch.tokens]


def exchange_atoms(
    target: Cloud, source: Cloud, exchange: Int[Array, "num_nodes num_slots"]
) -> Cloud:
    """Names the symmetric atoms of each residue so that they are nearest to a source.

    Args:
        target: positions in slots, in Å, superposed on the source.
        source: positions in slots, in Å.
        exchange: slot whose atom each slot has after the exchange.

    >>> source = jnp.arange(6.0).reshape(1, 2, 3)
    >>> exchange_atoms(source[:, ::-1] + 0.1, source, jnp.array([[1, 0]]))[0, 0, 0]
    Array(0.1, dtype=float32)
    """
    other = jnp.take_along_axis(target, exchange[..., None], axis=1)
    distance = lambda x: jnp.sum(jnp.square(x - source), axis=(1, 2), keepdims=True)
    return jnp.where(distance(other) < distance(target), other, target)
