r"""Attention over the senders of each receiver.

The *hard* form is a softmax over the edges that exist, that is where the envelope u is
not zero. Its weights sum to one, and jump when an edge comes or goes. The *smooth* form
(EquiformerV3, arXiv:2604.09130),
$$ a_{ij} = u_{ij} \alpha_{ij}, \qquad
   \alpha_{ij} = \frac{u_{ij} e^{z_{ij}}}{\epsilon + \sum_k u_{ik} e^{z_{ik}}}, $$
vanishes with its first derivative where u does.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.activations import leaky_relu
from common.nn.features import Features

EPSILON = 1e-6
"""Number beside the sum of the smooth form: the weight of nobody."""

MAX_SHIFT = 10.0
"""Largest shift that also scales `EPSILON`, so that its share never underflows."""

Logits = Float[Array, "num_receivers num_senders num_heads"]


def attention_weights(
    logits: Logits, envelope: Float[Array, "num_receivers num_senders"], smooth: bool
) -> Logits:
    """Returns the weights of the values of all edges; zero where there is none.

    >>> logits = jnp.zeros((1, 3, 1))
    >>> envelope = jnp.array([[1.0, 0.5, 0.0]])
    >>> attention_weights(logits, envelope, smooth=False).ravel().tolist()
    [0.5, 0.5, 0.0]
    >>> smooth = attention_weights(logits, envelope, smooth=True)
    >>> [round(float(weight), 3) for weight in smooth.ravel()]
    [0.667, 0.167, 0.0]

    Args:
        logits: logits z of edges and heads.
        envelope: envelope u of edges.
        smooth: true for the smooth form.
    """
    exists = envelope[..., None] > 0.0
    # A maximum must exist without edges too. In the smooth form zero may count as a
    # logit: far below it all weights are zero anyhow.
    least = 0.0 if smooth else -1e9
    highest = jnp.max(logits, axis=1, keepdims=True, where=exists, initial=least)
    shift = jax.lax.stop_gradient(highest)
    shifted = jnp.where(exists, logits - shift, 0.0)
    if smooth:
        scaled = envelope[..., None] * jnp.exp(shifted)
        rest = EPSILON * jnp.exp(-jnp.minimum(shift, MAX_SHIFT))
        total = rest + jnp.sum(scaled, axis=1, keepdims=True)
        return envelope[..., None] * scaled / total
    raised = jnp.where(exists, jnp.exp(shifted), 0.0)
    total = jnp.sum(raised, axis=1, keepdims=True)
    return raised / jnp.where(total > 0.0, total, 1.0)


class AttentionLogits(nn.Module):
    r"""Logits of edges from their invariants: $z_h = a_h^\top \mathrm{LeakyReLU}(f_h)$.

    Attributes:
        num_heads: number of heads, each with its part of the invariants.
        normalize: true for a layer norm of every part first, the re-normalisation of
            EquiformerV2 (arXiv:2306.12059).
    """

    num_heads: int
    normalize: bool

    @nn.compact
    def __call__(
        self, scalars: Float[Array, "num_receivers num_senders channels"]
    ) -> Logits:
        each = scalars.shape[-1] // self.num_heads
        scalars = scalars.reshape(*scalars.shape[:2], self.num_heads, each)
        if self.normalize:
            scalars = nn.LayerNorm()(scalars)
        init = nn.initializers.variance_scaling(
            1.0, "fan_in", "truncated_normal", in_axis=-1, out_axis=-2
        )
        vectors = self.param("vectors", init, scalars.shape[-2:])
        return jnp.sum(leaky_relu(scalars) * vectors, axis=-1)


def by_head(weights: Logits, num_channels: int) -> Float[Array, "... num_channels"]:
    """Returns the weights as factors of values whose channels the heads share.

    >>> by_head(jnp.array([[[1.0, 2.0]]]), 4).tolist()
    [[[1.0, 1.0, 2.0, 2.0]]]
    """
    return jnp.repeat(weights, num_channels // weights.shape[-1], axis=-1)


def attend(weights: Logits, values: Features) -> Features:
    """Sums the values of the edges with their weights at the receivers.

    >>> from common.so3.irreps import SCALAR
    >>> values = {SCALAR: jnp.ones((1, 3, 1, 4))}
    >>> attend(jnp.ones((1, 3, 2)), values)[SCALAR].tolist()
    [[[3.0, 3.0, 3.0, 3.0]]]
    """
    return {
        irrep: jnp.sum(by_head(weights, part.shape[-1])[:, :, None] * part, axis=1)
        for irrep, part in values.items()
    }
