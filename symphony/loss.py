r"""Negative log-likelihood of the steps that build a molecule.

With $S_t$ the atoms `0..t`, a step that places an atom of species $s$ at $r$ from the
focus $i$ costs

$$ -\log p(i, s \mid S_t) - \log p(|r|) - \log p(\hat r \mid |r|), $$

per Å and steradian (per Å³ it would be $2 \log |r|$ more, which has no parameter),
and the last step $-\log p(\mathrm{stop} \mid S_t)$. The direction is drawn in two
stages, $p(\hat r) = \int p_c(\hat u)\, p_f(\hat r \mid \hat u)\, d\hat u$; its
log-density is bounded from below with a fixed blur $q(\hat u \mid \hat r)$ by
$E_q[\log p_c(\hat u) + \log p_f(\hat r \mid \hat u) - \log q(\hat u \mid \hat r)]$,
which is what training maximises. With properties, the forecast of each step
(`symphony.property_inputs`) is trained beside it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.conditions import Conditions, Known
from symphony import columns
from symphony.arrays import (
    Positions,
    RandomKey,
    Scalar,
    StepFeats,
    StepMask,
    StepScalars,
)
from symphony.densities import (
    blur,
    blur_log_density,
    coarse_logits,
    fine_log_density,
    log_normaliser,
    radial_log_density,
)
from symphony.model import NextAtom, Surroundings, Symphony
from symphony.orders import Cut
from symphony.property_inputs import Forecast, log_density

FORECAST_WEIGHT = 0.5
"""Weight of the forecast beside the negative log-likelihood."""


class StepTerms(NamedTuple):
    """Negative log-likelihoods of the steps of one molecule, in nats.

    Attributes:
        first: term of the species of the first atom.
        focus: term of focus and species, or stopping at the last step; cross-entropy
            with the shares of the candidate edges.
        radial: term of the distance from the focus, per Å.
        coarse: term of the coarse direction, per steradian.
        fine: term of the direction given the coarse, less that of the blur; `coarse`
            and `fine` add up to the bound for the direction, per steradian.
        step_mask: true for steps of the molecule; none of one that has no complete
            order, see `Cut`.
        place_mask: true for steps that place an atom.
        forecast: term of the properties foreseen; None without any.
    """

    first: Scalar
    focus: StepScalars
    radial: StepScalars
    coarse: StepScalars
    fine: StepScalars
    step_mask: StepMask
    place_mask: StepMask
    forecast: StepScalars | None = None


def step_terms(
    model: Symphony, cut: Cut, conditions: Conditions, noise: Positions, key: RandomKey
) -> StepTerms:
    """Evaluates all steps of one molecule, teacher-forced.

    Args:
        model: network bound to its parameters.
        cut: molecule in an order of generation.
        conditions: conditions of the network; `noise_std` (Å) is that of the noise on
            the atoms already placed.
        noise: standard normal numbers.
        key: key of the coarse directions.
    """
    num_nodes = cut.species.shape[0]
    steps = jnp.arange(num_nodes)
    positions = cut.positions + conditions["noise_std"].value * noise
    placed = (steps <= steps[:, None]) & cut.node_mask
    num_atoms = jnp.sum(cut.node_mask)
    step_mask = (steps < num_atoms) & cut.complete
    place_mask = (steps < num_atoms - 1) & cut.complete
    node_feats, next_atom = model.embed_steps(
        cut.species, positions, cut.node_mask, placed, conditions
    )

    focus = cut.focus
    target = jnp.minimum(steps + 1, num_nodes - 1)
    vectors = cut.positions[target] - positions[focus]
    vectors = jnp.where(place_mask[:, None], vectors, jnp.array([1.2, 0.0, 0.0]))
    condition = model.position_condition(
        node_feats, next_atom, focus, cut.species[target]
    )
    around = Surroundings(node_feats, positions, focus, placed)
    radial, coarse, fine = _position_terms(model, condition, vectors, around, key)
    first = jax.nn.log_softmax(model.first_logits(conditions))[cut.species[0]]
    masked = lambda mask, values: jnp.where(mask, values, 0.0)
    truths = columns.truths(conditions, model.properties)
    return StepTerms(
        first=-first,
        focus=masked(step_mask, _focus_nll(next_atom, cut.labels, place_mask)),
        radial=masked(place_mask, -radial),
        coarse=masked(place_mask, -coarse),
        fine=masked(place_mask, -fine),
        step_mask=step_mask,
        place_mask=place_mask,
        forecast=_forecast_nll(next_atom.forecast, truths, step_mask),
    )


def _forecast_nll(
    forecast: Forecast | None, truths: dict[str, Known], step_mask: StepMask
) -> StepScalars | None:
    """Returns how little the properties of the molecule were foreseen, in nats."""
    if forecast is None:
        return None
    log_densities = jnp.sum(log_density(forecast, truths), axis=1)
    return jnp.where(step_mask, -log_densities, 0.0)


def _focus_nll(
    next_atom: NextAtom,
    labels: Float[Array, "num_steps num_nodes num_species"],
    place_mask: StepMask,
) -> StepScalars:
    """Returns the cross-entropy of focus and species, or of stopping, in nats."""
    logits = next_atom.focus_species
    log_total = jnp.logaddexp(jax.nn.logsumexp(logits, axis=(1, 2)), next_atom.stop)
    hit = jnp.sum(jnp.where(labels > 0, labels * logits, 0.0), axis=(1, 2))
    return log_total - jnp.where(place_mask, hit, next_atom.stop)


def _position_terms(
    model: Symphony,
    condition: StepFeats,
    vectors: Float[Array, "num_steps 3"],
    around: Surroundings,
    key: RandomKey,
) -> tuple[StepScalars, ...]:
    """Returns the log-densities of radius, coarse direction and fine direction.

    Args:
        model: bound to its parameters.
        condition: input of the position heads.
        vectors: vectors from the focus to the new atom, in Å.
        around: atoms that the position heads see.
        key: key of the coarse directions.
    """
    length = jnp.linalg.norm(vectors, axis=-1)
    direction = vectors / length[:, None]
    margin = 1e-4
    low, high = model.min_radius, model.max_radius
    radius = jnp.clip(length, low + margin, high - margin)
    radial = radial_log_density(model.radial(condition), radius, low, high)
    coefficients = model.coarse(condition, radius, around)
    coarse_direction = blur(key, direction, model.blur)
    coarse = coarse_logits(coefficients, coarse_direction)
    coarse -= log_normaliser(coefficients, model.grid)
    mixture = model.fine(condition, radius, coarse_direction, around)
    fine = fine_log_density(mixture, direction)
    fine -= blur_log_density(direction, coarse_direction, model.blur)
    return radial, coarse, fine


def totals(terms: StepTerms) -> dict[str, Scalar]:
    """Adds up the steps of one molecule; nats, and the number of steps.

    A forecast is no part of `nll`.
    """
    sums = {
        "focus": jnp.sum(terms.focus),
        "radial": jnp.sum(terms.radial),
        "coarse": jnp.sum(terms.coarse),
        "fine": jnp.sum(terms.fine),
    }
    nll = terms.first + sum(sums.values())
    if terms.forecast is not None:
        sums["forecast"] = jnp.sum(terms.forecast)
    return sums | {"nll": nll, "num_steps": jnp.sum(terms.step_mask) * 1.0}


def molecule_totals(
    model: Symphony, cut: Cut, conditions: Conditions, key: RandomKey
) -> dict[str, Scalar]:
    """Evaluates all steps of a molecule in one pass of the causal trunk."""
    key_noise, _, key_direction = jax.random.split(key, 3)
    noise = jax.random.normal(key_noise, cut.positions.shape)
    return totals(step_terms(model, cut, conditions, noise, key_direction))
