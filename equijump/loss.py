r"""What training minimises: the squared error of a jump's end, at all levels of noise.

With $m$ and $s$ from `equijump.transport.paths.estimate` and the network $F$,
$$ L = E_{t, z} \left\| F - \frac{x_1 - m}{s} \right\|^2 / (3 \cdot \mathrm{atoms}), $$
whose minimum is $m + s F = E[x_1 \mid x_t, x_0]$ at every $t$; each level counts the
same. The target is superposed on the source first: where the whole molecule tumbles to
is not learnt.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from common import alignment
from equijump.build import Statistics, scales_at, scene_of
from equijump.data.pairs import Batch
from equijump.model import EquiJump, to_cloud
from equijump.transport import paths


class Settings(NamedTuple):
    """What the loss takes from the config.

    Attributes:
        noise_factor: See `equijump.build.scales_at`.
        source_noise: Å, on the atoms of the source frame, so that rollouts forgive
            their own errors.
        align: Whether the target is superposed on the source.
    """

    noise_factor: float
    source_noise: float
    align: bool


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
    source, target = centred_pair(batch, settings.align)
    disturbance = settings.source_noise * jax.random.normal(key_source, source.shape)
    x_0 = to_cloud(source + disturbance * mask[..., None], mask)
    x_1 = to_cloud(target, mask)
    scales = scales_at(statistics, batch.lag, settings.noise_factor)
    path = transport.path(transport.draw_time(key_time))
    x_t = paths.noised(path, scales, x_0, x_1, paths.draw_noise(key_noise, mask))
    scene = scene_of(model, batch)
    known = paths.estimate(path, scales, x_0, x_t)
    conditioned = model.conditioner(scene, x_0)
    found = model.transport(
        scene, x_0, conditioned, known.mean, known.displacement, known.log_level
    )
    error = jnp.where(mask[..., None], found - (x_1 - known.mean) / known.std, 0.0)
    return jnp.sum(jnp.square(error)) / (3 * jnp.maximum(jnp.sum(mask), 1))


def centred_pair(
    batch: Batch, align: bool
) -> tuple[
    Float[Array, "num_nodes num_slots 3"], Float[Array, "num_nodes num_slots 3"]
]:
    """Returns source and target, centred, the target superposed if asked."""
    flat, mask = (lambda x: x.reshape(-1, 3)), batch.slot_mask.reshape(-1)
    source = alignment.center(flat(batch.source), mask)
    move = (
        alignment.superpose if align else lambda x, _, mask: alignment.center(x, mask)
    )
    target = move(flat(batch.target), source, mask)
    shape = batch.source.shape
    return source.reshape(shape), target.reshape(shape)
