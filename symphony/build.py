"""Puts a config's pieces together: the kinds of model, their networks and losses."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Key

from common.errors import UsageError
from common.programs import run_once
from common.runs.config import Rules
from symphony import columns, decisions, loss, rules
from symphony.arrays import RandomKey, Scalar
from symphony.data import Batch, Molecules
from symphony.kinds import stepwise
from symphony.kinds.denoiser import build as denoiser
from symphony.kinds.energy import build as energy
from symphony.kinds.paper import decisions as paper_decisions
from symphony.kinds.paper import loss as paper_loss
from symphony.kinds.paper.model import PaperSymphony
from symphony.kinds.stepwise import Totals
from symphony.kinds.stepwise import draw_cut as draw_cut
from symphony.model import Symphony
from symphony.slots import Decoder

Labels = tuple[Sequence[str], Sequence[str]]


class Kind(NamedTuple):
    """Functions of a kind of model for training and sampling.

    Attributes:
        make: function `config -> module`.
        run: function `(config, bound module)` that evaluates the module once, which
            makes its parameters.
        totals: function `(config, bound module, batch, key, train) -> Totals`: terms of
            the loss of one molecule summed over its steps (for a model that evaluates
            one step, that step times their number), among them `loss_name` and
            `num_steps`.
        loss_name: term that is minimised.
        beside: terms that are minimised beside it where there are any, with their
            weights.
        labels: function of the config that names what the data must say of molecules
            and of atoms, for the network to foresee.
        unit: unit of that term.
        mean_steps: mean of `num_steps`, by the metadata of the data.
        prepare: function that leaves out the molecules that the kind cannot learn.
        rules: ranges and choices of the config, see `common.runs.config.check`.
        fixed: fields that must not change in a run, see `common.runs.loop.Parts`.
        decoder: functions of `symphony.generate`; None if the kind builds no molecules.
    """

    make: Callable[[ml_collections.ConfigDict], nn.Module]
    run: Callable[[ml_collections.ConfigDict, nn.Module], Any]
    totals: Callable[..., Totals]
    loss_name: str
    unit: str
    mean_steps: Callable[[dict[str, Any]], float]
    prepare: Callable[[ml_collections.ConfigDict, Molecules], Molecules]
    rules: Rules
    fixed: tuple[str, ...]
    decoder: Decoder | None = None
    beside: tuple[tuple[str, float], ...] = ()
    labels: Callable[[ml_collections.ConfigDict], Labels] = lambda config: ((), ())


def kind_of(config: ml_collections.ConfigDict) -> Kind:
    """Returns the kind of model that a config names.

    Raises:
        UsageError: `config.kind` is missing or unknown.
    """
    found = config.kind if "kind" in config else None
    if found not in KINDS:
        raise UsageError(
            f"config.kind: expected one of {', '.join(KINDS)}; found {found}"
        )
    return KINDS[found]


def make_model(config: ml_collections.ConfigDict) -> nn.Module:
    """Returns the module that a config describes."""
    return kind_of(config).make(config)


def init_params(config: ml_collections.ConfigDict, key: RandomKey) -> Any:
    """Returns fresh parameters."""
    run = partial(kind_of(config).run, config)
    return run_once(nn.init(run, make_model(config)), key)


def make_loss(
    config: ml_collections.ConfigDict, mean_steps: float
) -> Callable[[Any, Batch, Key[Array, " batch"]], tuple[Scalar, Totals]]:
    """Returns `(params, batch, keys) -> (loss, totals)`, means over the molecules.

    The loss is the term that is minimised over the mean number of steps of a molecule
    in the data: for a model that builds molecules, nats per step.
    """
    model, kind = make_model(config), kind_of(config)

    def loss_fn(
        params: Any, batch: Batch, keys: Key[Array, " batch"]
    ) -> tuple[Scalar, Totals]:
        one = partial(kind.totals, config, model.bind(params), train=True)
        totals = jax.tree.map(jnp.mean, jax.vmap(one)(batch, keys))
        terms = (weight * totals.get(name, 0.0) for name, weight in kind.beside)
        return (totals[kind.loss_name] + sum(terms)) / mean_steps, totals

    return loss_fn


def _make(module: type[nn.Module], config: ml_collections.ConfigDict) -> nn.Module:
    properties = columns.names_of(config)
    given = {"properties": properties} if properties else {}
    species = tuple(config.data.species)
    return module(atomic_numbers=species, **config.model, **given)


def _stepwise(
    module: type[nn.Module], terms: stepwise.Terms, values: Rules, *decide: Any
) -> Kind:
    """Returns a kind that builds a molecule atom by atom."""
    return Kind(
        make=partial(_make, module),
        run=partial(stepwise.run, terms),
        totals=partial(stepwise.molecule_totals, terms),
        loss_name="nll",
        unit="nats per step",
        mean_steps=stepwise.mean_steps,
        prepare=stepwise.prepare,
        rules=values,
        fixed=(
            "config.kind", "config.model.", "config.data.species",
            "config.data.nn_tolerance", "config.data.cutoff", "config.data.heavy_first",
            "config.data.properties",
        ),
        decoder=Decoder(*decide),
        beside=(("forecast", loss.FORECAST_WEIGHT),),
    )  # fmt: skip


KINDS = {
    "symphony": _stepwise(
        Symphony,
        loss.molecule_totals,
        rules.STEPWISE,
        decisions.empty_cache,
        decisions.extend_cache,
        decisions.decide,
        decisions.shorten_cache,
    ),
    "paper": _stepwise(
        PaperSymphony,
        paper_loss.molecule_totals,
        rules.STEPWISE,
        paper_decisions.empty_cache,
        paper_decisions.extend_cache,
        paper_decisions.decide,
        paper_decisions.shorten_cache,
    ),
    "denoiser": Kind(
        make=denoiser.make_model,
        run=denoiser.run,
        totals=denoiser.molecule_totals,
        loss_name="denoising",
        unit="of the variance of the noise",
        mean_steps=lambda meta: 1.0,
        prepare=lambda config, molecules: molecules,
        rules=rules.DENOISER,
        fixed=("config.kind", "config.model.", "config.data.species"),
    ),
    "energy": Kind(
        make=energy.make_model,
        run=energy.run,
        totals=energy.molecule_totals,
        loss_name="weighted_error",
        unit="of weighted errors",
        mean_steps=lambda meta: 1.0,
        prepare=energy.prepare,
        rules=rules.ENERGY,
        fixed=("config.kind", "config.model.", "config.data.species"),
        labels=energy.labels_of,
    ),
}
