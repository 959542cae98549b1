"""Molecules, their properties and what each convention says of them, for a page.

Positions are turned to the principal axes, so that a flat picture shows the most.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from rdkit import Chem

from common.pages import embed
from symphony import molfile
from symphony.arrays import AtomicNumbers, HostPositions
from symphony.chemistry import bonds
from symphony.data.elements import SYMBOLS
from symphony.evaluate.conventions import Judgement
from symphony.evaluate.samples import Samples
from symphony.view import fields

NUM_CARDS = 1000
"""Molecules of an evaluation that its page shows."""

_SLACK = 0.4
"""Å beyond the sum of two covalent radii up to which a bond is drawn, where no
convention finds bonds."""

PREFERRED = ("xyz2mol_hueckel", "xyz2mol")
"""Conventions whose bonds are drawn, the first that finds some."""

_FOLDER = Path(__file__).parent


def make(drawn: Samples, judgement: Judgement, count: int) -> dict[str, Any]:
    """Returns the first molecules as JSON values; see `grid.js`.

    Args:
        drawn: all molecules.
        judgement: what conventions say of them.
        count: largest number of molecules.
    """
    total = min(len(drawn.molecules), count)
    told = fields.read(drawn, total)
    names = list(judgement.scores)
    molecules = []
    for index in range(total):
        own = told[index] if index < len(told) else {}
        found = {name: judgement.perceptions[name][index] for name in names}
        bonded = _bonds_of(judgement.perceptions, index)
        molecules.append(_card(drawn, index, own, found, bonded))
    return {
        "source": drawn.source,
        "num_molecules": len(drawn.molecules),
        "conventions": names,
        "molecules": molecules,
    }


def _card(
    drawn: Samples,
    index: int,
    own: Mapping[str, Any],
    found: Mapping[str, bonds.Perception],
    bonded: Sequence[tuple[int, int, float]],
) -> dict[str, Any]:
    numbers, positions = _atoms_of(drawn, index)
    values = fields.of_atoms(own, len(numbers))
    smiles = next((p.graph_smiles for p in found.values() if p.graph_smiles), None)
    known = {"formula": molfile.formula(numbers), "num_atoms": len(numbers)}
    known = {**known, **({} if smiles is None else {"smiles": smiles})}
    return {
        "index": index,
        "name": str(drawn.names[index]) if index < len(drawn.names) else f"{index}",
        **picture(numbers, positions, bonded),
        "status": [perception.status for perception in found.values()],
        "values": {name: embed.pack(of) for name, of in values.items()},
        "fields": {**known, **fields.shown(own)},
    }


def _atoms_of(drawn: Samples, index: int) -> bonds.Molecule:
    """Returns a molecule as it was read; none where it was not."""
    if index < len(drawn.shown):
        numbers, positions = drawn.shown[index]
        if np.all((numbers > 0) & (numbers <= len(SYMBOLS))):
            return numbers, np.where(np.isfinite(positions), positions, 0.0)
    return np.zeros(0, np.uint8), np.zeros((0, 3))


def _bonds_of(
    perceptions: Mapping[str, Sequence[bonds.Perception]], index: int
) -> tuple[tuple[int, int, float], ...]:
    for name in PREFERRED:
        if name in perceptions and perceptions[name][index].bonds:
            return perceptions[name][index].bonds
    return ()


def picture(
    numbers: AtomicNumbers,
    positions: HostPositions,
    bonded: Sequence[tuple[int, int, float]] = (),
) -> dict[str, str]:
    """Returns elements, positions and bonds as a page draws them.

    Args:
        numbers: atomic numbers.
        positions: positions in Å.
        bonded: atoms and order of each bond; by distance where there are none.
    """
    pairs = bonded or near_bonds(numbers, positions)
    return {
        "elements": " ".join(SYMBOLS[number - 1] for number in numbers.tolist()),
        "positions": embed.pack(upright(positions)),
        "bonds": embed.pack(np.array(pairs, np.float64).reshape(-1, 3), 0.5),
    }


def upright(
    positions: Float[np.ndarray, "num_atoms 3"],
) -> Float[np.ndarray, "num_atoms 3"]:
    """Returns positions about their middle, the longest axis first, never mirrored."""
    if len(positions) == 0:
        return np.zeros((0, 3))
    centred = positions - positions.mean(axis=0, dtype=np.float64)
    return centred @ axes_of(positions)


def axes_of(positions: Float[np.ndarray, "num_atoms 3"]) -> Float[np.ndarray, "3 3"]:
    """Returns the principal axes as columns of a rotation."""
    centred = positions - positions.mean(axis=0, dtype=np.float64)
    axes = np.linalg.svd(centred.T @ centred)[0]
    axes[:, 2] *= np.sign(np.linalg.det(axes))
    return axes


def near_bonds(
    numbers: AtomicNumbers, positions: HostPositions
) -> list[tuple[int, int, float]]:
    """Returns single bonds between atoms that are near enough, for a drawing."""
    table = Chem.GetPeriodicTable()
    radii = np.array([table.GetRcovalent(int(number)) for number in numbers])
    vectors = positions[:, None] - positions
    distances = np.sqrt(np.sum(np.square(vectors, dtype=np.float64), axis=-1))
    near = distances < radii[:, None] + radii + _SLACK
    pairs: Int[np.ndarray, "_ 2"] = np.argwhere(np.triu(near, 1))
    return [(int(i), int(j), 1.0) for i, j in pairs]


def to_html(cards: Mapping[str, Any]) -> str:
    """Returns the grid of molecules, with its data and scripts."""
    scripts = (embed.SHARED, _FOLDER / "grid.js")
    return "\n".join(
        [
            embed.style(_FOLDER / "grid.css"),
            embed.block("molecules", cards),
            '<section class="molecules" data-of="molecules"></section>',
            embed.library(),
            *map(embed.script, scripts),
        ]
    )
