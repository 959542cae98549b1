"""Trains Symphony from a config: `symphony train --config=... --workdir=...`.

Batches, cuts and noise are functions of (seed, step), so a run that was killed and is
started again ends as if it had not been. RDKit is not needed here.
"""

import math
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
from common.errors import UsageError
from common.runs import checkpoints, parallel, training
from common.runs import loop as run
from common.runs.weights import load as load_trained
from symphony import build, conditions, data, weights
from symphony.kinds.denoiser import train as denoiser

VALIDATION_BATCH = 32

_FIELDS = {
    "": ("seed", "kind", "data", "model", "train", "sample"),
    "data": (
        "path", "species", "max_atoms", "num_buckets", "nn_tolerance", "cutoff",
        "heavy_first", "noise_std",
    ),
    "model": ("cutoff", "min_radius", "max_radius"),
    "train": (
        "start_from", "num_steps", "batch_size", "num_microbatches", "num_devices",
        "optimizer", "learning_rate", "warmup_steps", "final_factor", "weight_decay",
        "adam_b2", "clip_norm", "ema_decay", "log_every", "eval_every",
        "num_validation", "checkpoint_every",
    ),
    "sample": ("max_atoms", "noise_std"),
}  # fmt: skip
_FIXED = (
    "config.kind", "config.model.", "config.data.species", "config.data.nn_tolerance",
    "config.data.cutoff", "config.data.heavy_first",
)  # fmt: skip
_POSITIVE = (
    "num_steps", "batch_size", "num_microbatches", "num_devices", "num_validation",
    "log_every", "eval_every", "checkpoint_every",
)  # fmt: skip


def check_fields(config: ml_collections.ConfigDict) -> None:
    """Raises `UsageError` if a value is missing, as in the config of an old version."""
    fields = _FIELDS
    if _is_denoiser(config):
        fields = {**denoiser.FIELDS, "train": _FIELDS["train"]}
    for group, names in fields.items():
        values = config.get(group, {}) if group else config
        for name in names:
            if name not in values:
                full = ".".join(filter(None, ("config", group, name)))
                example = "refine_qm9" if _is_denoiser(config) else "qm9_cpu"
                raise UsageError(
                    f"{full}: expected a value, found none; "
                    f"configs/symphony/{example}.py has all"
                )
        for name in sorted({*values} - {*names}) if group != "model" else ():
            full = ".".join(filter(None, ("config", group, name)))
            raise UsageError(
                f"{full}: expected one of {', '.join(names)}; found {name}"
            )


def _is_denoiser(config: ml_collections.ConfigDict) -> bool:
    return config.get("kind") == denoiser.KIND


def _init_params(config: ml_collections.ConfigDict, key: Any) -> training.Params:
    make = denoiser.init_params if _is_denoiser(config) else build.init_params
    return make(config, key)


def check_config(config: ml_collections.ConfigDict) -> None:
    """Raises `UsageError` for values that would fail later, or with less to say."""
    check_fields(config)
    settings = config.train
    for name in _POSITIVE:
        if settings[name] < 1:
            raise UsageError(
                f"config.train.{name}: expected 1 or more, found {settings[name]}"
            )
    _check_ranges(config)
    try:
        if _is_denoiser(config):
            denoiser.check_config(config)
            denoiser.make_model(config)
        else:
            build.make_model(config)
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{error}") from error
    num_devices = settings.num_devices
    pieces = num_devices * max(settings.num_microbatches // num_devices, 1)
    if settings.batch_size % pieces:
        raise UsageError(
            f"config.train.batch_size: expected a multiple of {pieces} "
            f"(num_devices {num_devices}, num_microbatches "
            f"{settings.num_microbatches}), found {settings.batch_size}"
        )


def _check_ranges(config: ml_collections.ConfigDict) -> None:
    species = tuple(config.data.species)
    known = all(isinstance(n, int) and 1 <= n <= 118 for n in species)
    if not species or not known or len(set(species)) < len(species):
        raise UsageError(
            "config.data.species: expected different atomic numbers of 1 to 118, "
            f"found {species}"
        )
    most = math.inf
    ranges = {
        "seed": (0, 2**32 - 1),
        "data.max_atoms": (1, most),
        "data.num_buckets": (1, most),
        "data.noise_std": (0.0, 10.0),
        "data.cutoff": (0.0, 1e3),
        "model.cutoff": (1e-3, 1e3),
        "model.sigma_data": (1e-3, 1e3),
        "train.learning_rate": (0.0, 1e3),
        "train.final_factor": (0.0, 1.0),
        "train.warmup_steps": (0, most),
        "train.weight_decay": (0.0, 1e3),
        "train.adam_b2": (0.0, 1.0),
        "train.ema_decay": (0.0, 1.0),
        "train.clip_norm": (0.0, most),
        "sample.max_atoms": (1, most),
        "sample.noise_std": (0.0, 10.0),
        "refine.noise": (0.0, 10.0),
        "refine.num_steps": (1, most),
        "refine.num_final": (0, most),
        **{
            f"model.{name}": (0, most)
            for name in config.model
            if name.startswith(("num_", "max_degree"))
        },
        "model.min_radius": (0.0, config.model.get("max_radius", most)),
    }
    for name, (low, high) in ranges.items():
        *groups, last = name.split(".")
        values = config.get(groups[0], {}) if groups else config
        if last in values and not low <= values[last] <= high:
            raise UsageError(
                f"config.{name}: expected {low} to {high}, found {values[last]}"
            )


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
    )
    molecules, report = read(split="train")
    logging.info("training molecules: %s", data.describe(report))
    held_out, _ = read(split="validation")
    if not _is_denoiser(config):
        molecules, held_out = (_reachable(config, m) for m in (molecules, held_out))
    held_out = data.choose_molecules(held_out, config.train.num_validation)
    buckets = data.choose_buckets(molecules.num_atoms, config.data.num_buckets)
    packed = data.pack(molecules, species, buckets)
    fits = held_out.num_atoms <= buckets[-1]
    if not np.any(fits):
        raise UsageError(
            f"{config.data.path}: expected validation molecules of at most "
            f"{buckets[-1]} atoms, as in training, found none; a split of your own "
            "in an .npz would have some"
        )
    held_out = data.select(held_out, np.flatnonzero(fits))
    sizes, counts = np.unique(molecules.num_atoms, return_counts=True)
    meta = {
        "species": list(species),
        "buckets": list(buckets),
        "num_molecules": len(molecules.num_atoms),
        "mean_num_atoms": float(np.mean(molecules.num_atoms)),
        "size_counts": {str(n): int(c) for n, c in zip(sizes, counts, strict=True)},
        "species_counts": {
            str(n): int(np.sum(molecules.atomic_numbers == n)) for n in species
        },
        "data_checksum": data.checksum(molecules),
    }
    logging.info(
        "%d molecules in buckets of %s atoms, %.1f %% filled; %d held out",
        meta["num_molecules"], buckets, 100 * data.fill_ratio(packed), np.sum(fits),
    )  # fmt: skip
    return packed, data.pack(held_out, species, buckets), meta


def _reachable(
    config: ml_collections.ConfigDict, molecules: data.Molecules
) -> data.Molecules:
    """Leaves out, and names, the molecules that the model's steps cannot build."""
    low, high = config.model.min_radius, config.model.max_radius
    furthest = min(high, config.data.cutoff) - config.data.nn_tolerance
    bad = data.unreachable(molecules, low, furthest, config.data.heavy_first)
    if not bad.any():
        return molecules
    report = data.SkipReport(
        len(bad),
        {
            f"atoms that no step of {low:g} to {furthest:g} Å reaches": tuple(
                molecules.names[bad].tolist()
            )
        },
    )
    line = f"{config.data.path}: {data.describe(report)}"
    if np.mean(bad) > data.MAX_BAD_FRACTION:
        raise UsageError(
            f"{line}; at most {data.MAX_BAD_FRACTION:.0%} may be bad; "
            "config.model.min_radius and max_radius set the range"
        )
    logging.warning("%s", line)
    return data.select(molecules, ~bad)


def make_validate(
    config: ml_collections.ConfigDict,
    packed: tuple[data.Batch, ...],
    mesh: Mesh | None = None,
) -> Callable[[training.Params], dict[str, float]]:
    """Returns `params -> terms of the loss in nats per step`, on held-out molecules.

    Cuts are the same at every call, and coordinates are without noise, but for the
    paper's model, which adds its own.
    """
    model = build.make_model(config)
    num_devices = 1 if mesh is None else mesh.shape["data"]
    batch_size = num_devices * -(-VALIDATION_BATCH // num_devices)

    @jax.jit
    def evaluate(params: training.Params, batch: data.Batch, keys: Any) -> build.Totals:
        one = partial(build.molecule_totals, config, model, params, train=False)
        totals = jax.vmap(one)(batch, keys)
        real = batch.node_mask[:, 0]
        return {k: jnp.sum(jnp.where(real, v, 0.0)) for k, v in totals.items()}

    def validate(params: training.Params) -> dict[str, float]:
        parts = []
        for index, batch in enumerate(data.batches_in_order(packed, batch_size)):
            key = jax.random.fold_in(jax.random.key(0), index)
            keys = jax.random.split(key, batch_size)
            on_devices = parallel.split_batch((batch, keys), mesh)
            parts.append(jax.block_until_ready(evaluate(params, *on_devices)))
        totals = jax.device_get(parts)
        sums = {name: float(sum(part[name] for part in totals)) for name in totals[0]}
        num_steps = sums.pop("num_steps")
        return {f"validation_{k}": v / num_steps for k, v in sums.items()}

    return validate


def start_params(config: ml_collections.ConfigDict, key: Any) -> training.Params:
    """Returns fresh parameters, or those of the weights that the config starts from.

    Parameters that the network has beyond those of the weights are fresh, and named.

    Raises:
        UsageError: There are no such weights, or they are of another network.
    """
    fresh = _init_params(config, key)
    name = config.train.start_from
    if not name:
        return fresh
    given = load_trained(name, weights.PRETRAINED, "config.train.start_from")
    ours, theirs = tuple(config.data.species), tuple(given.config.data.species)
    if theirs != ours:
        raise UsageError(
            f"config.train.start_from: expected weights for the species {ours} of "
            f"config.data.species, found {theirs} in {name}"
        )
    ours, theirs = (dict(training.named_leaves(x)) for x in (fresh, given.params))
    for path, leaf in sorted(theirs.items()):
        expected = f"of shape {ours[path].shape}" if path in ours else "absent"
        if expected != f"of shape {leaf.shape}":
            raise UsageError(
                "config.train.start_from: expected the network of config.model, with "
                f"{path} {expected}, found {leaf.shape} in {name}"
            )
    added = sorted(ours.keys() - theirs.keys())
    if added:
        logging.warning(
            "not in the weights of %s, and fresh: %s", name, ", ".join(added)
        )
    logging.info("starting from the weights of %s", name)
    leaves = [jnp.asarray(theirs.get(path, leaf)) for path, leaf in ours.items()]
    return jax.tree.unflatten(jax.tree.structure(fresh), leaves)


def train(config: ml_collections.ConfigDict, workdir: Path) -> training.TrainState:
    """Trains to `config.train.num_steps`, going on with what `workdir` holds.

    Args:
        config: See `configs/symphony/qm9_cpu.py`.
        workdir: Receives `checkpoints/`, `config.json` and `metrics.jsonl`.

    Returns:
        The last state; of an earlier step if a signal asked to stop.

    Raises:
        UsageError: The config, the data or what `workdir` holds cannot be used.
        RunError: The loss became non-finite.
    """
    settings = config.train
    check_config(config)
    run.make_folder(workdir)
    init_key, train_key = jax.random.split(jax.random.key(config.seed))
    resumes = checkpoints.has_checkpoint(workdir)
    init = _init_params if resumes else start_params
    params = init(config, init_key)
    packed, held_out, meta = load_data(config)
    mesh = (
        parallel.make_mesh(settings.num_devices) if settings.num_devices > 1 else None
    )
    if _is_denoiser(config):
        parts = denoiser.parts(config, packed, held_out)
        return run.train(config, workdir, params, parts, meta, train_key, mesh)
    parts = run.Parts(
        loss_fn=build.make_loss(config, meta["mean_num_atoms"]),
        batch_at=partial(data.batch_at, packed, settings.batch_size, config.seed),
        validate=make_validate(config, held_out, mesh),
        average=average,
        loss_name="nll",
        unit="nats per step",
        steps_per_epoch=data.steps_per_epoch(packed, settings.batch_size),
        fixed=_FIXED,
    )
    return run.train(config, workdir, params, parts, meta, train_key, mesh)


def average(sums: Sequence[build.Totals]) -> dict[str, float]:
    """Averages the metrics of several steps; terms of the loss in nats per step."""
    means = run.average(sums)
    num_steps = means.pop("num_steps")
    apart = {name: means.pop(name) for name in ("loss", "grad_norm")}
    return apart | {name: value / num_steps for name, value in means.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `symphony train`."""
    flags = cli.training_flags("symphony train", "Trains Symphony from a config.", argv)
    check_fields(flags.config)
    if flags.config.train.num_devices > 1:
        parallel.set_num_cpu_devices(flags.config.train.num_devices)
    cli.announce_device()
    train(flags.config, Path(flags.workdir))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("symphony train", main))
