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
from common.nn.radial import gaussian_basis
from symphony.arrays import Flag, Scalar, StepFeats, StepMask, StepScalars

LIMIT = 4.0
"""Standard scores beyond are taken for this one."""

NUM_BASIS = 16

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
        self, conditions: Conditions, fragment: Float[Array, "num_steps num_inputs"]
    ) -> tuple[StepFeats, Forecast]:
        """Returns what is added to the features of the fragment, and the forecast.

        Args:
            conditions: standard scores of the properties, by name.
            fragment: features of the fragment of each step, which know no property.
        """
        forecast = self._foresee(fragment)
        # What is asked for must not bend the forecast.
        means, log_stds = stop_gradient(forecast)
        parts = [fragment, means, log_stds]
        for k, (score, seen) in enumerate(self._scores(conditions)):
            left = score - means[:, k]
            asked = jnp.broadcast_to(score, left.shape)
            terms = (asked, left, left * jnp.exp(-log_stds[:, k]))
            parts.extend(_encode(term, seen) for term in terms)
        hidden = nn.silu(self.inputs(jnp.concatenate(parts, axis=-1)))
        return GAIN * self.outputs(nn.silu(self.mixed(hidden))), forecast

    def _foresee(self, fragment: Float[Array, "num_steps num_inputs"]) -> Forecast:
        hidden = nn.silu(self.forecast_hidden(fragment))
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


def forecast_nll(
    forecast: Forecast, truths: Mapping[str, Known], step_mask: StepMask
) -> StepScalars:
    """Evaluates a forecast against the molecule's own scores, in nats for each step.

    A constant, half of the logarithm of 2 pi for each property, is left out.

    Args:
        forecast: forecast of each step.
        truths: scores of the molecule, in the order of the forecast; those that its
            file does not state count zero.
        step_mask: true for steps of the molecule.
    """
    known = jnp.stack([one.mask for one in truths.values()])
    truth = _clipped(jnp.stack([one.value for one in truths.values()]))
    errors = (jnp.where(known, truth, 0.0) - forecast.means) * jnp.exp(
        -forecast.log_stds
    )
    terms = 0.5 * jnp.square(errors) + forecast.log_stds
    return jnp.sum(jnp.where(step_mask[:, None] & known, terms, 0.0), axis=1)


def _clipped(scores: Array) -> Array:
    return jnp.clip(scores, -LIMIT, LIMIT)


def _encode(score: Array, seen: Flag) -> Array:
    """Returns Gaussians of a score, the score and a one; zeros where it is hidden."""
    score = _clipped(score)
    basis = gaussian_basis(score, -LIMIT, LIMIT, NUM_BASIS)
    parts = [basis, score[..., None], jnp.ones_like(score)[..., None]]
    return jnp.where(seen, jnp.concatenate(parts, axis=-1), 0.0)
