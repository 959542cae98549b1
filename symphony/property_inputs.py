r"""How properties enter Symphony's network: what is asked, beside what is foreseen.

The trunk sees no property, so that its features serve the laws with and without them.
A head foresees the properties of the finished molecule from the fragment of a step,
trained by their normal likelihood; what is asked for enters beside what is foreseen,

$$ h_t \mathrel{+}= g\big(y, (y - \mu_t) / \sigma_t, \mu_t, \sigma_t, f_t\big), $$

with $y$ the standard scores that are asked for, $\mu_t, \sigma_t$ those foreseen from
the features $f_t$ of the fragment, and $h_t$ the features that every decision reads.
The last layers of $g$ are zero at the start, so that weights without properties give
the same numbers. No paper has this form; the terms that are hidden at random are those
of classifier-free guidance (Ho and Salimans, arXiv 2207.12598).
"""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from common.nn.conditions import Conditions, Known
from common.nn.features import Features
from common.nn.linear import Linear
from common.nn.radial import gaussian_basis
from common.so3.irreps import Irrep
from common.so3.vectors import safe_norm
from symphony.arrays import Flag, PlacedMask, Positions, Scalar, StepFeats

LIMIT = 4.0
"""Standard scores beyond are taken for this one."""

NUM_BASIS, NUM_MOMENTS = 16, 16

GAIN = 8.0
"""Factor of the terms that start at zero: Muon's steps have one size for all matrices,
and these have further to go."""


class Forecast(NamedTuple):
    """Normal laws of the scores of the finished molecule, foreseen at each step.

    Attributes:
        means: means, properties in the last axis.
        log_stds: logarithms of the standard deviations.
    """

    means: Float[Array, "num_steps num_properties"]
    log_stds: Float[Array, "num_steps num_properties"]


class Whole(NamedTuple):
    """A fragment at each step, as the network sees it without properties.

    Attributes:
        feats: features of the whole fragment.
        hidden: features of its atoms at each step.
        node_feats: output of the trunk.
        positions: positions of the atoms, in Å.
        placed: true for the atoms placed at each step.
    """

    feats: Float[Array, "num_steps num_inputs"]
    hidden: Float[Array, "num_steps num_nodes num_channels"]
    node_feats: Features
    positions: Positions
    placed: PlacedMask


class PropertyInputs(nn.Module):
    """Maps standard scores of properties, some hidden, to terms of two layers.

    Attributes:
        names: names of the properties.
        features: width of the network; the layers here are twice as wide.
        num_species: size of the species table.
    """

    names: tuple[str, ...]
    features: int
    num_species: int

    def setup(self) -> None:
        wide = 2 * self.features
        zeros = {"use_bias": False, "kernel_init": nn.initializers.zeros}
        self.first_hidden = nn.Dense(self.features)
        self.first_outputs = nn.Dense(self.num_species, **zeros)
        self.charges = nn.Dense(NUM_MOMENTS, use_bias=False)
        self.dipoles = Linear(f"{NUM_MOMENTS}x1o")
        self.forecast_hidden = nn.Dense(wide)
        self.forecast_mixed = nn.Dense(wide)
        self.forecast_outputs = nn.Dense(
            2 * len(self.names), kernel_init=nn.initializers.normal(0.01)
        )
        self.inputs = nn.Dense(wide)
        self.mixed = nn.Dense(wide)
        self.outputs = nn.Dense(self.features, **zeros)

    def first(self, conditions: Conditions) -> Float[Array, " num_species"]:
        """Returns what is added to the logits of the species of the first atom."""
        asked = [_encode(score, seen) for score, seen in self._scores(conditions)]
        return GAIN * self.first_outputs(
            nn.silu(self.first_hidden(jnp.concatenate(asked)))
        )

    def __call__(
        self, conditions: Conditions, whole: Whole
    ) -> tuple[StepFeats, Forecast]:
        """Returns what is added to the features of the fragment, and the forecast.

        Args:
            conditions: standard scores of the properties, by name.
            whole: fragment of each step.
        """
        feats = self._look(whole)
        forecast = self._foresee(feats)
        # What is asked for must not bend the forecast.
        means, log_stds = stop_gradient(forecast)
        parts = [feats, means, log_stds]
        for k, (score, seen) in enumerate(self._scores(conditions)):
            left = score - means[:, k]
            asked = jnp.broadcast_to(score, left.shape)
            terms = (asked, left, left * jnp.exp(-log_stds[:, k]))
            parts.extend(_encode(term, seen) for term in terms)
        hidden = nn.silu(self.inputs(jnp.concatenate(parts, axis=-1)))
        return GAIN * self.outputs(nn.silu(self.mixed(hidden))), forecast

    def foresee(self, whole: Whole) -> Forecast:
        """Returns the properties that the fragments of steps may come to have."""
        return self._foresee(self._look(whole))

    def _look(self, whole: Whole) -> Float[Array, "num_steps num_inputs"]:
        r"""Returns features of the fragments, with sizes of moments beside them.

        A moment is $\sum_i (q_i - \bar q) r_i + d_i$, with charges $q_i$ and vectors
        $d_i$ of the atoms: a network of scalars alone does not see what a molecule's
        dipoles add up to.
        """
        weight = whole.placed[..., None].astype(whole.hidden.dtype)
        charges = self.charges(whole.hidden)
        count = jnp.maximum(jnp.sum(weight, axis=1, keepdims=True), 1.0)
        charges -= jnp.sum(charges * weight, axis=1, keepdims=True) / count
        moments = jnp.einsum("tnk,nx->tkx", charges * weight, whole.positions)
        dipoles = self.dipoles(whole.node_feats)[Irrep(1, -1)]
        moments += jnp.einsum("tn,nxk->tkx", weight[..., 0], dipoles)
        return jnp.concatenate([whole.feats, safe_norm(moments) / 4.0], axis=-1)

    def _foresee(self, feats: Float[Array, "num_steps num_inputs"]) -> Forecast:
        hidden = nn.silu(self.forecast_hidden(feats))
        outputs = self.forecast_outputs(nn.silu(self.forecast_mixed(hidden)))
        means, log_stds = jnp.split(outputs, 2, axis=-1)
        return Forecast(means, jnp.clip(log_stds, -4.0, 1.0))

    def _scores(self, conditions: Conditions) -> list[tuple[Scalar, Flag]]:
        """Returns the score of each property, zero where hidden, and if it is seen."""
        found = []
        for name in self.names:
            value, seen = conditions[name]
            found.append((_clipped(jnp.where(seen, value, 0.0)), seen))
        return found


def log_density(
    forecast: Forecast, scores: Mapping[str, Known]
) -> Float[Array, "num_steps num_properties"]:
    """Returns the log-density of scores by the forecast of each step.

    A constant, half of the logarithm of 2 pi, is left out.

    Args:
        forecast: forecast of each step.
        scores: scores, in the order of the forecast; those that are not known, or not
            asked for, count zero.
    """
    known = jnp.stack([one.mask for one in scores.values()])
    values = _clipped(jnp.stack([one.value for one in scores.values()]))
    means, log_stds = forecast
    errors = (jnp.where(known, values, 0.0) - means) * jnp.exp(-log_stds)
    return jnp.where(known, -0.5 * jnp.square(errors) - log_stds, 0.0)


def _clipped(scores: Array) -> Array:
    return jnp.clip(scores, -LIMIT, LIMIT)


def _encode(score: Array, seen: Flag) -> Array:
    """Returns Gaussians of a score, the score and a one; zeros where it is hidden."""
    score = _clipped(score)
    basis = gaussian_basis(score, -LIMIT, LIMIT, NUM_BASIS)
    parts = [basis, score[..., None], jnp.ones_like(score)[..., None]]
    return jnp.where(seen, jnp.concatenate(parts, axis=-1), 0.0)
