"""Weights that were cut, garbled or edited by hand."""

import functools
import io
import json
import random
import struct
import zipfile
from pathlib import Path

import ml_collections
from hypothesis import strategies as st

from common.runs import config as configs
from common.runs import old_names
from tests.faults import molecules
from tests.faults.run import Case

ROOT = Path(__file__).resolve().parents[2]
READERS = (
    (("symphony", "sample"), "symphony/pretrained/qm9_cpu", "--checkpoint"),
    (
        ("symphony", "score", "--molecules=good.sdf"),
        "symphony/pretrained/qm9_cpu",
        "--checkpoint",
    ),
    (
        ("symphony", "refine", "--molecules=good.sdf"),
        "symphony/pretrained/refine_qm9",
        "--checkpoint",
    ),
    (("symphony", "sample", "--refine"), "symphony/pretrained/refine_qm9", "--refiner"),
    (("equijump", "sample"), "equijump/pretrained/ala2", "--checkpoint"),
)
"""Words of a command, the weights that it takes, and their flag."""

ADDED = {row.field for row in old_names.FIELDS if isinstance(row, old_names.Added)}


@functools.cache
def good(folder: str) -> dict[str, bytes]:
    """Returns the files of packaged weights."""
    return {path.name: path.read_bytes() for path in (ROOT / folder).iterdir()}


def _places(record: dict, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Returns the paths of all values of a record, groups among them."""
    found = []
    for name, value in record.items():
        found.append((*path, name))
        if isinstance(value, dict):
            found += _places(value, (*path, name))
    return found


def _is_needed(path: tuple[str, ...], kind: str) -> bool:
    """Returns whether weights cannot be used without a value of their record."""
    if path[0] == "config":
        fields = configs.flat(configs.default_of(kind))
        name = ".".join(path[1:])
        return any(field.startswith(name) for field in fields)
    if path[0] == "meta":
        return path in (("meta",), ("meta", "statistics"), ("meta", "systems"))
    return path not in (("dtype",),)


@st.composite
def _record(draw: st.DrawFn, folder: str) -> tuple[str, bytes]:
    """Draws a record one value of which is gone or of another type."""
    record = json.loads(good(folder)["config.json"])
    kind = configs.kind_of(ml_collections.ConfigDict(record["config"]))
    needed = [path for path in _places(record) if _is_needed(path, kind)]
    path = draw(st.sampled_from(needed))
    node = record
    for name in path[:-1]:
        node = node[name]
    old, fault = node.pop(path[-1]), "gone"
    # Weights of before a field was added do without it.
    if draw(st.booleans()) or ".".join(path[1:]) in ADDED:
        wrong = [None, {"a": 1}, 5 if isinstance(old, str | list) else "text"]
        node[path[-1]] = draw(st.sampled_from(wrong))
        fault = f"now {node[path[-1]]}"
    return f"{'.'.join(path)} {fault}", json.dumps(record).encode()


def _bytes_of_largest(contents: bytes) -> range:
    """Returns where the data of the largest array of an archive lie."""
    with zipfile.ZipFile(io.BytesIO(contents)) as archive:
        entry = max(archive.infolist(), key=lambda entry: entry.compress_size)
    head = contents[entry.header_offset : entry.header_offset + 30]
    start = entry.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
    return range(start, start + entry.compress_size)


@st.composite
def _damaged(draw: st.DrawFn, contents: bytes) -> tuple[str, bytes | None]:
    """Draws a file that is cut, garbled or none."""
    kind = draw(st.sampled_from(["cut", "zeros", "garbled", "deep", "folder", "flip"]))
    place = draw(st.sampled_from(_bytes_of_largest(contents)))
    garbled, flipped, noise = bytearray(contents), bytearray(contents), random.Random(0)
    for _ in range(40):
        garbled[noise.randrange(len(garbled))] ^= noise.randrange(1, 256)
    flipped[place] ^= 1 << draw(st.integers(0, 7))
    return kind, {
        "cut": contents[:place],
        "zeros": bytes(len(contents)),
        "garbled": bytes(garbled),
        "deep": b"[" * 100_000,
        "folder": None,
        "flip": bytes(flipped),
    }[kind]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draws a command and weights of which one file is wrong."""
    argv, folder, flag = draw(st.sampled_from(READERS))
    files = dict(good(folder))
    if draw(st.booleans()):
        fault, files["config.json"] = draw(_record(folder))
    else:
        fault, files["weights.npz"] = draw(_damaged(files["weights.npz"]))
    named = {f"w/{name}": contents for name, contents in files.items()}
    named["good.sdf"] = molecules.good()
    return Case(fault, (*argv, f"{flag}=w"), named)
