"""Trains Symphony from a config: `symphony train --config=... --workdir=...`.

Batches, cuts and noise are functions of (seed, step), so a run that was killed and is
started again ends as if it had not been. RDKit is not needed here.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jax.sharding import Mesh

from common.commands import cli
from common.commands import training as command
from common.errors import UsageError
from common.programs import compiler_options
from common.runs import checkpoints, parallel, training
from common.runs import config as configs
from common.runs import loop as run
from common.runs import weights as trained_weights
from common.runs import workdir as run_folder
from symphony import build, columns, conditions, data, weights

VALIDATION_BATCH = 32


def check_config(config: ml_collections.ConfigDict) -> None:
    """Raises `UsageError` for values that would fail later, or with less to say."""
    rules = build.kind_of(config).rules
    configs.check(config, configs.default_of(config.kind), rules)


def load_data(
    config: ml_collections.ConfigDict,
) -> tuple[tuple[data.Batch, ...], tuple[data.Batch, ...], dict[str, Any]]:
    """Reads the training and validation molecules of a config, packed in buckets.

    Returns:
        Training buckets, validation buckets, and what the checkpoint remembers of the
        data: species table, buckets, sizes, checksum.
    """
    species = tuple(config.data.species)
    read = partial(
        data.read_molecules,
        config.data.path,
        species,
        config.data.max_atoms,
        properties=conditions.names_read(config),
        columns=columns.names_of(config),
        labels=build.kind_of(config).labels(config),
    )
    molecules, report = read(split="train")
    logging.info("training molecules: %s", data.describe(report))
    held_out, _ = read(split="validation")
    molecules = _mix(config, molecules)
    _check_properties(config, molecules)
    keep = partial(columns.keep_labelled, config)
    molecules, held_out = keep(molecules), keep(held_out)
    measured = columns.measure(molecules, columns.names_of(config), config.data.path)
    prepare = partial(build.kind_of(config).prepare, config)
    molecules, held_out = prepare(molecules), prepare(held_out)
    buckets = data.choose_buckets(molecules.num_atoms, config.data.num_buckets)
    held_out = data.choose_molecules(held_out, config.train.num_validation)
    held_out = _at_most(buckets[-1], held_out, config.data.path)
    scored, held_out = (columns.standardise(m, measured) for m in (molecules, held_out))
    packed = data.pack(scored, species, buckets)
    logging.info(
        "%d molecules in buckets of %s atoms, %.1f %% filled; %d held out",
        sum(map(data.num_molecules, packed)), buckets, 100 * data.fill_ratio(packed),
        len(held_out.num_atoms),
    )  # fmt: skip
    _tell_columns(measured)
    meta = _describe(molecules, species, buckets) | columns.to_meta(measured)
    return packed, data.pack(held_out, species, buckets), meta


def _mix(
    config: ml_collections.ConfigDict, molecules: data.Molecules
) -> data.Molecules:
    """Adds molecules of the training split of other data, drawn with one seed."""
    parts = [molecules]
    mixed = config.data.mixed if "mixed" in config.data else ()
    for path, count in mixed:
        others, _ = data.read_molecules(
            path,
            tuple(config.data.species),
            config.data.max_atoms,
            split="train",
            properties=conditions.names_read(config),
            columns=columns.names_of(config),
        )
        parts.append(data.choose_molecules(others, count))
        logging.info("%d molecules of %s", len(parts[-1].num_atoms), path)
    return data.concatenate(parts) if len(parts) > 1 else molecules


def _tell_columns(measured: Sequence[columns.Column]) -> None:
    for one in measured:
        logging.info(
            "property %s (unit: %s): known of %d molecules, mean %.4g, standard "
            "deviation %.4g, 1 to 99 %% %.4g to %.4g",
            one.name, one.unit or "none stated", one.num_known, one.mean, one.std,
            one.low, one.high,
        )  # fmt: skip


def _check_properties(
    config: ml_collections.ConfigDict, molecules: data.Molecules
) -> None:
    """Raises `UsageError` for a condition that no training molecule states."""
    for name in conditions.names_read(config):
        values = molecules.properties[name]
        if not np.any(np.isfinite(values)):
            raise UsageError(
                f"{config.data.path}: expected {name}, named in "
                "config.model.conditions, of some molecules, found it of none"
            )


def _at_most(size: int, held_out: data.Molecules, path: str) -> data.Molecules:
    """Returns the validation molecules that are no larger than those of training."""
    fits = held_out.num_atoms <= size
    if not np.any(fits):
        raise UsageError(
            f"{path}: expected validation molecules of at most {size} atoms, as in "
            "training, found none; a split of your own in an .npz would have some"
        )
    return data.select(held_out, np.flatnonzero(fits))


def _describe(
    molecules: data.Molecules, species: tuple[int, ...], buckets: Sequence[int]
) -> dict[str, Any]:
    """Returns what a checkpoint remembers of the training molecules."""
    sizes, counts = np.unique(molecules.num_atoms, return_counts=True)
    numbers = molecules.atomic_numbers
    return {
        "species": list(species),
        "buckets": list(buckets),
        "num_molecules": len(molecules.num_atoms),
        "mean_num_atoms": float(np.mean(molecules.num_atoms)),
        "size_counts": {str(n): int(c) for n, c in zip(sizes, counts, strict=True)},
        "species_counts": {str(n): int(np.sum(numbers == n)) for n in species},
        "data_checksum": data.checksum(molecules),
    }


def make_validate(
    config: ml_collections.ConfigDict,
    packed: tuple[data.Batch, ...],
    mesh: Mesh | None = None,
) -> Callable[[training.Params], dict[str, float]]:
    """Returns `params -> terms of the loss per step`, on held-out molecules.

    Cuts and noises are the same at every call. Coordinates are without noise, but for
    the paper's model and the denoiser, which add their own.
    """
    model, totals_of = build.make_model(config), build.kind_of(config).totals
    num_devices = 1 if mesh is None else mesh.shape["data"]
    batch_size = num_devices * -(-VALIDATION_BATCH // num_devices)
    own = parallel.own_rows(batch_size)

    @partial(jax.jit, compiler_options=compiler_options())
    def evaluate(params: training.Params, batch: data.Batch, keys: Any) -> build.Totals:
        one = partial(totals_of, config, model.bind(params), train=False)
        totals = jax.vmap(one)(batch, keys)
        real = batch.node_mask[:, 0]
        return {k: jnp.sum(jnp.where(real, v, 0.0)) for k, v in totals.items()}

    def validate(params: training.Params) -> dict[str, float]:
        parts = []
        for index, batch in enumerate(data.batches_in_order(packed, batch_size)):
            key = jax.random.fold_in(jax.random.key(0), index)
            given = (batch, jax.random.split(key, batch_size))
            given = jax.tree.map(lambda leaf: leaf[own], given)
            on_devices = parallel.split_batch(given, mesh)
            parts.append(jax.block_until_ready(evaluate(params, *on_devices)))
        means = _per_step(run.average(parts))
        return {f"validation_{name}": value for name, value in means.items()}

    return validate


def _per_step(means: dict[str, float]) -> dict[str, float]:
    """Divides the terms of the loss by the number of steps."""
    num_steps = means.pop("num_steps")
    return {name: value / num_steps for name, value in means.items()}


def average(sums: Sequence[build.Totals]) -> dict[str, float]:
    """Averages the metrics of several steps; terms of the loss per step."""
    means = run.average(sums)
    apart = {name: means.pop(name) for name in ("loss", "grad_norm")}
    return apart | _per_step(means)


def start_params(config: ml_collections.ConfigDict, key: Any) -> training.Params:
    """Returns fresh parameters, or those of the weights that the config starts from.

    Raises:
        UsageError: There are no such weights, or they are of another network.
    """
    fresh = build.init_params(config, key)
    name = config.train.start_from
    if not name:
        return fresh
    given = trained_weights.load(
        name, weights.PRETRAINED, (config.kind,), "config.train.start_from"
    )
    ours, theirs = tuple(config.data.species), tuple(given.config.data.species)
    if theirs != ours:
        raise UsageError(
            f"config.train.start_from: expected weights for the species {ours} of "
            f"config.data.species, found {theirs} in {name}"
        )
    return trained_weights.adopt(fresh, given.params, name)


def train(config: ml_collections.ConfigDict, workdir: Path) -> training.TrainState:
    """Trains to `config.train.num_steps`, going on with what `workdir` holds.

    Args:
        config: config as in `configs/symphony/qm9_cpu.py`.
        workdir: folder of `checkpoints/`, `config.json` and `metrics.jsonl`.

    Returns:
        The last state; of an earlier step if a signal asked to stop.

    Raises:
        UsageError: The config, the data or what `workdir` holds cannot be used.
        RunError: The loss became non-finite.
    """
    check_config(config)
    settings, kind = config.train, build.kind_of(config)
    run_folder.check(workdir)
    init_key, train_key = jax.random.split(jax.random.key(config.seed))
    resumes = checkpoints.has_checkpoint(workdir)
    params = (build.init_params if resumes else start_params)(config, init_key)
    packed, held_out, meta = load_data(config)
    mesh = parallel.mesh_of_run(settings.num_devices)
    parts = run.Parts(
        loss_fn=build.make_loss(config, kind.mean_steps(meta)),
        batch_at=partial(data.batch_at, packed, settings.batch_size, config.seed),
        validate=make_validate(config, held_out, mesh),
        average=average,
        loss_name=kind.loss_name,
        unit=kind.unit,
        steps_per_epoch=data.steps_per_epoch(packed, settings.batch_size),
        fixed=kind.fixed,
    )
    return run.train(config, workdir, params, parts, meta, train_key, mesh)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `symphony train`."""
    about = "Trains Symphony from a config."
    return command.run("symphony train", about, check_config, train, argv)


if __name__ == "__main__":
    sys.exit(cli.run("symphony train", main))
