"""Files of molecules with one thing wrong, for every flag that names such a file."""

import functools
import gzip
import io

import numpy as np
from hypothesis import strategies as st

from tests.faults.run import Case

READERS = {
    "--molecules": ("symphony", "score", "--num_orders=1"),
    "--fragment": ("symphony", "sample", "--num_molecules=1"),
    "--molecules=": ("symphony", "refine"),
    "--molecules==": ("symphony", "view"),
    "--samples": ("symphony", "evaluate", "--reference=good.sdf"),
    "--reference": ("symphony", "evaluate", "--samples=good.sdf"),
    "--config.data.path": ("symphony", "train", "--config=tiny", "--workdir=run"),
}
"""Words of a command, by the flag of the file that it reads."""


@functools.cache
def ethanol() -> tuple[list[str], np.ndarray]:
    """Returns symbols and positions in Å."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    mol = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    AllChem.EmbedMolecule(mol, randomSeed=7)
    symbols = [atom.GetSymbol() for atom in mol.GetAtoms()]
    return symbols, mol.GetConformer().GetPositions()


def sdf(symbols: list[str], positions: np.ndarray, tag: str = "3D") -> str:
    """Returns an SDF of one molecule without bonds."""
    atoms = [
        "{:10.4f}{:10.4f}{:10.4f} {:<3} 0  0  0  0  0  0".format(*place, symbol)
        for symbol, place in zip(symbols, positions, strict=True)
    ]
    counts = f"{len(symbols):3d}  0  0  0  0  0  0  0  0  0999 V2000"
    head = ["ethanol", f"  by hand           {tag}", "", counts]
    return "\n".join([*head, *atoms, "M  END", "$$$$", ""])


def xyz(symbols: list[str], positions: np.ndarray) -> str:
    """Returns plain XYZ of one molecule."""
    atoms = [
        "{} {:.5f} {:.5f} {:.5f}".format(symbol, *place)
        for symbol, place in zip(symbols, positions, strict=True)
    ]
    return "\n".join([str(len(symbols)), "ethanol", *atoms, ""])


def npz(**changes: np.ndarray) -> bytes:
    """Returns an archive of one molecule, some of its arrays replaced."""
    symbols, positions = ethanol()
    numbers = [{"H": 1, "C": 6, "O": 8}[symbol] for symbol in symbols]
    arrays = {
        "num_atoms": np.array([len(symbols)]),
        "atomic_numbers": np.array(numbers),
        "positions": positions,
    }
    file = io.BytesIO()
    np.savez_compressed(file, **(arrays | changes))
    return file.getvalue()


def good() -> bytes:
    """Returns an SDF that every command takes."""
    return sdf(*ethanol()).encode()


TEXTS = {".sdf": sdf, ".mol": sdf, ".xyz": xyz, ".extxyz": xyz}


@st.composite
def _changed_molecules(draw: st.DrawFn) -> tuple[str, str, str]:
    """Draws a molecule that cannot be one, in a file without a fault."""
    symbols, positions = ethanol()
    symbols, positions = list(symbols), positions.copy()
    atom = draw(st.integers(0, len(symbols) - 1))
    change = draw(st.sampled_from(["symbol", "far", "same", "flat", "nm", "pm"]))
    if change == "symbol":
        symbols[atom] = draw(st.sampled_from(["Xx", "R#", "*", "Q9", "?", "A"]))
    elif change == "far":
        positions[atom] = draw(st.sampled_from([1e5, -1e5]))
    elif change == "same":
        positions[atom] = positions[atom - 1]
    elif change == "flat":
        heavy = [place for place, symbol in enumerate(symbols) if symbol != "H"]
        symbols, positions = (["C"] * 5, np.zeros((5, 3)))
        positions[:, 0] = 1.5 * np.arange(len(heavy) + 2)
        positions[:, 1] = 0.8 * (np.arange(len(heavy) + 2) % 2)
    else:
        positions *= {"nm": 0.1, "pm": 100.0}[change]
    suffix = draw(st.sampled_from(sorted(TEXTS)))
    if suffix in (".sdf", ".mol") and change == "flat":
        tag = draw(st.sampled_from(["2D", "3D"]))
        return f"flat, {tag}", suffix, sdf(symbols, positions, tag)
    return change, suffix, TEXTS[suffix](symbols, positions)


@st.composite
def _changed_texts(draw: st.DrawFn) -> tuple[str, str, str]:
    """Draws a text of one molecule with a word that no reader can take."""
    suffix = draw(st.sampled_from(sorted(TEXTS)))
    text = TEXTS[suffix](*ethanol())
    lines = text.split("\n")
    first = 4 if suffix in (".sdf", ".mol") else 2
    row = draw(st.integers(first, first + 8))
    words = ["nan", "inf", "abc", "1,5", "***", "--1", "0x10"]
    change = draw(st.sampled_from(["number", "cut", "count", "line", "nothing"]))
    if change == "number":
        number = lines[row][:10] if first == 4 else lines[row].split()[1]
        word = draw(st.sampled_from(words)).rjust(len(number))
        lines[row] = lines[row].replace(number, word, 1)
    elif change == "cut":
        lines = [*lines[:row], lines[row][:5]]
    elif change == "count":
        count = draw(st.sampled_from(["999", "-1", "abc", "1e3", "0"]))
        line = 3 if first == 4 else 0
        lines[line] = count.rjust(3) + lines[line][3:]
    elif change == "line":
        del lines[row]
    else:
        lines = [draw(st.sampled_from(["", " ", "\n\n", "\t"]))]
    return f"{change} in line {row}", suffix, "\n".join(lines)


@st.composite
def _changed_arrays(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """Draws an archive whose arrays do not fit together."""
    total = len(ethanol()[0])
    changes = {
        "num_atoms": [np.array([total + 1]), np.array([-1]), np.array(total), "9", 9.0],
        "atomic_numbers": [
            np.zeros(total),
            np.full(total, 300),
            np.ones(total - 1, int),
        ],
        "positions": [
            np.zeros((total, 2)),
            np.full((total, 3), np.nan),
            np.zeros((total, 3), "U3"),
            np.zeros((total, 3), complex),
            np.zeros((total, 3), "M8[s]"),
            np.array([{}], object),
            np.zeros((300_000, 3)),
        ],
    }
    name = draw(st.sampled_from(sorted(changes)))
    index = draw(st.integers(0, len(changes[name]) - 1))
    contents = npz(**{name: np.asarray(changes[name][index])})
    return f"{name} {index}", ".npz", contents


@st.composite
def _changed_bytes(draw: st.DrawFn) -> tuple[str, str, bytes | None]:
    """Draws contents that are not of the form that the name promises."""
    suffix = draw(
        st.sampled_from([*TEXTS, ".npz", ".sdf.gz", ".xyz.gz", ".zip", ".pdb"])
    )
    text = sdf(*ethanol())
    contents = {
        "zeros": bytes(300),
        "random": draw(st.binary(min_size=1, max_size=200)),
        "utf-32": text.encode("utf-32"),
        "cut": npz()[: draw(st.integers(1, 300))],
        "cut gz": gzip.compress(text.encode())[:-20],
        "folder": None,
    }
    fault = draw(st.sampled_from(sorted(contents)))
    return fault, suffix, contents[fault]


def _bytes(contents: str | bytes | None) -> bytes | None:
    return contents.encode() if isinstance(contents, str) else contents


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draws a command and the one file that is wrong for it."""
    flag = draw(st.sampled_from(sorted(READERS)))
    kinds = (_changed_molecules, _changed_texts, _changed_arrays, _changed_bytes)
    fault, suffix, contents = draw(st.one_of([kind() for kind in kinds]))
    name = f"given{suffix}"
    files = {"good.sdf": good(), name: _bytes(contents)}
    if draw(st.integers(0, 30)) == 0:
        del files[name]
        fault = "no file"
    argv = (*READERS[flag], f"{flag.rstrip('=')}={name}")
    return Case(fault, argv, files)
