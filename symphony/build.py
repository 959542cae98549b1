"""Builds a model and its loss from a config: the two kinds of Symphony there are."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float, Key

from common.nn.conditions import Conditions, known
from symphony import decisions, loss
from symphony.conditions import names_of, some_known
from symphony.data import Batch
from symphony.generate import Decoder
from symphony.kinds.paper import decisions as paper_decisions
from symphony.kinds.paper import loss as paper_loss
from symphony.kinds.paper.model import PaperSymphony
from symphony.model import Symphony
from symphony.orders import Cut, Law, cut, draw_cut_noise

Totals = dict[str, Float[Array, ""]]


class Kind(NamedTuple):
    """What training and sampling need of a kind of model.

    Attributes:
        make: `(atomic_numbers=..., **config.model) -> module`.
        totals: `(bound model, cut, conditions, key) -> Totals`: terms of the negative
            log-likelihood of one molecule summed over its steps (for a model that
            evaluates one step, that step times their number), among them `nll`, in
            nats, and `num_steps`.
        decoder: See `symphony.generate`.
    """

    make: Callable[..., nn.Module]
    totals: Callable[[nn.Module, Cut, Conditions, Key[Array, ""]], Totals]
    decoder: Decoder


def make_model(config: ml_collections.ConfigDict) -> nn.Module:
    """Returns the module that a config describes.

    Raises:
        ValueError: `config.kind` is unknown.
    """
    make = kind_of(config).make
    return make(atomic_numbers=tuple(config.data.species), **config.model)


def kind_of(config: ml_collections.ConfigDict) -> Kind:
    """Returns the kind of model that a config names."""
    if config.kind not in KINDS:
        raise ValueError(
            f"config.kind: expected one of {', '.join(KINDS)}; found {config.kind}"
        )
    return KINDS[config.kind]


def draw_cut(
    config: ml_collections.ConfigDict,
    key: Key[Array, ""],
    positions: Float[Array, "num_nodes 3"],
    species: Array,
    node_mask: Array,
) -> Cut:
    """Draws the order in which a molecule is built, by the law in `config.data`."""
    data = config.data
    is_heavy = jnp.asarray(np.array(data.species) > 1)
    law = Law(is_heavy, data.nn_tolerance, data.cutoff, data.heavy_first)
    noise = draw_cut_noise(key, positions.shape[0])
    return cut(noise, positions, species, node_mask, law)


def molecule_totals(
    config: ml_collections.ConfigDict,
    model: nn.Module,
    params: Any,
    batch: Batch,
    key: Key[Array, ""],
    train: bool,
) -> Totals:
    """Cuts one molecule and evaluates its steps; no coordinate noise outside training.

    Half of the molecules in training have none either; for the others its standard
    deviation is uniform up to `config.data.noise_std`. (The paper's model adds its own,
    always.)
    """
    key_cut, key_level, key_terms = jax.random.split(key, 3)
    drawn = draw_cut(config, key_cut, batch.positions, batch.species, batch.node_mask)
    coin, level = jax.random.uniform(key_level, (2,))
    noise_std = jnp.where(coin < 0.5, 0.0, level) * config.data.noise_std
    noise_std = noise_std if train else jnp.zeros(())
    bound = model.bind(params)
    given = {**batch.conditions, **known({"noise_std": noise_std})}
    return kind_of(config).totals(bound, drawn, given, key_terms)


def make_loss(
    config: ml_collections.ConfigDict, mean_num_atoms: float
) -> Callable[[Any, Batch, Key[Array, " batch"]], tuple[Float[Array, ""], Totals]]:
    """Returns `(params, batch, keys) -> (loss, totals)`, means over the molecules.

    The loss is the negative log-likelihood of a molecule over the mean number of steps
    of a molecule in the data: nats per step.
    """
    model = make_model(config)

    def loss_fn(
        params: Any, batch: Batch, keys: Key[Array, " batch"]
    ) -> tuple[Float[Array, ""], Totals]:
        one = partial(molecule_totals, config, model, params, train=True)
        totals = jax.vmap(one)(batch, keys)
        totals = jax.tree.map(jnp.mean, totals)
        return totals["nll"] / mean_num_atoms, totals

    return loss_fn


def init_params(config: ml_collections.ConfigDict, key: Key[Array, ""]) -> Any:
    """Returns fresh parameters."""
    kind = kind_of(config)
    num_nodes = 4
    example = Cut(
        positions=jnp.asarray(np.eye(num_nodes, 3), jnp.float32),
        species=jnp.zeros(num_nodes, jnp.int32),
        node_mask=jnp.ones(num_nodes, bool),
        focus=jnp.zeros(num_nodes, jnp.int32),
        labels=jnp.zeros((num_nodes, num_nodes, len(config.data.species))),
        log_law=jnp.zeros(num_nodes),
        log_first=jnp.zeros(()),
        order=jnp.arange(num_nodes, dtype=jnp.int32),
        complete=jnp.array(True),
    )

    def run(module: nn.Module) -> Totals:
        given = some_known({"noise_std": 0.0}, names_of(config))
        return kind.totals(module, example, given, jax.random.key(0))

    return jax.jit(lambda key: nn.init(run, make_model(config))(key))(key)


KINDS = {
    "symphony": Kind(
        make=Symphony,
        totals=loss.molecule_totals,
        decoder=Decoder(
            decisions.empty_cache, decisions.extend_cache, decisions.decide
        ),
    ),
    "paper": Kind(
        make=PaperSymphony,
        totals=paper_loss.molecule_totals,
        decoder=Decoder(
            paper_decisions.empty_cache,
            paper_decisions.extend_cache,
            paper_decisions.decide,
        ),
    ),
}
