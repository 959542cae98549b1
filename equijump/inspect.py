"""Tells what files of trajectories hold, and how to train on them: `equijump inspect`.

What is told is what training would read: files are packed into the store, and divided
into training and validation, as the command that is shown would do.
"""

import itertools
import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.commands import cli
from common.errors import RunError, UsageError
from common.runs import config as configs
from equijump import repair
from equijump.data import files, frames, splits
from equijump.data.frames import Trajectory
from equijump.data.residues import RESIDUES
from equijump.data.sources import SOURCES, guess, packing, read_stated
from equijump.data.topology import System

PS_PER_NS, PS_PER_US = 1e3, 1e6

SHORT = 12
"""Residues up to which a system is taken for a peptide."""

_COMMON = 0.2
"""Share of frames that a gap must have behind it to be a common one."""

USUAL_LAG = 10.0
"""ps, of a jump where the frames allow it."""

_LETTERS = {
    "ALA": "A", "ARG": "R", "ASN": "N", "ASP": "D", "CYS": "C", "GLN": "Q", "GLU": "E",
    "GLY": "G", "HIS": "H", "ILE": "I", "LEU": "L", "LYS": "K", "MET": "M", "PHE": "F",
    "PRO": "P", "SER": "S", "THR": "T", "TRP": "W", "TYR": "Y", "VAL": "V",
}  # fmt: skip


class Report(NamedTuple):
    """What an entry of `config.data.sources` holds.

    Attributes:
        given: name as it was given.
        source: row of the table of sources.
        systems: systems in words.
        num_trajectories: number of trajectories.
        frames: least and greatest number of frames of one.
        total: time that all of them cover, in ps.
        spacings: times between frames in ps, the median where they vary.
        is_even: false where frames of some come at uneven times.
        temperatures: in K; empty where none is stated.
        left_out: what was left out and why, in words.
        obstacle: why it cannot be trained on; empty where it can.
        command: command that trains on it.
    """

    given: str
    source: str
    systems: str
    num_trajectories: int
    frames: tuple[int, int]
    total: float
    spacings: tuple[float, ...]
    is_even: bool
    temperatures: tuple[float, ...]
    left_out: str
    obstacle: str
    command: str


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `equijump inspect`; a file that cannot be read makes the status 2."""
    parser = cli.argument_parser(
        "equijump inspect",
        "Tells what files of trajectories hold: systems, frames, times, temperature, "
        "what is left out, whether they can be trained on and how.",
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="file, folder, pattern, or entry of config.data.sources, as mdcath:*.h5",
    )
    parser.add_argument("--topology", default="", help="of files that have none")
    parser.add_argument(
        "--spacing", type=float, default=0.0, help="ps, of files without times"
    )
    parser.add_argument("--select", default="", help="atoms, in MDTraj's language")
    parser.add_argument("--json", action="store_true", help="prints JSON, not text")
    flags = parser.parse_args(argv)
    reports, num_bad = [], 0
    for given in flags.files:
        try:
            reports.append(inspect(given, flags.topology, flags.spacing, flags.select))
        except (UsageError, RunError) as error:
            num_bad += 1
            line = cli.one_line(str(error).replace("config.data.sources: ", ""))
            line = line.removesuffix("; give yours by --config.data.sources")
            line = line if given in line else f"{given}: {line}"
            sys.stderr.write(f"equijump inspect: {line}\n")
        else:
            if not flags.json:
                sys.stdout.write(text_of(reports[-1]))
                sys.stdout.flush()
    if flags.json:
        values = [report._asdict() for report in reports]
        sys.stdout.write(json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    return 2 if num_bad else 0


def inspect(
    given: str, topology: str = "", spacing: float = 0.0, select: str = ""
) -> Report:
    """Returns what a file, a folder or an entry of `config.data.sources` holds.

    Args:
        given: file, folder, pattern, packaged name or entry.
        topology: topology of files that have none.
        spacing: time between frames in ps, for files without times.
        select: atoms that are read, in MDTraj's selection language.

    Raises:
        UsageError: It cannot be read.
    """
    entry = guess.entry_of(given)
    if entry == given and (found := _structure(given, select)):
        return found
    values = {"sources": (entry,), "topology": topology}
    values |= {"spacing": spacing, "select": select}
    data = configs.default_of("equijump").data
    data.update(values)
    with packing.heard() as left_out:
        found = list(read_stated(data))
    if not found:
        raise UsageError(f"{entry}: expected trajectories, found none")
    changed = {name: value for name, value in values.items() if value}
    name, changes = settings_of(found, changed)
    lengths = [len(one.positions) for one in found]
    row = entry.partition(":")[0]
    known = {one.conditions.get("temperature", 0.0) for one in found}
    return Report(
        given=given,
        source=row if row in SOURCES else "files",
        systems=describe([one.system for one in found]),
        num_trajectories=len(found),
        frames=(min(lengths), max(lengths)),
        total=float(sum(_duration(one) for one in found)),
        spacings=tuple(sorted({float(one.spacing) for one in found})),
        is_even=all(one.times is None for one in found),
        temperatures=tuple(sorted(known - {0.0})),
        left_out="; ".join(left_out),
        obstacle=obstacle_of(name, changes),
        command=command_of(name, changes),
    )


def _structure(given: str, select: str) -> Report | None:
    """Returns what a file of one structure holds; None for any other entry."""
    path = Path(given)
    if not (path.is_file() and files.has_topology(path)):
        return None
    read = frames.read_structures
    system, positions = read(path, None, 2, select, repair.complete)
    if len(positions) > 1:
        return None
    return Report(
        given=given,
        source="structure",
        systems=describe([system]),
        num_trajectories=1,
        frames=(1, 1),
        total=0.0,
        spacings=(),
        is_even=True,
        temperatures=(),
        left_out="",
        obstacle="one structure is no trajectory; equijump sample "
        f"--start={shlex.quote(given)} rolls it out",
        command="",
    )


def _duration(trajectory: Trajectory) -> float:
    """Returns the time from the first frame to the last one, in ps."""
    if trajectory.times is not None:
        return float(trajectory.times[-1] - trajectory.times[0])
    return (len(trajectory.positions) - 1) * trajectory.spacing


def settings_of(
    found: Sequence[Trajectory], given: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Returns the config to train with, and the settings that differ from it.

    Args:
        found: trajectories.
        given: settings of the group `data` by which they were read.
    """
    longest = max(len(one.system.tokens) for one in found)
    wanted = "peptides" if longest <= SHORT else "mdcath"
    changes = {f"data.{name}": value for name, value in given.items()}
    changes["data.lags"] = (lag_of(found),)
    if len({one.conditions.get("temperature") for one in found}) > 1:
        changes["model.conditions"] = ("lag", "temperature")
    try:
        configs.path_of("equijump", wanted)
    except UsageError:
        return "ala2", changes
    return wanted, changes


def lag_of(found: Sequence[Trajectory]) -> float:
    """Returns a lag in ps that all trajectories have: about `USUAL_LAG`, or longer."""
    uneven = [one.times for one in found if one.times is not None]
    if uneven:
        return _common_gap(uneven[0])
    longest = max(one.spacing for one in found)
    lag = longest * max(1, round(USUAL_LAG / longest))
    return float(f"{lag:.6g}")


def _common_gap(times: np.ndarray) -> float:
    """Returns the gap of a picosecond or more that most pairs of frames have.

    Where times jitter, so that no gap is common, it is the median of neighbours.

    >>> _common_gap(np.array([0.0, 0.1, 5.0, 5.1, 10.0, 10.1]))
    5.0
    """
    gaps = np.concatenate(
        [times[k:] - times[:-k] for k in range(1, min(len(times), 9))]
    )
    gaps = gaps[gaps >= min(1.0, gaps.max())]
    ((gap, count),) = Counter(np.round(gaps, 4).tolist()).most_common(1)
    if count < _COMMON * len(times):
        gap = f"{np.median(np.diff(times)):.3g}"
    return float(gap)


def obstacle_of(name: str, changes: dict[str, Any]) -> str:
    """Returns why a config with some settings has nothing to train on, empty if it has.

    Args:
        name: name of the config.
        changes: settings by their full names.
    """
    config = configs.find("equijump", name).get_config()
    config.update_from_flattened_dict(changes)
    try:
        splits.load_segments(config)
    except (UsageError, RunError) as error:
        return cli.one_line(str(error))
    return ""


def command_of(name: str, changes: dict[str, Any]) -> str:
    """Returns the command that trains with a config and some settings.

    >>> command_of("ala2", {"data.lags": (10.0,)})
    'equijump train --config=ala2 --workdir=workdir/mine --config.data.lags="(10.0,)"'

    Args:
        name: name of the config.
        changes: settings by their full names.
    """
    flags = [f"--config.{name}={_quoted(value)}" for name, value in changes.items()]
    words = ["equijump train", f"--config={name}", "--workdir=workdir/mine", *flags]
    return " ".join(words)


def _quoted(value: Any) -> str:
    """Returns a value as a word of the shell.

    >>> print(_quoted(("a*.h5",)), _quoted("run.pdb"), _quoted("name CA"))
    "('a*.h5',)" run.pdb 'name CA'
    """
    text = str(value)
    is_plain = not isinstance(value, tuple) or re.search(r'["$`\\!]', text)
    return shlex.quote(text) if is_plain else f'"{text}"'


def describe(systems: Sequence[System]) -> str:
    """Returns systems in words, of several the sizes and the first one."""
    kinds = {system.tokens.tobytes(): system for system in systems}
    if len(kinds) == 1:
        return _describe(systems[0])
    sizes = sorted(len(system.tokens) for system in kinds.values())
    span = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
    first = _describe(systems[0])
    return f"{len(kinds)} systems of {span} residues, the first: {first}"


def _describe(system: System) -> str:
    chains = [
        "".join(_letter(int(token)) for _, token in members)
        for _, members in itertools.groupby(
            zip(system.chains, system.tokens, strict=True), key=lambda pair: pair[0]
        )
    ]
    count = len(system.tokens)
    several = f" in {len(chains)} chains" if len(chains) > 1 else ""
    text = " / ".join(chains)
    text = text if len(text) <= 80 else f"{text[:60]}..."
    residues = "residue" if count == 1 else "residues"
    return f"{text} ({count} {residues}{several}, {len(system.kept)} heavy atoms)"


def _letter(token: int) -> str:
    """Returns the letter of an amino acid, of others the name with hyphens."""
    name = RESIDUES[token - 1].name
    ends = {"ACE": "ACE-", "FOR": "FOR-", "NME": "-NME", "NH2": "-NH2"}
    return _LETTERS.get(name) or ends.get(name) or f"({name})"


def text_of(report: Report) -> str:
    """Returns a report in lines for the screen."""
    low, high = report.frames
    frames = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    count = report.num_trajectories
    spacing = ", ".join(f"{s:g}" for s in report.spacings[:6])
    temperature = ", ".join(f"{t:g}" for t in report.temperatures)
    temperature = f"{temperature} K" if temperature else "not stated: taken as 300 K"
    if report.source == "structure":
        why = f"no: {report.obstacle}"
        rows = {"system": report.systems, "frames": "1", "training": why}
        return _text(report, rows)
    rows = {
        "system": report.systems,
        "frames": f"{frames} in {'one' if count == 1 else 'each of'} "
        f"{'trajectory' if count == 1 else f'{count:,} trajectories'}, "
        f"{_time(report.total)} in all",
        "spacing": f"{spacing} ps"
        + ("" if report.is_even else ", the median of uneven times"),
        "temperature": temperature,
        "left out": report.left_out or "nothing",
        "training": f"no: {report.obstacle}" if report.obstacle else report.command,
    }
    return _text(report, rows)


def _text(report: Report, rows: dict[str, str]) -> str:
    lines = [f"  {name:<12} {value}\n" for name, value in rows.items()]
    return f"{report.given}: {report.source}\n{''.join(lines)}"


def _time(duration: float) -> str:
    """Returns a time in the unit that suits it.

    >>> _time(25_000.0), _time(2.5)
    ('25 ns', '2.5 ps')
    """
    for unit, size in (("µs", PS_PER_US), ("ns", PS_PER_NS)):
        if duration >= size:
            return f"{duration / size:.4g} {unit}"
    return f"{duration:.4g} ps"


if __name__ == "__main__":
    sys.exit(cli.run("equijump inspect", main))
