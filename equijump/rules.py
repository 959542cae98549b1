"""What the values of EquiJump's configs must be; see `common.runs.config.check`."""

import ml_collections

from common.errors import UsageError
from common.runs import rules
from common.runs.config import Range, Rules
from equijump import build, loss, steering
from equijump import cloud as clouds
from equijump.data import crops, splits
from equijump.data.residues import RESIDUES
from equijump.transport import foellmer


def _check_data(config: ml_collections.ConfigDict) -> None:
    for name in ("sources", "lags"):
        if not config.data[name]:
            raise UsageError(f"config.data.{name}: expected one or more, found none")
    given = config.data.lags
    if config.data.log_uniform and given[0] > given[-1]:
        raise UsageError(
            "config.data.lags: expected the smallest and the largest lag with "
            f"data.log_uniform, found {tuple(given)}"
        )


def _check_weights(config: ml_collections.ConfigDict) -> None:
    given, entries = len(config.data.weights), len(config.data.sources)
    if given not in (0, entries):
        raise UsageError(
            f"config.data.weights: expected none, or {entries} as data.sources has, "
            f"found {given}"
        )


def _check_crop(config: ml_collections.ConfigDict) -> None:
    if config.data.crop == 1:
        raise UsageError(
            "config.data.crop: expected 2 residues or more, or 0 for all of them, "
            "found 1"
        )


def _check_method(config: ml_collections.ConfigDict) -> None:
    methods = build.TRANSPORTS[config.transport.kind].METHODS
    if config.sample.method not in ("", *methods):
        raise UsageError(
            f"config.sample.method: expected one of {', '.join(methods)}, "
            f"found {config.sample.method}"
        )


def _check_temperatures(config: ml_collections.ConfigDict) -> None:
    given, patterns = len(config.data.temperatures), len(config.data.sources)
    if given not in (0, 1, patterns):
        raise UsageError(
            f"config.data.temperatures: expected one, or {patterns} as "
            f"data.sources has, found {given}"
        )


def _check_foellmer(config: ml_collections.ConfigDict) -> None:
    if build.TRANSPORTS[config.transport.kind] is foellmer:
        return
    for name in ("unroll", "median_level"):
        if config.loss[name]:
            raise UsageError(
                f"config.loss.{name}: expected 0 with a transport other than foellmer, "
                f"found {config.loss[name]}"
            )


def _check_unroll(config: ml_collections.ConfigDict) -> None:
    unroll = config.loss.unroll
    if unroll and config.data.ensemble_share:
        raise UsageError(
            f"config.loss.unroll: expected 0 with data.ensemble_share, found {unroll}"
        )


def _check_repulsion(config: ml_collections.ConfigDict) -> None:
    kind = config.transport.kind
    if config.sample.repulsion and build.TRANSPORTS[kind].HEADS != ("end",):
        raise UsageError(
            f"config.sample.repulsion: expected 0 with {kind}, which does not tell the "
            f"end of a jump, found {config.sample.repulsion}"
        )


def _check_kind(config: ml_collections.ConfigDict) -> None:
    kind = config.transport.kind
    if config.loss.kind != "quadratic" and build.TRANSPORTS[kind].HEADS != ("end",):
        raise UsageError(
            f"config.loss.kind: expected quadratic with {kind}, which does not tell "
            f"the end of a jump, found {config.loss.kind}"
        )


def _check_refinements(config: ml_collections.ConfigDict) -> None:
    kind, cloud = config.transport.kind, config.model.cloud
    if not config.model.refinements:
        return
    if cloud == "ca" or build.TRANSPORTS[kind].HEADS != ("end",):
        raise UsageError(
            f"config.model.refinements: expected 0 with model.cloud {cloud} and "
            f"{kind}: rounds need bonds and the end of a jump, as with model.cloud "
            f"chain and foellmer; found {config.model.refinements}"
        )


def _check_alignment(config: ml_collections.ConfigDict) -> None:
    method, kind = config.loss.alignment, config.transport.kind
    if method == "single":
        return
    if not (
        build.starts_from_noise(build.TRANSPORTS[kind]) or config.data.ensemble_share
    ):
        raise UsageError(
            f"config.loss.alignment: expected single with {kind}: source and target "
            "share a frame, so that no rotation between them is left to average over; "
            "one_sided, flow_matching, ddpm and data.ensemble_share have others; found "
            f"{method}"
        )
    if config.loss.kind != "quadratic":
        raise UsageError(
            f"config.loss.alignment: expected single with loss.kind "
            f"{config.loss.kind}, which compares vectors in one frame; found {method}"
        )


RULES = Rules(
    {
        **rules.VALUES,
        "data.temperatures": Range(1.0, 1e5),
        "data.spacing": Range(0.0),
        "data.weights": Range(1e-9),
        "data.split": splits.KINDS,
        "data.identity": Range(0.05, 1.0),
        "data.crop": Range(0),
        "data.crop_kind": crops.KINDS,
        "data.lags": Range(1e-6),
        "data.held_out": Range(1),
        "data.source_noise": Range(0.0, 10.0),
        "data.ensemble_share": Range(0.0, 0.99),
        "data.num_clusters": Range(0),
        "model.num_*": Range(1),
        "model.cloud": clouds.KINDS,
        "model.refinements": Range(0, 8),
        "model.residue_types": Range(0, len(RESIDUES)),
        "model.max_degree": Range(1),
        "model.reach": Range(0),
        "model.cutoff": Range(1e-3, 1e3),
        "transport.kind": tuple(build.TRANSPORTS),
        "transport.noise_factor": Range(0.0, 1e3),
        "loss.kind": loss.KINDS,
        "loss.alignment": ("single", "mode", "laplace1", "exact"),
        "loss.unroll": Range(0),
        "loss.median_level": Range(0.0, 1e3),
        "sample.num_steps": Range(1),
        "sample.repulsion": Range(0.0, steering.MAX_REPULSION),
    },
    (
        _check_data,
        _check_weights,
        _check_crop,
        _check_method,
        _check_temperatures,
        _check_foellmer,
        _check_unroll,
        _check_kind,
        _check_repulsion,
        _check_refinements,
        _check_alignment,
        rules.check_train,
        rules.needs_condition("lag"),
    ),
)
