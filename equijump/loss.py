r"""What training minimises: the squared error of a jump's end, at all levels of noise.

A head $h$ of the network (see `equijump.transport.heads`) has a prior of mean $m$ and
spread $s$. With the output $F$ and the truth $y$ of a pair and a noise,
$$ L = \sum_h E_{t, z} \left\| F_h - \frac{y_h - m_h}{s_h} \right\|^2
   / (3 \cdot \mathrm{atoms}), $$
whose minimum is $m + s F = E[y \mid x_t, x_0]$ at every $t$; each level of noise counts
the same. The target is superposed on the source first: where the whole molecule tumbles
to is not learnt. Where there is no source on the path, the end may come in any
orientation, and $x_1$ gives way to what is expected of it over all of them, given $x_t$
(`common.geometry.alignment`).

Of a transport that is asked for the end of the jump, DeepJump's vector map may take the
place of the square, and two terms may be added on its bonds and contacts.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from common.generative import diffusion
from common.geometry import alignment, matrix_fisher
from common.nn.layers import safe_norm
from equijump.build import Statistics, begin_path, make_predict, scales_at, scene_of
from equijump.data.pairs import ENSEMBLE_LAG, Batch
from equijump.model import EquiJump, from_cloud, to_cloud
from equijump.transport import heads, paths

KINDS = ("quadratic", "vector_map")
VECTOR_MAP_RADIUS, VECTOR_MAP_CLIP = 25.0, 10.0
"""Å, and Å, of `vector_map_error`."""

BOND, CONTACT, BOND_LEVEL = 1.95, 2.0, 0.1
"""Å: the longest bond of heavy atoms but of two sulphurs, the closest contact of atoms
that have none, and the level of noise from which lengths lose their meaning."""


class Settings(NamedTuple):
    """What the loss takes from the config.

    Attributes:
        noise_factor: See `equijump.build.scales_at`.
        source_noise: Å, on the atoms of the source frame, so that rollouts forgive
            their own errors.
        align: Whether the target is superposed on the source.
        kind: "quadratic", or "vector_map" for transports whose only head is the end.
        bond_weight: Å^-2, of `bond_error`.
        clash_weight: Å^-2, of `clash_error`.
        unroll: Jumps of the network's own that lead to the source, see `own_source`.
        num_steps: Evaluations of the network in a jump of the sampler.
        alignment: Method of `alignment.rotation_target`, for pairs without a source on
            their path.
        free_frames: Whether no pair has one, see `equijump.build.has_free_frames`.
    """

    noise_factor: float
    source_noise: float
    align: bool
    kind: str = "quadratic"
    bond_weight: float = 0.0
    clash_weight: float = 0.0
    unroll: int = 0
    num_steps: int = 10
    alignment: str = "single"
    free_frames: bool = False


def pair_loss(
    model: EquiJump,
    transport: object,
    statistics: Statistics,
    settings: Settings,
    batch: Batch,
    key: Key[Array, ""],
) -> Float[Array, ""]:
    """Returns the loss of one pair of frames at one random time.

    Args:
        model: Bound to its parameters.
        transport: A module of `equijump.transport`.
        statistics: Of the training data.
        settings: See `Settings`.
        batch: One pair.
        key: Draws time and noises.
    """
    key_time, key_noise, key_source = jax.random.split(key, 3)
    mask = batch.slot_mask
    if settings.unroll:
        batch = own_source(
            model, transport, statistics, settings, batch, jax.random.fold_in(key, 1)
        )
    source, target = centred_pair(batch, settings.align)
    disturbance = settings.source_noise * jax.random.normal(key_source, source.shape)
    x_0 = to_cloud(source + disturbance * mask[..., None], mask)
    x_1 = to_cloud(target, mask)
    origin, of_path = begin_path(x_0, batch.lag, settings.free_frames)
    if settings.free_frames:
        x_1 = turn_at_random(jax.random.fold_in(key, 2), x_1)
    scales = scales_at(statistics, of_path, settings.noise_factor)
    t, z = transport.draw_time(key_time), paths.draw_noise(key_noise, mask)
    x_t = paths.noised(transport.path(t), scales, origin, x_1, z)
    scene = scene_of(model, batch)
    known = paths.estimate(transport.path(t), scales, origin, x_t)
    end = x_1
    if settings.alignment != "single":
        told = expected(transport.path(t), scales, x_t, x_1, mask, settings.alignment)
        free = of_path >= ENSEMBLE_LAG
        end, z = (jnp.where(free, a, b) for a, b in zip(told, (x_1, z), strict=True))
    conditioned = model.conditioner(scene, x_0)
    found = model.transport(
        scene, x_0, conditioned, known.mean, known.displacement, known.log_level
    )
    total = jnp.zeros(())
    for head, beyond in zip(transport.HEADS, found, strict=True):
        mean, std = heads.prior(head, transport.path, t, scales, origin, x_t)
        truth = heads.truth(head, transport.path, t, scales, origin, end, z)
        error = jnp.where(mask[..., None], beyond - (truth - mean) / std, 0.0)
        total += jnp.sum(jnp.square(error)) / (3 * jnp.maximum(jnp.sum(mask), 1))
    if transport.HEADS != ("end",):
        return total
    atoms = [
        from_cloud(cloud).reshape(-1, 3)
        for cloud in (x_0, x_1, known.mean + known.std * found[0])
    ]
    mask = mask.reshape(-1)
    if settings.kind == "vector_map":
        total = vector_map_error(atoms[2], atoms[1], mask)
    if settings.bond_weight:
        level = jnp.exp(known.log_level)
        total += settings.bond_weight * bond_error(*atoms, mask, level)
    if settings.clash_weight:
        total += settings.clash_weight * clash_error(atoms[0], atoms[2], mask)
    return total


def expected(
    path: paths.Path,
    scales: paths.Scales,
    x_t: Float[Array, "num_nodes num_slots 3"],
    x_1: Float[Array, "num_nodes num_slots 3"],
    mask: Bool[Array, "num_nodes num_slots"],
    method: str,
) -> diffusion.Expected:
    """Returns the end of a jump and the noise as expected over all orientations.

    Args:
        path: At the time of the noised frame; has no source.
        scales: Å, of each slot.
        x_t: Å, the noised frame.
        x_1: Å, the end, in any orientation.
        mask: True for atoms.
        method: See `alignment.rotation_target`.
    """
    flat = lambda x: x.reshape(-1, 3)
    # All noises in units of that of one slot.
    precision = jnp.square(scales.noise[0] / scales.noise)[:, 0]
    precision = jnp.broadcast_to(precision, mask.shape).reshape(-1)
    # Where nothing is seen, not even noise, every orientation is as likely.
    sigma = jnp.maximum(path.gamma, 1e-6) * scales.noise[0, 0]
    level = diffusion.Level(path.beta, sigma)
    found = diffusion.expected(
        flat(x_t), flat(x_1), level, mask.reshape(-1), precision, method
    )
    return diffusion.Expected(*(x.reshape(x_1.shape) for x in found))


def turn_at_random(
    key: Key[Array, ""], cloud: Float[Array, "num_nodes num_slots 3"]
) -> Float[Array, "num_nodes num_slots 3"]:
    """Turns a cloud, all orientations alike likely."""
    return alignment.turned(cloud, matrix_fisher.uniform(key, 1)[0])


def own_source(
    model: EquiJump,
    transport: Any,
    statistics: Statistics,
    settings: Settings,
    batch: Batch,
    key: Key[Array, ""],
) -> Batch:
    """Returns the pair with a source that the network made itself, as in a rollout.

    Were it a jump from the frame before, the pair would no longer be one of the
    dynamics. So only the end of that jump is the network's: from the inner time on at
    which the true source lies under some tenths of an Å of noise. Errors of bonds and
    angles are then the network's own, and what moves slowly is the trajectory's. This
    is repeated over all frames before the source; gradients do not go through it.

    Args:
        model: Bound to its parameters.
        transport: Has `remake`.
        statistics: Of the training data.
        settings: See `Settings`.
        batch: One pair, with frames before its source.
        key: Draws the noise.
    """
    later = jnp.concatenate([batch.before[1:], batch.source[None]])
    scales = scales_at(statistics, batch.lag, settings.noise_factor)
    noise = partial(paths.draw_noise, slot_mask=batch.slot_mask)
    source = batch.before[0]
    for number in range(settings.unroll):
        one = batch._replace(source=source, target=later[number])
        begin, end = centred_pair(one, settings.align)
        x_0, x_1 = (to_cloud(x, batch.slot_mask) for x in (begin, end))
        scene = scene_of(model, one)
        predict = make_predict(model, transport, scales, scene, x_0, x_0)
        made = transport.remake(
            predict, noise, jax.random.fold_in(key, number), x_0, x_1, scales,
            settings.num_steps,
        )  # fmt: skip
        source = from_cloud(made) * batch.slot_mask[..., None]
    return batch._replace(source=jax.lax.stop_gradient(source))


def vector_map_error(
    found: Float[Array, "num_atoms 3"],
    truth: Float[Array, "num_atoms 3"],
    mask: Bool[Array, " num_atoms"],
) -> Float[Array, ""]:
    """Returns Huber's loss (1 Å) of the errors in the vectors between all atoms.

    Of the norm of each error, so that it does not depend on the axes; pairs of atoms
    up to `VECTOR_MAP_RADIUS` apart count, each at most `VECTOR_MAP_CLIP`.
    """
    vectors = truth[:, None] - truth[None]
    error = safe_norm(found[:, None] - found[None] - vectors)
    huber = jnp.where(error < 1.0, 0.5 * jnp.square(error), error - 0.5)
    counts = _pairs(mask) & (safe_norm(vectors) < VECTOR_MAP_RADIUS)
    total = jnp.sum(jnp.where(counts, jnp.minimum(huber, VECTOR_MAP_CLIP), 0.0))
    return total / jnp.maximum(jnp.sum(counts), 1)


def bond_error(
    source: Float[Array, "num_atoms 3"],
    truth: Float[Array, "num_atoms 3"],
    found: Float[Array, "num_atoms 3"],
    mask: Bool[Array, " num_atoms"],
    level: Float[Array, ""],
) -> Float[Array, ""]:
    """Returns the mean squared error of the lengths of bonds, Å^2.

    Pairs closer than `BOND` in the source are bonds. Where much noise is on the end of
    the jump (`level`, Å), the expected end has shorter bonds than any end, so the error
    loses its weight from `BOND_LEVEL` on.
    """
    apart = lambda x: safe_norm(x[:, None] - x[None])
    bonded = _pairs(mask) & (apart(source) < BOND)
    error = jnp.where(bonded, jnp.square(apart(found) - apart(truth)), 0.0)
    weight = 1.0 / (1.0 + jnp.square(level / BOND_LEVEL))
    return weight * jnp.sum(error) / jnp.maximum(jnp.sum(bonded), 1)


def clash_error(
    source: Float[Array, "num_atoms 3"],
    found: Float[Array, "num_atoms 3"],
    mask: Bool[Array, " num_atoms"],
) -> Float[Array, ""]:
    """Returns the mean square, Å^2 an atom, by which unbonded atoms overlap.

    No two heavy atoms that are not bonded come closer than `CONTACT`.
    """
    apart = lambda x: safe_norm(x[:, None] - x[None])
    free = _pairs(mask) & (apart(source) >= BOND)
    overlap = jnp.where(free, jnp.maximum(CONTACT - apart(found), 0.0), 0.0)
    return jnp.sum(jnp.square(overlap)) / jnp.maximum(jnp.sum(mask), 1)


def _pairs(mask: Bool[Array, " num_atoms"]) -> Bool[Array, "num_atoms num_atoms"]:
    return mask[:, None] & mask[None] & ~jnp.eye(mask.shape[0], dtype=bool)


def centred_pair(
    batch: Batch, align: bool
) -> tuple[
    Float[Array, "num_nodes num_slots 3"], Float[Array, "num_nodes num_slots 3"]
]:
    """Returns source and target, centred, the target superposed if asked."""
    flat, mask = (lambda x: x.reshape(-1, 3)), batch.slot_mask.reshape(-1)
    source, _ = alignment.center(flat(batch.source), mask)
    target, _ = alignment.center(flat(batch.target), mask)
    if align:
        target = alignment.superpose(target, source, mask)
    shape = batch.source.shape
    return source.reshape(shape), target.reshape(shape)
