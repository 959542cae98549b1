"""Draws from logits of which a mask leaves some, and their law renormalised."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from symphony.arrays import Flag, Index, RandomKey, Scalar

Logits = Float[Array, " num_choices"]


def mask_logits(logits: Logits, mask: Bool[Array, " num_choices"]) -> Logits:
    """Returns logits of minus infinity where the mask is false."""
    return jnp.where(mask, logits, -jnp.inf)


def is_empty(masked: Logits) -> Flag:
    """Returns whether masked logits leave nothing to draw."""
    return jnp.all(masked == -jnp.inf)


def draw_masked(
    key: RandomKey,
    logits: Logits,
    mask: Bool[Array, " num_choices"] | None,
    temperature: Scalar,
) -> Index:
    """Draws a number by its logits, of those that a mask leaves if it leaves any."""
    if mask is not None:
        masked = mask_logits(logits, mask)
        logits = jnp.where(is_empty(masked), logits, masked)
    return jax.random.categorical(key, logits / temperature)


def log_masked(masked: Logits | None, chosen: Index) -> Scalar | None:
    """Returns the log-probability of a choice under masked logits; zero of none."""
    if masked is None:
        return None
    log_p = jax.nn.log_softmax(jnp.where(is_empty(masked), 0.0, masked))
    return log_p[chosen]


def plus(log_p: Scalar | None, more: Scalar) -> Scalar | None:
    """Returns the sum; None where there is no first term."""
    return None if log_p is None else log_p + more
