r"""Draws steps that are steered towards properties, by what the network foresees.

Of several draws of a step from the law with the properties shown, each is looked at one
step ahead: which properties the fragment $S'$ that it leads to may come to have. One is
chosen with the weights

$$ p(y \mid S')^{w - 1}, \qquad p(y \mid S') = \prod_k N(y_k; \mu_k, \sigma_k), $$

over the properties $y$ that are asked for, with the forecast of
`symphony.property_inputs`. By Bayes' rule $p(y | S') / p(y | S)$ is the ratio of the
laws of a step with the properties shown and hidden, the one that classifier-free
guidance (Ho and Salimans, arXiv 2207.12598) raises to $w - 1$; here it is that of the
whole step, with its normalisation over the draws. At $w = 1$ the law is the one shown.
Log-likelihoods are those of the law shown, whatever the guidance.
"""

from functools import partial

import jax
import jax.numpy as jnp

from common.nn.conditions import Conditions
from common.nn.features import Features
from symphony import decisions
from symphony.arrays import RandomKey, Scalar
from symphony.limits import Allowed
from symphony.model import NextAtom, Symphony
from symphony.property_inputs import Forecast, log_density
from symphony.slots import Decoder, Fragment, Placement, Settings, first_or_next

NUM_PROPOSALS = 16
"""Draws from which one is chosen; the law is exact in the limit of many."""


def decide(
    model: Symphony,
    cache: decisions.Cache,
    fragment: Fragment,
    key: RandomKey,
    settings: Settings,
    mode: str,
    allowed: Allowed | None = None,
) -> Placement:
    """Draws one step of the guided law; the arguments are those of `decisions`.

    The first atom is of the law shown.
    """
    embedded = decisions.embed_fragment(model, cache, fragment, settings.conditions)
    drawn = draw_next(model, cache, fragment, key, settings, mode, *embedded, allowed)
    first = model.first_logits(settings.conditions)
    return first_or_next(key, first, settings, fragment, drawn, allowed)


def draw_next(
    model: Symphony,
    cache: decisions.Cache,
    fragment: Fragment,
    key: RandomKey,
    settings: Settings,
    mode: str,
    node_feats: Features,
    next_atom: NextAtom,
    allowed: Allowed | None,
) -> Placement:
    """Draws stop, or an atom, as one of `NUM_PROPOSALS` draws of the law shown.

    Args:
        model: network bound to its parameters.
        cache: features of the placed atoms.
        fragment: atoms placed so far.
        key: key of this step of this molecule.
        settings: temperatures, guidance and conditions.
        mode: `exact`, `tempered` or `basin`, see `generate.generate`.
        node_feats: output of the trunk.
        next_atom: logits of the one step there is.
        allowed: what may be drawn; anything where None.
    """
    key_draws, key_choice, key_density = jax.random.split(key, 3)
    around = (fragment.positions, decisions.placed_of(fragment), node_feats)

    def propose(key: RandomKey) -> decisions.Proposal:
        keys = jax.random.split(key, 4)
        return decisions.propose(
            model, keys, settings, mode, *around, next_atom, allowed
        )

    proposals = jax.vmap(propose)(jax.random.split(key_draws, NUM_PROPOSALS))
    look = partial(look_ahead, model, cache, fragment, settings.conditions)
    ahead = jax.vmap(look)(proposals)
    now = asked_log_density(next_atom.forecast, settings.conditions, model.properties)
    log_weights = jnp.where(proposals.choice.stop, now, ahead)
    chosen = jax.random.categorical(key_choice, (settings.guidance - 1.0) * log_weights)
    proposal = jax.tree.map(lambda x: x[chosen], proposals)
    forecast = decisions.means_of(next_atom)
    return decisions.place(model, key_density, proposal, *around, forecast)


def look_ahead(
    model: Symphony,
    cache: decisions.Cache,
    fragment: Fragment,
    conditions: Conditions,
    proposal: decisions.Proposal,
) -> Scalar:
    """Returns the log-density of what is asked for, foreseen after a proposal."""
    at_new = jnp.arange(fragment.species.shape[0]) == fragment.num_atoms
    choice = proposal.choice
    position = fragment.positions[choice.focus] + proposal.radius * proposal.direction
    grown = Fragment(
        positions=jnp.where(at_new[:, None], position, fragment.positions),
        species=jnp.where(at_new, choice.species, fragment.species),
        num_atoms=fragment.num_atoms + 1,
    )
    cache = decisions.extend_cache(model, cache, grown, conditions)
    forecast = model.foresee(
        grown.species,
        grown.positions,
        cache.node_feats,
        cache.messages[None],
        decisions.placed_of(grown)[None],
        conditions,
    )
    return asked_log_density(forecast, conditions, model.properties)


def asked_log_density(
    forecast: Forecast, conditions: Conditions, names: tuple[str, ...]
) -> Scalar:
    """Returns the log-density of what is asked for, by the forecast of one step.

    >>> from common.nn.conditions import Known
    >>> forecast = Forecast(jnp.array([[0.0, 1.0]]), jnp.zeros((1, 2)))
    >>> asked = {"gap": Known(jnp.array(2.0), jnp.array(True))}
    >>> asked["logP"] = Known(jnp.array(9.0), jnp.array(False))
    >>> asked_log_density(forecast, asked, ("gap", "logP"))
    Array(-2., dtype=float32)
    """
    return jnp.sum(log_density(forecast, {name: conditions[name] for name in names}))


DECODER = Decoder(
    decisions.empty_cache, decisions.extend_cache, decide, decisions.shorten_cache
)
"""Decides by the guided law; the cache is that of `decisions`."""
