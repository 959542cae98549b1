"""How well peptides that were never seen are rolled out, against how many trained.

Run: `python -m benchmarks.learning_curve --sets=FOLDER --validation=FOLDER`, folders of
packed peptides (`SEQ.npz` beside `SEQ.pdb`, of any depth). Networks train for the same
number of steps on nested sets: all single residues; with the first 20, 40 and 80 pairs;
with all that is longer. Each rolls out the same peptides as `benchmarks.peptides` does.

Pairs are taken in an order in which residues come equally often in either place: layer
by layer, where a layer has each residue at most once in the first place and once in the
second, and as many pairs as can be. Where the pairs allow it, each 20 have all residues
in both places.

Each network has a folder in `--workdir`, with its rollouts. What was broken off goes
on: networks that are trained, and rollouts that are kept, are not made again.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.figure
import numpy as np
import scipy.sparse
from rich.console import Console
from scipy.sparse.csgraph import maximum_bipartite_matching

from benchmarks import peptide_figures as figures
from benchmarks import peptides, report, trajectories
from common.errors import UsageError
from common.runs import config as configs
from common.runs import metrics
from equijump import train
from equijump.weights import load_weights

FIGURE = Path(__file__).resolve().parents[1] / "docs/figures/learning_curve.png"
COLUMNS = ("ratio", "js", "floor", "chi_within", "bonds", "passed")
PANELS = {
    "js": "JS of phi and psi, nats",
    "ratio": "JS over its floor",
    "chi_within": "side-chain torsions within",
}


class Subset(NamedTuple):
    """Peptides that a network is trained on.

    Attributes:
        name: name of its folder.
        paths: packed peptides.
    """

    name: str
    paths: tuple[Path, ...]


def in_even_order(pairs: Iterable[str]) -> list[str]:
    """Returns pairs of letters in layers, see the module's head."""
    left, found = sorted(pairs), []
    letters = sorted(set("".join(left)))
    while left:
        ends = np.array([[letters.index(letter) for letter in pair] for pair in left])
        shape = len(letters), len(letters)
        graph = scipy.sparse.csr_array((np.ones(len(left)), ends.T), shape)
        seconds = maximum_bipartite_matching(graph, perm_type="column")
        layer = [
            first + letters[second]
            for first, second in zip(letters, seconds.tolist(), strict=True)
            if second >= 0
        ]
        found += layer
        left = [pair for pair in left if pair not in layer]
    return found


def subsets(paths: Sequence[Path], counts: Sequence[int]) -> list[Subset]:
    """Returns nested sets: singles, with so many pairs each, with all that is longer.

    Args:
        paths: packed peptides of all lengths.
        counts: numbers of pairs, rising.

    Raises:
        UsageError: There are no singles, or not as many pairs.
    """
    named = {path.stem: path for path in paths}
    of_length = lambda n: [name for name in named if len(name) == n]
    pairs = [named[name] for name in in_even_order(of_length(2))]
    singles = [named[name] for name in sorted(of_length(1))]
    longer = [path for path in paths if len(path.stem) > 2]
    if not singles or len(pairs) < max(counts) or list(counts) != sorted(set(counts)):
        raise UsageError(
            f"--pairs: expected single residues and rising numbers of pairs, at most "
            f"as many as --sets has, found {list(counts)} for {len(singles)} single "
            f"residues and {len(pairs)} pairs"
        )
    sets = [singles, *(singles + pairs[:count] for count in counts)]
    if longer:
        sets.append([*singles, *pairs, *longer])
    return [Subset(f"{len(found):04d}", tuple(found)) for found in sets]


def spread(
    paths: Sequence[Path], lengths: Sequence[int], count: int | None
) -> list[Path]:
    """Returns some peptides of each length, spaced evenly in the alphabet."""
    found = []
    for length in lengths:
        own = sorted(path for path in paths if len(path.stem) == length)
        kept = min(len(own), count or len(own))
        places = np.linspace(0, len(own) - 1, kept).round().astype(int)
        found += [own[place] for place in places]
    return found


def trained(subset: Subset, flags: argparse.Namespace) -> tuple[Path, float]:
    """Trains a network, unless it is trained; returns its run and CPU seconds."""
    folder = flags.workdir / subset.name
    done = folder / "trained.json"
    asked = {
        "config": flags.config,
        "num_steps": flags.num_steps,
        "sequences": [path.stem for path in subset.paths],
    }
    if not done.is_file() or json.loads(done.read_text("utf-8")) != asked:
        config = configs.find("equijump", flags.config).get_config()
        sources = tuple(f"peptides:{path.resolve()}" for path in subset.paths)
        config.data.sources = sources
        config.train.num_steps = flags.num_steps
        state = train.train(config, folder / "run")
        if int(state.step) < flags.num_steps:
            raise SystemExit(f"{folder}: stopped; run again, it goes on")
        done.write_text(json.dumps(asked, indent=1) + "\n", "utf-8")
    last = metrics.read_metrics(folder / "run")[-1]
    return folder / "run", float(last["cpu_seconds"])


def judge(
    run: Path, paths: Sequence[Path], flags: argparse.Namespace
) -> list[dict[str, Any]]:
    """Rolls out and judges each peptide by a network."""
    asked = argparse.Namespace(
        lag=flags.lag, num_steps=None, jumps=flags.jumps, long=False, gate=True,
        replicas_per_lane=flags.replicas_per_lane, seed=0, model_lag=flags.lag,
        rollouts=run.parent / "rollouts",
    )  # fmt: skip
    network = peptides.network_of(load_weights(run), None, paths)
    lines = []
    for path in paths:
        reference = peptides.read(path)
        rolled = peptides.rolled_of(network, reference, asked)
        lines.append(peptides.judge(rolled, reference, asked))
    return lines


def summaries(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns medians over the peptides of each length that were not lost."""
    judged = [line for line in lines if "js" in line]
    return {
        str(length): figures.summary_of([x for x in judged if x["length"] == length])
        for length in sorted({line["length"] for line in judged})
    }


def plot(networks: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws medians against the number of peptides, a line for each length."""
    figure = matplotlib.figure.Figure(figsize=(10, 3.2), layout="constrained")
    lengths = sorted({length for one in networks for length in one["lengths"]})
    axes = figure.subplots(1, len(PANELS))
    for axis, (name, label) in zip(axes, PANELS.items(), strict=True):
        for place, length in enumerate(lengths):
            colour = f"C{place}"
            given = {"color": colour, "label": f"{length} residues"}
            axis.plot(*curve_of(networks, length, name), "o-", **given)
            if name == "js":
                floors = curve_of(networks, length, "floor")
                axis.plot(*floors, "--", color=colour, alpha=0.5)
        counts = [one["peptides"] for one in networks]
        axis.set(xscale="log", xlabel="peptides that trained", ylabel=label)
        axis.set_xticks(counts, map(str, counts))
        axis.minorticks_off()
        top = max(axis.dataLim.y1, 1e-9)
        axis.set_ylim(0.0, 1.0 if name == "chi_within" else 1.1 * top)
    axes[-1].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def curve_of(
    networks: Sequence[dict[str, Any]], length: str, name: str
) -> tuple[list[int], list[float | None]]:
    """Returns numbers of peptides, and a figure of one length where it was judged."""
    judged = [one for one in networks if length in one["lengths"]]
    counts = [one["peptides"] for one in judged]
    return counts, [one["lengths"][length][name] for one in judged]


def show(networks: Sequence[dict[str, Any]]) -> None:
    """Prints a row for each network and length."""
    columns = [(name, *peptides.COLUMNS[name]) for name in COLUMNS]
    rows = [
        (str(one["peptides"]), length, f"{one['cpu_seconds']:.0f}",
         *(trajectories.cell(found[name], digits) for name, _, digits in columns))
        for one in networks
        for length, found in one["lengths"].items()
    ]  # fmt: skip
    heads = ("trained on", "residues", "CPU s", *(head for _, head, _ in columns))
    report.show("medians over peptides that were not trained on", heads, rows)


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = report.parser(__doc__, "learning_curve")
    add = parser.add_argument
    add("--sets", nargs="+", required=True, help="folders of peptides that train")
    add("--validation", nargs="+", required=True, help="folders of peptides that judge")
    add("--workdir", type=Path, default=Path("workdir/learning_curve"), help="of runs")
    add("--config", default="peptides", help="of the networks")
    add("--num_steps", type=int, default=20_000, help="of training, of each network")
    add("--pairs", nargs="+", type=int, default=[20, 40, 80], help="in nested sets")
    add("--lengths", nargs="+", type=int, default=[2, 3, 4], help="residues, judged")
    add("--peptides_per_length", type=int, help="that are judged; all by default")
    add("--lag", type=float, default=10.0, help="ps, of a jump")
    add("--jumps", type=int, default=300, help="of each replica")
    add("--replicas_per_lane", type=int, default=2, help="from its first frame")
    add("--figure", type=Path, default=FIGURE, help="plot to write")
    return parser.parse_args()


def measure(flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Trains and judges network by network, and writes the figures as they come."""
    console = Console()
    sets = subsets(peptides.find(flags.sets), flags.pairs)
    judged = spread(
        peptides.find(flags.validation), flags.lengths, flags.peptides_per_length
    )
    seen = {p.stem for p in sets[-1].paths} & {p.stem for p in judged}
    if seen or not judged:
        raise UsageError(
            f"--validation: expected peptides that are not in --sets, found "
            f"{', '.join(sorted(seen)) or 'none'}"
        )
    asked = {name: str(value) for name, value in vars(flags).items()}
    networks: list[dict[str, Any]] = []
    for subset in sets:
        console.print(f"{len(subset.paths)} peptides")
        run, seconds = trained(subset, flags)
        lines = judge(run, judged, flags)
        networks.append({
            "peptides": len(subset.paths),
            "sequences": [path.stem for path in subset.paths],
            "cpu_seconds": seconds,
            "lengths": summaries(lines),
            "lines": lines,
        })  # fmt: skip
        report.write(flags.output, flags=asked, networks=networks)
    return networks


def main() -> None:
    """Measures, prints the table, and draws the figure."""
    flags = parse()
    networks = measure(flags)
    show(networks)
    plot(networks, flags.figure)


if __name__ == "__main__":
    main()
