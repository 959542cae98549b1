"""Places where a command must not write."""

import json

from hypothesis import strategies as st

from tests.faults import molecules, trajectories
from tests.faults.run import PIPE, Case

FILES = {
    ("symphony", "sample", "--num_molecules=1"): "out.sdf",
    ("symphony", "refine", "--molecules=good.sdf"): "out.sdf",
    ("symphony", "score", "--molecules=good.sdf"): "out.csv",
}
"""Commands that write a file, and its name."""

FOLDERS = (
    ("symphony", "evaluate", "--samples=good.sdf", "--reference=good.sdf"),
    ("symphony", "train", "--config=tiny"),
    ("equijump", "train", "--config=tiny"),
    ("equijump", "sample", "--num_jumps=1", "--replicas=1"),
    ("equijump", "simulate", "--sequence=AA", "--length=0.001"),
    ("equijump", "evaluate", "--trajectory=good.xtc", "--topology=good.pdb"),
)
"""Commands that write a folder."""

FOREIGN = {
    "config.json": json.dumps({"learning_rate": 0.1}),
    "metrics.jsonl": '{"epoch": 1}\n{"epoch": 2}\n',
    "report.json": '{"coverage": 0.9}',
    "report.html": "<p>mine",
    "sample.json": '{"flavour": "vanilla"}',
    "simulate.json": "[]",
}
"""Files of another program that a folder may hold, by their names."""

NAMES = {
    "train": ("config.json", "metrics.jsonl"),
    "evaluate": ("report.json", "report.html"),
    "sample": ("sample.json",),
    "simulate": ("simulate.json",),
}
"""Files that a command would write, by its verb."""


def _files() -> dict[str, bytes]:
    return {
        "good.sdf": molecules.good(),
        "good.pdb": trajectories.good(".pdb"),
        "good.xtc": trajectories.good(".xtc"),
    }


@st.composite
def _file_cases(draw: st.DrawFn) -> Case:
    command = draw(st.sampled_from(list(FILES)))
    name = FILES[command]
    kind = draw(st.sampled_from(["foreign", "folder", "pipe", "below", "long", "no"]))
    given = {
        "below": f"good.sdf/{name}",
        "long": "x" * 300 + name[-4:],
        "no": "",
    }
    files = _files()
    if kind == "foreign":
        files[name] = b"my results"
    elif kind in ("folder", "pipe"):
        files[name] = None if kind == "folder" else PIPE
    return Case(kind, (*command, f"--output={given.get(kind, name)}"), files)


@st.composite
def _folder_cases(draw: st.DrawFn) -> Case:
    command = draw(st.sampled_from(FOLDERS))
    verb = command[1]
    flag = "--workdir" if verb == "train" else "--output"
    kind = draw(st.sampled_from(["foreign", "file", "pipe", "below", "long"]))
    given = {
        "file": "good.sdf",
        "below": "good.sdf/deeper",
        "long": "x" * 300,
    }
    files = _files()
    if kind == "foreign":
        name = draw(st.sampled_from(NAMES[verb]))
        files[f"out/{name}"] = FOREIGN[name].encode()
    elif kind == "pipe":
        files["out"] = PIPE
    return Case(kind, (*command, f"{flag}={given.get(kind, 'out')}"), files)


def cases() -> st.SearchStrategy[Case]:
    """Draws a command and a place that is not its own."""
    return st.one_of(_file_cases(), _folder_cases())
