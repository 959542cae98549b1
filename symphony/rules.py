"""Ranges and choices of Symphony's configs; see `common.runs.config.check`."""

import ml_collections

from common.errors import UsageError
from common.generative import denoising
from common.geometry import alignment
from common.runs import rules
from common.runs.config import Range, Rules
from symphony import columns


def _check_species(config: ml_collections.ConfigDict) -> None:
    species = tuple(config.data.species)
    if not species or len({*species}) < len(species):
        raise UsageError(
            "config.data.species: expected different atomic numbers, at least one, "
            f"found {species}"
        )


def _check_radii(config: ml_collections.ConfigDict) -> None:
    if config.model.min_radius > config.model.max_radius:
        raise UsageError(
            f"config.model.min_radius: expected at most the max_radius of "
            f"{config.model.max_radius:g} Å, found {config.model.min_radius}"
        )


def _check_mixed(config: ml_collections.ConfigDict) -> None:
    for one in config.data.mixed:
        pair = tuple(one) if isinstance(one, tuple | list) else (one,)
        if [type(part) for part in pair] != [str, int] or pair[1] < 1:
            raise UsageError(
                "config.data.mixed: expected pairs of data and how many of its "
                f'molecules, as (("qm9", 5_000),), found {one!r}'
            )


def _check_noises(config: ml_collections.ConfigDict) -> None:
    low, high = config.loss.min_noise, config.loss.max_noise
    if low >= high:
        raise UsageError(
            f"config.loss: expected min_noise < max_noise, found {low} and {high}"
        )


_VALUES = {
    **rules.VALUES,
    "data.species": Range(1, 118),
    "data.max_atoms": Range(1),
    "data.num_buckets": Range(1),
    "model.num_*": Range(0),
    "model.num_channels": Range(1),
    "model.*max_degree": Range(0),
    "model.cutoff": Range(1e-3, 1e3),
    "model.avg_num_neighbors": Range(1e-3),
}

STEPWISE = Rules(
    {
        **_VALUES,
        "data.nn_tolerance": Range(0.0, 1e3),
        "data.cutoff": Range(0.0, 1e3),
        "data.noise_std": Range(0.0, 10.0),
        "model.m*_radius": Range(0.0, 1e3),
        "model.res_*": Range(1),
        "model.head_channels": Range(1),
        "model.blur": Range(0.0, 3.2),
        "model.max_curvature": Range(1e-3),
        **dict.fromkeys(("model.focus_*", "model.position_*"), Range(0)),
        "model.radial_hidden": Range(1),
        "model.radial_width": Range(1),
        "model.radial_variance": Range(1e-12),
        "model.noise_std": Range(0.0, 10.0),
        "model.target_inverse_temperature": Range(0.0),
        "sample.max_atoms": Range(1),
        "sample.noise_std": Range(0.0, 10.0),
    },
    (
        _check_species,
        _check_radii,
        _check_mixed,
        columns.check_names,
        rules.check_train,
        rules.needs_condition("noise_std"),
    ),
)

DENOISER = Rules(
    {
        **_VALUES,
        "model.max_degree": Range(1),  # It moves atoms by vectors.
        "model.sigma_data": Range(1e-3, 1e3),
        "loss.alignment": tuple(alignment.METHODS),
        "loss.*_noise": Range(1e-6, 10.0),
        "loss.fixed_share": Range(0.0, 1.0),
        "refine.noise": Range(0.0, 10.0),
        "refine.num_steps": Range(1),
        "refine.method": tuple(denoising.METHODS),
        "refine.num_final": Range(0),
    },
    (_check_species, _check_mixed, _check_noises, rules.check_train),
)

ENERGY = Rules(
    {
        **_VALUES,
        "data.atom_energies": Range(-1e9, 1e9),
        "model.num_layers": Range(2),
        "model.max_degree": Range(1),
        "model.energy_scale": Range(1e-6),
        "loss.*_weight": Range(0.0),
        "loss.noise_std": Range(0.0, 10.0),
        "loss.noise_share": Range(0.0, 1.0),
    },
    (_check_species, rules.check_train),
)
