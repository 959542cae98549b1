"""Trajectories, topologies and structures with one thing wrong."""

import functools
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from tests.faults.run import Case

PACKAGED = Path(__file__).resolve().parents[2] / "equijump" / "packaged"
NUM_FRAMES = 60
SUFFIXES = (".xtc", ".dcd", ".h5", ".nc", ".trr")

READERS = {
    "evaluate": ("equijump", "evaluate", "--topology=a.pdb", "--trajectory=a{}"),
    "reference": (
        "equijump", "evaluate", "--reference_topology=a.pdb", "--reference=a{}",
        "--topology=good.pdb", "--trajectory=good.xtc",
    ),
    "inspect": ("equijump", "inspect", "--topology=a.pdb", "a{}"),
    "start": ("equijump", "sample", "--topology=a.pdb", "--start", "a{}"),
    "train": (
        "equijump", "train", "--config=tiny", "--workdir=run",
        "--config.data.topology=a.pdb", "--config.data.sources=('a{}',)",
    ),
}  # fmt: skip
"""Words of a command, by what it does with the file."""


@functools.cache
def _frames() -> object:
    import mdtraj

    path = PACKAGED / "ala2_300K_0.xtc"
    return mdtraj.load(str(path), top=str(PACKAGED / "ala2_300K.pdb"))[:NUM_FRAMES]


def write(frames: object, suffix: str) -> bytes:
    """Returns the file of some frames."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        frames.save(str(path))
        return path.read_bytes()


@functools.cache
def good(suffix: str) -> bytes:
    """Returns a file that every command takes."""
    return write(_frames()[:1] if suffix == ".pdb" else _frames(), suffix)


@st.composite
def _damaged(draw: st.DrawFn) -> tuple[str, str, bytes | None]:
    """Draws a trajectory that is cut or of another form."""
    suffix = draw(st.sampled_from(SUFFIXES))
    whole = good(suffix)
    kind = draw(st.sampled_from(["cut", "zeros", "random", "text", "folder", "other"]))
    contents = {
        "cut": whole[: draw(st.integers(0, len(whole) * 9 // 10))],
        "zeros": bytes(len(whole)),
        "random": draw(st.binary(min_size=1, max_size=300)),
        "text": b"what is written here is no trajectory\n" * 20,
        "folder": None,
        "other": good(".pdb"),
    }
    return kind, suffix, contents[kind]


@st.composite
def _flipped(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """Draws a trajectory whose first bytes, which tell its form, have another bit."""
    suffix = draw(st.sampled_from([".xtc", ".h5"]))
    contents = bytearray(good(suffix))
    place = draw(st.integers(0, 3 if suffix == ".xtc" else 7))
    contents[place] ^= 1 << draw(st.integers(0, 7))
    return "flipped", suffix, bytes(contents)


@st.composite
def _changed(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """Draws whole files of positions or times that cannot be right."""
    frames = _frames()[:]
    frame = draw(st.integers(0, NUM_FRAMES - 1))
    change = draw(st.sampled_from(["nan", "far", "nm", "times", "one", "atoms"]))
    suffix = ".trr" if change == "nan" else draw(st.sampled_from([".xtc", ".trr"]))
    if change == "nan":
        frames.xyz[frame, 3] = np.nan
    elif change == "far":
        frames.xyz[frame, draw(st.integers(0, 9))] += 40.0
    elif change == "nm":
        frames.xyz *= draw(st.sampled_from([0.1, 10.0]))
    elif change == "times":
        frames.time = np.zeros(NUM_FRAMES)
    elif change == "one":
        frames = frames[:1]
    else:
        frames = frames.atom_slice(np.arange(6))
    return change, suffix, write(frames, suffix)


@st.composite
def _topology(draw: st.DrawFn) -> tuple[str, bytes | None]:
    """Draws a topology that fits no trajectory."""
    lines = good(".pdb").decode().split("\n")
    atoms = [row for row, line in enumerate(lines) if line.startswith("ATOM")]
    row = draw(st.sampled_from(atoms))
    change = draw(st.sampled_from(["line", "name", "number", "empty", "text", "none"]))
    if change == "line":
        del lines[row]
    elif change == "name":
        lines[row] = lines[row][:17] + "XYZ" + lines[row][20:]
    elif change == "number":
        lines[row] = lines[row][:30] + "    abcd" + lines[row][38:]
    elif change == "empty":
        lines = []
    elif change == "text":
        lines = ["no PDB"] * 3
    else:
        return "a folder", None
    return f"{change} of line {row}", "\n".join(lines).encode()


def _may_start(fault: str, contents: bytes | None) -> bool:
    """Returns whether a file may have good frames to start from in spite of it."""
    return fault == "one" or (contents is not None and len(contents) > 3_000)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draws a command and the one file that is wrong for it."""
    use = draw(st.sampled_from(sorted(READERS)))
    files = {"good.pdb": good(".pdb"), "good.xtc": good(".xtc"), "a.pdb": good(".pdb")}
    suffix, wrong = ".xtc", good(".xtc")
    which = draw(st.sampled_from(["damaged", "flipped", "changed", "topology", "none"]))
    fault = "no file"
    if which == "topology":
        fault, files["a.pdb"] = draw(_topology())
    elif which != "none":
        kind = {"damaged": _damaged, "flipped": _flipped, "changed": _changed}[which]
        fault, suffix, wrong = draw(kind())
    if which != "none":
        files[f"a{suffix}"] = wrong
    if use == "start" and which in ("damaged", "changed") and _may_start(fault, wrong):
        use = "train"  # One frame is enough to start from, and may be whole.
    if which == "changed" and use == "evaluate":
        use = "train"  # What a model made may be broken, and is judged.
    argv = tuple(word.format(suffix) for word in READERS[use])
    return Case(fault, argv, files)
