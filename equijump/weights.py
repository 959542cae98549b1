"""Trained weights by the name of a packaged model or by the folder of a run.

With the weights come the systems they were trained on, each with frames to start from:
packaged ones beside the weights, those of a run from the data of its config.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from jaxtyping import Float32

from common.errors import UsageError
from common.runs import weights
from equijump import build, confidence, jump, transferable
from equijump.confidence import Calibration
from equijump.data import frames, pairs, splits
from equijump.data.topology import System, fit_to, reordered
from equijump.transferable import Transferable

PRETRAINED = Path(__file__).parent / "pretrained"
NUM_STARTS = 100
"""Frames of a system to start from, at most."""


class Molecule(NamedTuple):
    """A system that weights were trained on.

    Attributes:
        system: constants of a trajectory.
        starts: held-out frames in random order, in Å.
    """

    system: System
    starts: Float32[np.ndarray, "num_starts num_atoms 3"]


class Weights(NamedTuple):
    """A trained model, ready to be asked.

    Attributes:
        name: name as the user gave it.
        config: config of the run.
        params: averaged parameters.
        statistics: spreads of the training data.
        molecules: systems of the training data, by name.
        checksum: SHA-256 of the parameters, by name and in float32.
        config_checksum: SHA-256 of the config.
        ranges: smallest and largest number of each condition in training, by name;
            empty for runs of version 0.1.0.
        transferable: peptides that a network of several was trained on; None of one.
        dynamics: dynamics that were learnt, in words; empty where it is not stated.
        calibration: measured trust, see `equijump.confidence`; None where there is
            none.
    """

    name: str
    config: ml_collections.ConfigDict
    params: Any
    statistics: build.Statistics
    molecules: dict[str, Molecule]
    checksum: str
    config_checksum: str
    ranges: Mapping[str, Sequence[float]] = MappingProxyType({})
    transferable: Transferable | None = None
    dynamics: str = ""
    calibration: Calibration | None = None


def load_weights(name_or_path: str | os.PathLike[str]) -> Weights:
    """Loads packaged weights by their name, or any by the path of their folder.

    Args:
        name_or_path: name or folder, as `ala2` or `workdir/ala2`.

    Raises:
        UsageError: There is nothing of that name, or it cannot be used.
    """
    trained = weights.load(name_or_path, PRETRAINED, ("equijump",))
    statistics = weights.build(trained, _statistics)
    ranges = weights.build(trained, _ranges)
    molecules, peptides = weights.build(trained, _molecules)
    name, path, config, params, meta, *checksums = trained
    found = Weights(name, config, params, statistics, molecules, *checksums, ranges)
    return found._replace(
        transferable=peptides,
        dynamics=str(meta.get("dynamics", "")),
        calibration=confidence.read(path, checksums[0]),
    )


def packaged_names() -> list[str]:
    """Returns the names of packaged weights."""
    return sorted(path.parent.name for path in PRETRAINED.glob("*/weights.npz"))


def _ranges(trained: weights.Trained) -> dict[str, tuple[float, float]]:
    """Returns the ranges of conditions in training, each from a number to a number."""
    ranges = {}
    for name, ends in trained.meta.get("conditions", {}).items():
        low, high = map(float, ends)
        if not -np.inf < low <= high < np.inf:
            raise ValueError(f"a range of {name} from {low:g} to {high:g}")
        ranges[name] = (low, high)
    return ranges


def _molecules(
    trained: weights.Trained,
) -> tuple[dict[str, Molecule], Transferable | None]:
    """Returns the systems beside packaged weights, or those of a run's data.

    With them the peptides that trained, where there were several.
    """
    if "systems" not in trained.meta:
        return of_run(trained.config)
    names = trained.meta["systems"]
    peptides = transferable.from_json(trained.meta.get("transferable"))
    is_empty = names == [] and peptides is not None
    if not is_empty and not (
        isinstance(names, list) and names and all(map(_is_stem, names))
    ):
        raise ValueError(f"{str(names)[:80]} as the names of its systems")
    num_types = trained.config.model.residue_types
    return {
        name: one._replace(system=fit_to(one.system, num_types, name))
        for name, one in read_molecules(trained.path, names).items()
    }, peptides


def _is_stem(name: object) -> bool:
    return isinstance(name, str) and name != "" and Path(name).name == name


def _statistics(trained: weights.Trained) -> build.Statistics:
    """Returns the statistics of the training data, once the network is made."""
    build.make_model(trained.config)
    return build.read_statistics(trained.meta["statistics"])


def make_jump(
    weights: Weights,
    num_steps: int,
    method: str = "",
    repulsion: float | None = None,
) -> Callable[..., Any]:
    """Returns `equijump.jump.make_jump` of these weights.

    Args:
        weights: trained model.
        num_steps: evaluations of the network in a jump.
        method: one of the transport's samplers; the first if empty.
        repulsion: see `equijump.steering`; the config's where None.
    """
    if repulsion is None:
        repulsion = weights.config.sample.repulsion
    return jump.make_jump(
        build.make_model(weights.config),
        build.TRANSPORTS[weights.config.transport.kind],
        weights.statistics,
        weights.config.transport.noise_factor,
        num_steps,
        method,
        build.has_random_frames(weights.config),
        repulsion,
    )


def read_molecules(folder: Path, names: Sequence[str]) -> dict[str, Molecule]:
    """Reads the systems that were packaged, `<name>.pdb` and `<name>.xtc` each."""
    found = {}
    for name in names:
        paths = folder / f"{name}.xtc", folder / f"{name}.pdb"
        absent = [path.name for path in paths if not path.is_file()]
        if absent:
            raise UsageError(
                f"{folder}: expected {' and '.join(absent)} of its system {name}, "
                "found none; copy the folder as a whole"
            )
        found[name] = Molecule(*frames.read_structures(*paths, at_most=NUM_STARTS))
    return found


def of_run(
    config: ml_collections.ConfigDict,
) -> tuple[dict[str, Molecule], Transferable | None]:
    """Returns the systems that validate a run, and the peptides that trained it."""
    loaded = splits.load_segments(config)
    peptides = transferable.of_systems(s.trajectory.system for s in loaded.training)
    return _find_molecules(loaded.validation), peptides


def find_molecules(config: ml_collections.ConfigDict) -> dict[str, Molecule]:
    """Returns the systems of a run's data, named as their files, numbers left out.

    Starts are spaced evenly over what validates; their order is random, so that the
    first few are from everywhere.
    """
    return _find_molecules(splits.load_segments(config).validation)


def _find_molecules(validation: Sequence[pairs.Segment]) -> dict[str, Molecule]:
    by_system: dict[bytes, list[pairs.Segment]] = {}
    for segment in validation:
        tokens = segment.trajectory.system.tokens
        by_system.setdefault(tokens.tobytes(), []).append(segment)
    found: dict[str, Molecule] = {}
    for segments in by_system.values():
        stem = Path(segments[0].trajectory.name).stem
        name = re.sub(r"[-_.]\d+$", "", stem)
        if name in found:
            name = f"{name}_{len(found)}"
        found[name] = Molecule(segments[0].trajectory.system, _starts(segments))
    return found


def _starts(
    segments: Sequence[pairs.Segment],
) -> Float32[np.ndarray, "num_starts num_atoms 3"]:
    """Returns frames of several files, atoms in the order of the first."""
    ends = np.cumsum([segment.stop - segment.start for segment in segments])
    count = min(NUM_STARTS, int(ends[-1]))
    chosen = np.linspace(0, ends[-1] - 1, count).astype(int)
    first = segments[0].trajectory.system
    starts = []
    for index in np.random.default_rng(0).permutation(chosen).tolist():
        which = int(np.searchsorted(ends, index, side="right"))
        trajectory = segments[which].trajectory
        frame = trajectory.positions[segments[which].stop + index - ends[which]]
        starts.append(reordered(frame, trajectory.system, first))
    return np.stack(starts).astype(np.float32)
