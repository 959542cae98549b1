"""Molecules of the parts of a run, put together: `symphony merge`.

What needs all molecules is done here: `--diverse`, `--best` and `--relax`.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.commands import cli, shards
from common.errors import UsageError
from symphony import molfile, relax
from symphony.acceptance import NOT_BEST, Gate, Terms, choose_best
from symphony.molfile import Entry


class Wanted(NamedTuple):
    """What is done with all molecules together.

    Attributes:
        diverse: true for no two of one canonical SMILES.
        best: how many are kept by `acceptance.choose_best`; all where None.
        relax: method of `symphony.relax`; nothing is relaxed where None.
    """

    diverse: bool = False
    best: int | None = None
    relax: str | None = None


class _Drawn(NamedTuple):
    """What `choose_best` looks at of a molecule."""

    log_likelihood: float | None
    atomic_numbers: range
    num_fixed: int


def merge(path: Path, parts: Sequence[Path], wanted: Wanted, overwrite: bool) -> None:
    """Puts molecules together as one process would have written them.

    Args:
        path: SDF to write; the other files lie beside it.
        parts: SDF of each part, in order.
        wanted: what is done with all molecules.
        overwrite: true to replace what stands there.

    Raises:
        UsageError: The parts are not whole, or not of one run, or files stand there.
    """
    molfile.check(path)
    relax.check(path, wanted.relax, overwrite)
    standing = [file for file in molfile.paths_of(path) if file.exists()]
    if standing and not overwrite:
        raise UsageError(
            f"{standing[0]}: expected no file, found one; give --overwrite or another "
            "name"
        )
    header, entries = _read(parts)
    gate, entries = _judge(header, entries, wanted)
    with molfile.replaced(path, header) as output:
        for record, sdf, extxyz in entries:
            molfile.append(output, record, sdf, extxyz)
    if wanted.relax is not None:
        sys.stdout.write(relax.run(path, wanted.relax) + "\n")
    count = sum(entry.record["valid"] for entry in entries)
    told = f"{count} valid molecules of {len(entries)}"
    if gate is not None:
        told = f"{gate.describe()}{gate.describe_best()}"
    sys.stdout.write(f"{path}: {told}, of {len(parts)} parts\n")


def _read(parts: Sequence[Path]) -> tuple[dict[str, Any], list[Entry]]:
    """Returns the header of the run, and all its molecules."""
    headers, entries = [], []
    for path in parts:
        manifest = molfile.paths_of(path).manifest
        if not manifest.is_file():
            raise UsageError(f"{manifest}: expected the manifest of a part, found none")
        with cli.locked(manifest):
            header, found = molfile.read(path)
        headers.append(header)
        wanted = len(shards.part_of(header, len(found)))
        if len(found) != wanted:
            raise UsageError(
                f"{path}: expected {wanted} molecules, found {len(found)}; run its "
                "command again, it goes on"
            )
        entries += found
    shards.check(parts, headers, molfile.FREE)
    del headers[0][shards.RECORD]
    return headers[0], entries


def _judge(
    header: dict[str, Any], entries: list[Entry], wanted: Wanted
) -> tuple[Gate | None, list[Entry]]:
    """Returns the gate and the molecules with its verdicts, told in the header.

    There is none where nothing was asked for, neither of the parts nor here.
    """
    settings = header["settings"]
    is_asked = wanted.diverse or wanted.best is not None
    if not is_asked and "accept" not in settings:
        return None, entries
    accept = settings.get("accept", header["bonds"])
    gate = Gate(Terms(accept, diverse=wanted.diverse, best=wanted.best), len(entries))
    reasons = [gate.judge_again(record) for record, _, _ in entries]
    if not is_asked:
        return gate, entries
    settings |= {"accept": accept, "diverse": wanted.diverse}
    if wanted.best is not None:
        settings |= {"best": wanted.best, "num_molecules": len(entries)}
        _reject_others(reasons, entries, len(settings.get("start", ())), gate)
    pairs = zip(entries, reasons, strict=True)
    return gate, [_with_verdict(entry, reason) for entry, reason in pairs]


def _reject_others(
    reasons: list[str | None], entries: Sequence[Entry], num_fixed: int, gate: Gate
) -> None:
    """Rejects those that are accepted, but not among the best."""
    passed = [place for place, reason in enumerate(reasons) if reason is None]
    if gate.terms.best > len(entries):
        raise UsageError(
            f"--best: expected 1 to {len(entries)}, the number of molecules, found "
            f"{gate.terms.best}"
        )
    drawn = [_drawn(entries[place].record, num_fixed) for place in passed]
    chosen = choose_best(drawn, gate.num_best)
    for rank, place in enumerate(passed):
        if rank not in chosen:
            reasons[place] = NOT_BEST


def _drawn(record: Mapping[str, Any], num_fixed: int) -> _Drawn:
    names = ("log_likelihood", "log_likelihood_before_refinement")
    known = [record[name] for name in names if name in record]
    return _Drawn(known[0] if known else None, range(record["num_atoms"]), num_fixed)


def _with_verdict(entry: Entry, reason: str | None) -> Entry:
    verdict = {"accepted": reason is None}
    verdict |= {} if reason is None else {"rejected": reason}
    former = ("accepted", "rejected")
    record = {k: v for k, v in entry.record.items() if k not in former}
    sdf = entry.sdf if reason is None else ""
    return Entry({**record, **verdict}, sdf, with_verdict(entry.extxyz, verdict))


def with_verdict(extxyz: str, verdict: Mapping[str, Any]) -> str:
    r"""Returns a frame with another verdict of a gate, behind its `valid`.

    >>> verdict = {"accepted": False, "rejected": "duplicate"}
    >>> with_verdict("0\nname=a stopped=T valid=T moved=0.1\n", verdict)
    '0\nname=a stopped=T valid=T accepted=F rejected=duplicate moved=0.1\n'
    """
    words = {True: "T", False: "F"}
    told = "".join(f" {name}={words.get(x, x)}" for name, x in verdict.items())
    before = r'( stopped=[TF] valid=[TF](?: unfinished=(?:"[^"]*"|\S+))?)'
    former = r"(?: accepted=[TF])?(?: rejected=\S+)?"
    return re.sub(before + former, rf"\g<1>{told}", extxyz, count=1)
