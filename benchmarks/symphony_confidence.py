r"""Whether Symphony's likelihoods tell good molecules from bad ones.

    python -m benchmarks.symphony_confidence --num_molecules=1000 --num_workers=2

Molecules are drawn at temperature one and ranked by their log-likelihood: that of the
path for each atom, less the mean of the size (as `symphony sample --best` does), the
same of the bound over orders (`symphony score`), and the part of the least likely atom.
Each ranking is held against validity, PoseBusters' fast tests (of all, an invalid one
fails them), and, of valid molecules, the strain by GFN2-xTB (root mean square force,
eV/Å) and the energy that relaxation by GFN2-xTB gains (eV). Printed are the means in
five groups of equal size from the least to the most likely, and Spearman's rank
correlation with its standard error by bootstrap. Needs the extra `eval`.
`--num_orders=0` leaves the bound out, which takes most of the time.
"""

import multiprocessing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy import stats

import symphony
from benchmarks import report
from symphony import data, likelihood, manifest
from symphony.manifest import Sample
from symphony.weights import Weights

FIGURE = Path(__file__).resolve().parents[1] / "docs/figures/symphony_confidence.png"
NUM_GROUPS, NUM_RESAMPLES = 5, 1000
JUDGES = {
    "valid": "valid",
    "posebusters": "passes PoseBusters",
    "strain": "GFN2 force, eV/Å",
    "relaxation": "GFN2 relaxation, eV",
}
RANKINGS = {
    "path": "path, per atom less mean of size",
    "bound": "bound over orders, per atom less mean of size",
    "least": "least likely atom of the path",
}


def judge(sample: Sample, with_energy: bool) -> dict[str, float]:
    """Returns what is known of a molecule: 0 or 1, eV/Å, eV; NaN where nothing is."""
    from symphony.chemistry import relaxing
    from symphony.evaluate import poses

    mol, record = manifest.finish(sample)
    found = {"valid": float(record["valid"]), "posebusters": 0.0}
    found |= {"strain": float("nan"), "relaxation": float("nan")}
    if not record["valid"]:
        return found
    checks = poses.check([mol])
    found["posebusters"] = float("nan") if checks is None else checks.all_passed
    if with_energy:
        try:
            relaxed = relaxing.relax(mol, "gfn2")
        except relaxing.NoValueError:
            return found
        found |= {"strain": relaxed.force, "relaxation": -relaxed.energy_change}
    return found


def judge_all(
    samples: Sequence[Sample], relaxes: Sequence[bool], num_workers: int
) -> list[dict[str, float]]:
    """Judges molecules, in other processes where there are to be several."""
    pairs = list(zip(samples, relaxes, strict=True))
    if num_workers == 1:
        return [judge(*pair) for pair in pairs]
    with multiprocessing.get_context("spawn").Pool(num_workers) as pool:
        return pool.starmap(judge, pairs, chunksize=4)


def bounds_of(
    weights: Weights, samples: Sequence[Sample], num_orders: int
) -> Float[np.ndarray, " num_molecules"]:
    """Returns the bound over orders of each molecule, in nats; NaN where unfinished."""
    found = np.full(len(samples), np.nan)
    whole = [place for place, one in enumerate(samples) if one.stopped]
    chosen = [samples[place] for place in whole]
    molecules = data.make_molecules(
        np.array([len(one.atomic_numbers) for one in chosen]),
        np.concatenate([one.atomic_numbers for one in chosen]),
        np.concatenate([one.positions for one in chosen]).astype(np.float32),
    )
    scores = likelihood.score_molecules(weights, molecules, num_orders, 32, 0)
    for place, score in scores:
        found[whole[place]] = score.bound
    return found


def rank(
    samples: Sequence[Sample], bounds: Float[np.ndarray, " num_molecules"] | None
) -> dict[str, Float[np.ndarray, " num_molecules"]]:
    """Returns the rankings by name; a larger value is a likelier molecule."""
    sizes = np.array([len(one.atomic_numbers) for one in samples])
    total = np.array([one.log_likelihood for one in samples], np.float64)
    found = {"path": less_mean(total / sizes, sizes)}
    if bounds is not None:
        found["bound"] = less_mean(bounds / sizes, sizes)
    found["least"] = np.array([np.nanmin(one.log_of_atoms) for one in samples])
    return found


def less_mean(
    values: Float[np.ndarray, " num_molecules"], sizes: np.ndarray
) -> Float[np.ndarray, " num_molecules"]:
    """Takes off the mean of the finite values of the same size.

    >>> less_mean(np.array([1.0, 3.0, 5.0]), np.array([2, 2, 3])).tolist()
    [-1.0, 1.0, 0.0]
    """
    found = values.copy()
    for size in np.unique(sizes):
        own = (sizes == size) & np.isfinite(values)
        found[own] -= values[own].mean() if own.any() else 0.0
    return found


def hold_against(
    ranking: Float[np.ndarray, " num_molecules"],
    values: Float[np.ndarray, " num_molecules"],
) -> dict[str, Any]:
    """Returns the means of five groups by the ranking, and the rank correlation."""
    known = np.isfinite(ranking) & np.isfinite(values)
    x, y = ranking[known], values[known]
    groups = np.array_split(y[np.argsort(x, kind="stable")], NUM_GROUPS)
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(x), (NUM_RESAMPLES, len(x)))
    resampled = [stats.spearmanr(x[own], y[own]).statistic for own in draws]
    return {
        "num_molecules": len(x),
        "groups": [float(group.mean()) for group in groups],
        "correlation": float(stats.spearmanr(x, y).statistic),
        "standard_error": float(np.nanstd(resampled)),
    }


def draw(found: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draws the reliability curves, a panel for each judge."""
    figure = Figure(figsize=(11, 2.8), layout="constrained")
    panels = figure.subplots(1, len(JUDGES))
    for panel, (judge_name, title) in zip(panels, JUDGES.items(), strict=True):
        for name, ranked in found.items():
            groups = ranked[judge_name]["groups"]
            label = RANKINGS[name].split(",")[0]
            panel.plot(range(1, len(groups) + 1), groups, "o-", label=label)
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("fifth, least to most likely", fontsize=8)
    panels[0].legend(fontsize=7)
    return figure


def show(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the table."""
    rows = []
    for name, ranked in found.items():
        for judge_name, title in JUDGES.items():
            one = ranked[judge_name]
            groups = [f"{mean:.3f}" for mean in one["groups"]]
            rho = f"{one['correlation']:+.2f} ± {one['standard_error']:.2f}"
            rows.append(
                [RANKINGS[name], title, str(one["num_molecules"]), *groups, rho]
            )
    heads = ["ranking", "judge", "molecules", *"12345", "rank correlation"]
    report.show("Likelihood against quality", heads, rows, left=heads[:2])


def main() -> None:
    """Measures, prints the table, and draws the curves."""
    parser = report.parser(__doc__, "symphony_confidence")
    add = parser.add_argument
    add("--checkpoint", default="qm9", help="packaged weights or a run's folder")
    add("--num_molecules", type=int, default=1000, help="molecules that are drawn")
    add("--num_relaxed", type=int, default=1000, help="of these, by GFN2-xTB")
    add("--num_orders", type=int, default=16, help="of the bound; 0: none")
    add("--num_workers", type=int, default=1, help="processes that judge")
    add("--seed", type=int, default=0, help="of the molecules")
    flags = parser.parse_args()
    sampler = symphony.load(flags.checkpoint)
    samples = sampler.sample_positions(flags.num_molecules, flags.seed)
    bounds = None
    if flags.num_orders:
        bounds = bounds_of(sampler.weights, samples, flags.num_orders)
    relaxes = [place < flags.num_relaxed for place in range(len(samples))]
    judged = judge_all(samples, relaxes, flags.num_workers)
    values = {name: np.array([one[name] for one in judged]) for name in JUDGES}
    found = {
        name: {own: hold_against(ranking, values[own]) for own in JUDGES}
        for name, ranking in rank(samples, bounds).items()
    }
    show(found)
    settings = {k: v for k, v in vars(flags).items() if k != "output"}
    report.write(flags.output, settings=settings, found=found)
    draw(found).savefig(FIGURE, dpi=110)


if __name__ == "__main__":
    main()
