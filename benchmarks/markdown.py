"""Tables in Markdown: figures over seeds, those of others, and where they stand.

A page has marks, `<!-- table: NAME -->` and `<!-- end of table -->`; `put` writes what
is between them.
"""

import ast
import contextlib
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UsageError

PUBLISHED = Path(__file__).parent / "published.json"
END = "<!-- end of table -->"
DATA = "data"
MODES = {"temperature_1": "", "basin": ", `--basin`"}
NONE = "–"
SCRIPTS = {
    "peptide_lags": "peptide_settings",
    "peptide_steps": "peptide_settings",
    "rollout_6": "rollout",
    "rollout_8": "rollout",
    "transports": "ala2",
}
"""Scripts of files of results that have another name."""

RINGS = range(3, 10)

Values = Sequence[float | None]
Found = Mapping[str, Any]
"""What `benchmarks.tables` writes."""

ROWS = (
    ("valid: `xyz2mol_hueckel`", "xyz2mol_hueckel.valid"),
    ("the same and unique", "xyz2mol_hueckel.valid_and_unique"),
    ("novel, of the unique", "xyz2mol_hueckel.novel"),
    ("valid: `xyz2mol`", "xyz2mol.valid"),
    ("the same and unique", "xyz2mol.valid_and_unique"),
    ("valid: `strict`", "strict.valid"),
    ("the same and unique", "strict.valid_and_unique"),
    ("valid: `edm`", "edm.valid"),
    ("the same and unique", "edm.valid_and_unique"),
    ("stable atoms: `edm`", "edm.atom_stability"),
    ("stable molecules: `edm`", "edm.molecule_stability"),
    ("valid and connected: `geom_drugs`", "geom_drugs.valid"),
    ("stable atoms: `geom_drugs`", "geom_drugs.atom_stability"),
    ("stable molecules: `geom_drugs`", "geom_drugs.molecule_stability"),
)


RELAXATION = (
    ("bonds", "bonds, mean change, Å", 4),
    ("angles", "angles, mean change, °", 2),
    ("torsions", "torsions, mean change, °", 2),
    ("energy_median", "energy gained, median, kcal/mol", 2),
    ("energy_mean", "energy gained, mean, kcal/mol", 2),
    ("rmsd_median", "RMSD, median, Å", 3),
    ("num_molecules", "molecules that were relaxed", 0),
)

SUMMARY = (
    ("valid, xyz2mol with Hückel", "xyz2mol_hueckel.valid"),
    ("unique among them", "xyz2mol_hueckel.unique"),
    ("strict: connected, neutral, no radicals", "strict.valid"),
    ("EDM table: stable molecules", "edm.molecule_stability"),
)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown.

    >>> print(table([["a", "b"], ["1", "2"]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def spread(values: Values, scale: float = 1.0, digits: int = 1) -> str:
    """Returns the mean and, of several seeds, the standard deviation.

    >>> spread([0.5, 0.7], 100.0), spread([0.5]), spread([None])
    ('60.0 ± 14.1', '0.5', '–')
    """
    known = np.array([value for value in values if value is not None]) * scale
    if len(known) == 0:
        return NONE
    if len(known) == 1:
        return f"{known[0]:.{digits}f}"
    return f"{known.mean():.{digits}f} ± {known.std(ddof=1):.{digits}f}"


def blocks(found: Found, old: Found | None = None) -> dict[str, str]:
    """Returns the tables of molecules, by the name of their marks.

    Args:
        found: figures of `benchmarks.tables`.
        old: those of `benchmarks.quetzal`, by an old RDKit.
    """
    sets = _ordered(found["sets"])
    return {
        "summary": table([*_head(sets, "%"), *_validity(sets, SUMMARY)]),
        "molecules": table([*_head(sets, "%"), *_validity(sets, ROWS), *_slow(sets)]),
        "distances": table([*_head(sets, "distance from the data"), *_distances(sets)]),
        "rings": table([*_head(sets, "rings in 100 molecules"), *_rings(sets)]),
        "relaxation": table([_head(sets, "GFN2-xTB")[0], *_relaxation(sets)]),
        "published": published(sets, {} if old is None else old["samples"]),
    }


def _ordered(sets: Found) -> dict[str, list[Found]]:
    """Returns the figures of each set, a list over seeds, the data last."""
    names = sorted(sets, key=lambda name: (name == DATA, name.split()[0] != "qm9"))
    return {name: list(sets[name]["seeds"].values()) for name in names}


def _head(sets: Mapping[str, list[Found]], first: str) -> list[list[str]]:
    titles, counts = [], []
    for name, seeds in sets.items():
        weights, *mode = name.split()
        word = "QM9 itself" if name == DATA else f"`{weights}`{MODES[mode[0]]}"
        titles.append(word)
        numbers = sorted({f"{seed['num_molecules']:,}" for seed in seeds})
        counts.append(f"{len(seeds)} x {' or '.join(numbers)}")
    return [[first, *titles], ["molecules, seeds x number", *counts]]


def _validity(
    sets: Mapping[str, list[Found]], rows: Sequence[tuple[str, str]]
) -> Iterator[list[str]]:
    for label, path in rows:
        name, figure = path.split(".")
        pick = lambda seed, n=name, f=figure: seed["conventions"][n][f]
        # The data's novelty is that of molecules that were held out by hand.
        skip = {DATA} if figure == "novel" else set()
        yield _row(label, sets, pick, 100.0, skip=skip)


def _slow(sets: Mapping[str, list[Found]]) -> Iterator[list[str]]:
    yield _row("never stopped", sets, lambda seed: seed["never_stopped"], 100.0)
    passed = lambda seed: (seed.get("poses") or {}).get("all_passed")
    label = "pass PoseBusters, of 200 valid ones of the first seed"
    yield _row(label, sets, passed, 100.0)


def _row(
    label: str,
    sets: Mapping[str, list[Found]],
    pick: Callable[[Found], float | None],
    scale: float = 1.0,
    digits: int = 1,
    skip: set[str] = frozenset(),
) -> list[str]:
    cells = [
        NONE if name in skip else spread([pick(seed) for seed in seeds], scale, digits)
        for name, seeds in sets.items()
    ]
    return [label, *cells]


def _distances(sets: Mapping[str, list[Found]]) -> Iterator[list[str]]:
    for key, label in (
        ("sizes", "sizes, JS, nats"),
        ("species", "atom types, JS, nats"),
        ("environments", "environments, JS, nats"),
    ):
        name = f"jensen_shannon_{key}"
        yield _row(label, sets, lambda seed, k=name: seed.get(k), digits=4)
    one = next(iter(sets.values()))[0]
    for key, label in (("bond_length_mmd", "bond"), ("bispectrum_mmd", "directions")):
        for kind, entry in one.get(key, {}).items():
            floor = NONE if entry["floor"] is None else f"{entry['floor']:.3f}"
            yield _row(
                f"{label} {kind}, MMD (floor {floor})",
                sets,
                lambda seed, key=key, kind=kind: (
                    seed.get(key, {}).get(kind, {}).get("mmd")
                ),
                digits=3,
            )


def _relaxation(sets: Mapping[str, list[Found]]) -> Iterator[list[str]]:
    for key, label, digits in RELAXATION:
        pick = lambda seed, k=key: (seed.get("relaxation") or {}).get(k)
        yield _row(label, sets, pick, digits=digits)


def _rings(sets: Mapping[str, list[Found]]) -> Iterator[list[str]]:
    for size in RINGS:

        def pick(seed: Found, size: str = str(size)) -> float | None:
            found = seed.get("rings_per_molecule", {}).get("samples")
            return None if found is None else found.get(size, 0.0)

        yield _row(f"of {size} atoms", sets, pick, 100.0)


def published(sets: Mapping[str, list[Found]], old: Found) -> str:
    """Returns the tables of figures that others published, ours among them.

    Args:
        sets: figures of each set, a list over seeds.
        old: those by an old RDKit, by the name of their files.
    """
    texts = []
    for convention in json.loads(PUBLISHED.read_text("utf-8"))["conventions"]:
        figures, columns = convention["figures"], convention["columns"]
        rows = [["", *columns.values(), "what it selects, or how"]]
        for entry in convention["models"]:
            cells = [str(entry.get(column, NONE)) for column in columns]
            rows.append([entry["name"], *cells, entry["how"]])
        for name, seeds in sets.items() if convention.get("ours", True) else ():
            rows.append(_ours(name, seeds, [figures.get(c) for c in columns]))
        if convention.get("old_rdkit"):
            rows += _by_old_rdkit(old, list(columns))
        texts.append(f"{convention['title']}\n\n{table(rows)}")
    return "\n\n".join(texts)


def _ours(
    name: str, seeds: Sequence[Found], figures: Sequence[str | None]
) -> list[str]:
    cells = []
    for path in figures:
        if path is None:
            cells.append(NONE)
            continue
        convention, figure = path.split(".")
        values = [seed["conventions"][convention][figure] for seed in seeds]
        cells.append(spread(values, 100.0))
    weights, *mode = name.split()
    if name == DATA:
        return ["*QM9, judged here*", *cells, "held-out molecules"]
    total = sum(seed["num_molecules"] for seed in seeds)
    return [f"**ours: `{weights}`{MODES[mode[0]]}**", *cells, f"all of {total:,}"]


def _by_old_rdkit(old: Found, columns: Sequence[str]) -> Iterator[list[str]]:
    """Yields a row for each set of files `NAME_SEED`, with the shares in `columns`."""
    sets: dict[str, list[Found]] = {}
    for name, entry in old.items():
        sets.setdefault(name.rpartition("_")[0], []).append(entry)
    for name, seeds in sets.items():
        mode = next((mode for mode in MODES if name.endswith(f"_{mode}")), None)
        if mode is None:  # Not a file of `benchmarks.tables`.
            continue
        weights, words = name.removesuffix(f"_{mode}"), MODES[mode]
        cells = [spread([seed[column] for seed in seeds], 100.0) for column in columns]
        total = sum(seed["num_molecules"] for seed in seeds)
        how = f"RDKit {seeds[0]['rdkit']}; all of {total:,}"
        yield [f"**ours: `{weights}`{words}**", *cells, how]


def put(path: Path, texts: Mapping[str, str]) -> None:
    """Writes tables between their marks in a page.

    Raises:
        UsageError: The page has none of the marks.
    """
    page = path.read_text("utf-8")
    known = {name: text for name, text in texts.items() if begin_of(name) in page}
    if not known:
        raise UsageError(f"{path}: expected a mark as {begin_of('NAME')}, found none")
    for name, text in known.items():
        page = replace(page, name, text)
    path.write_text(page, "utf-8")


def begin_of(name: str) -> str:
    """Returns the mark before a table."""
    return f"<!-- table: {name} -->"


def read(path: Path) -> Found | None:
    """Returns what a file has; None where there is none."""
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def replace(page: str, name: str, text: str) -> str:
    """Returns a page with the table of that name replaced.

    >>> page = "<!-- table: a -->old<!-- end of table -->"
    >>> replace(page, "a", "new").split()[4]
    'new'
    """
    begin = begin_of(name)
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n{text}\n{END}", page)


def others(folder: Path, leave_out: str) -> list[str]:
    """Returns the tables of all other results, each below the command that made it."""
    texts = []
    for path in sorted(folder.glob("*.json")):
        if path.stem == leave_out:
            continue
        found = json.loads(path.read_text("utf-8"))
        texts.append(f"## {path.stem}\n\n`{command_of(path.stem, found)}`\n")
        for name, rows in tables_in(found):
            texts.append(f"{name}\n\n{table(rows)}\n" if name else f"{table(rows)}\n")
    return texts


def command_of(name: str, found: Found) -> str:
    """Returns the command that a file records, or what is known of it.

    >>> command_of("sizes", {"flags": {"lags": "[1, 2]", "gate": "True", "seed": "0"}})
    'python -m benchmarks.sizes --lags 1 2 --gate --seed=0'

    Args:
        name: name of the file.
        found: what it has.
    """
    parts = [one["command"] for one in found.get("tables", {}).values()]
    if parts or "command" in found:
        return "; ".join(dict.fromkeys(parts or [found["command"]]))
    command = f"python -m benchmarks.{SCRIPTS.get(name, name)}"
    flags = found.get("flags") or found.get("settings")
    if flags is None:
        return f"{command} (flags were not recorded; docs/results.md)"
    return " ".join([command, *filter(None, map(_flag, flags, flags.values()))])


def _flag(name: str, value: Any) -> str:
    """Returns a flag as it is typed; empty for one that was not given."""
    with contextlib.suppress(ValueError, SyntaxError):  # A word is none.
        value = ast.literal_eval(value) if isinstance(value, str) else value
    if name == "output" or value is None or value is False:
        return ""
    if value is True:
        return f"--{name}"
    if isinstance(value, (list, tuple)):
        return f"--{name} {shlex.join(map(str, value))}"
    return f"--{name}={shlex.quote(str(value))}"


def tables_in(found: Any, name: str = "") -> Iterator[tuple[str, list[list[str]]]]:
    """Yields every list of records in a file of results as a table, with its name."""
    if isinstance(found, dict):
        for key, value in found.items():
            if key not in ("machine", "config"):
                yield from tables_in(value, f"{name} {key}".strip())
    elif isinstance(found, list) and found and all(isinstance(x, dict) for x in found):
        keys = {k: None for one in found for k, v in one.items() if _is_cell(v)}
        if keys:
            rows = [[_cell(one.get(key)) for key in keys] for one in found]
            yield name, [[*keys], *rows]


def _is_cell(value: Any) -> bool:
    return not isinstance(value, (dict, list))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
