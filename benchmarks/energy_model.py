r"""What an energy model knows: errors on held-out structures, relaxation, ranking.

    python -m benchmarks.energy_data --reference=qm9 --output=workdir/qm9_gfn2.npz
    python -m benchmarks.energy_model --data=workdir/qm9_gfn2.npz
    symphony sample --checkpoint=qm9_cpu --formula=C7H10O2 --num_molecules=100 \
      --output=workdir/isomers.sdf
    python -m benchmarks.energy_model --samples=workdir/isomers.sdf

Errors are means of absolute values over the held-out molecules as QM9 has them
("still") and over their noised copies: of the energy for each atom, of components of
forces, and of those of one random column of the Hessian. `--weights` names several,
packaged ones or folders, in one table.

The molecules of `--samples` are relaxed by the first weights and by GFN2-xTB (extra
`eval`). Recovered is the share of what GFN2-xTB gains by its own relaxation, by its own
energy; ranks are compared by Spearman's correlation of the relaxed energies, within
each formula.
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors
from scipy import stats

from benchmarks import markdown, report
from common.nn.energy import hessian_vector, predict
from symphony import potential as potentials
from symphony.chemistry import relaxing
from symphony.data.molecules import to_species
from symphony.kinds.energy import build

VALIDATION = 1
ERRORS = {
    "energy": ("energy, meV an atom", 1e3),
    "forces": ("forces, meV/Å", 1e3),
    "hessian": ("Hessian column, eV/Å²", 1.0),
}


def held_out(path: Path) -> list[dict[str, Any]]:
    """Returns the structures of `benchmarks.energy_data` that no training saw."""
    arrays = dict(np.load(path))
    ends = np.cumsum(arrays["num_atoms"])
    found = []
    for index in np.flatnonzero(arrays["split"] == VALIDATION):
        own = slice(ends[index] - arrays["num_atoms"][index], ends[index])
        names = ("atomic_numbers", "positions", "forces", "hessian_column")
        found.append({name: arrays[name][own] for name in names} | {
            "energy": float(arrays["energy"][index]),
            "coordinate": int(arrays["hessian_coordinate"][index]),
            "is_noised": bool(arrays["is_noised"][index]),
        })  # fmt: skip
    return found


def errors_of(
    potential: potentials.Potential, structures: Sequence[dict[str, Any]]
) -> list[dict[str, float]]:
    """Returns the errors of every structure, in eV and Å; one size fits all."""
    size = max(len(one["atomic_numbers"]) for one in structures)

    @jax.jit
    def measure(positions: Array, species: Array, count: Array, unit: Array) -> Any:
        energy = lambda s: jnp.sum(potential.model.apply(potential.params, s).energy)
        structure = build.all_pairs(positions, species, jnp.arange(size) < count)
        direction = jax.nn.one_hot(unit, 3 * size).reshape(size, 3)
        found = predict(energy, structure)
        column = hessian_vector(energy, structure, direction)
        return found.energy, found.forces, column

    found = []
    for one in structures:
        count = len(one["atomic_numbers"])
        species = to_species(one["atomic_numbers"], potential.model.atomic_numbers)
        lone = sum(potential.atom_energies[index] for index in species)
        pad = lambda a, n=count: np.pad(a, [(0, size - n)] + [(0, 0)] * (a.ndim - 1))
        given = pad(one["positions"]), pad(species), count, one["coordinate"]
        energy, forces, column = map(np.asarray, measure(*given))
        found.append({
            "energy": abs(float(energy) + lone - one["energy"]) / count,
            "forces": float(np.abs(forces[:count] - one["forces"]).mean()),
            "hessian": float(np.abs(column[:count] - one["hessian_column"]).mean()),
        })  # fmt: skip
    return found


def table_of_errors(found: dict[str, Any]) -> str:
    """Returns the errors of all weights in Markdown."""
    rows = [["weights", "structures", *(head for head, _ in ERRORS.values())]]
    for name, kinds in found.items():
        for kind, errors in kinds.items():
            cells = [f"{scale * errors[k]:.3g}" for k, (_, scale) in ERRORS.items()]
            rows.append([f"`{name}`", f"{errors['count']} {kind}", *cells])
    return markdown.table(rows)


def use(path: Path, limit: int) -> dict[str, Any]:
    """Relaxes sampled molecules by both methods, and compares."""
    mols = [mol for mol in Chem.SDMolSupplier(str(path), removeHs=False) if mol]
    lines, seconds = [], {"energy": 0.0, "gfn2": 0.0}
    for mol in mols[:limit]:
        judge = relaxing.by_gfn2(mol)
        at = lambda mol, judge=judge: judge(mol.GetConformer().GetPositions().ravel())
        relaxed = {}
        try:
            for method in seconds:
                start = time.process_time()
                relaxed[method] = relaxing.relax(mol, method)
                seconds[method] += time.process_time() - start
            ours, theirs = relaxed["energy"], relaxed["gfn2"]
            start_energy, end_energy = at(mol)[0], at(ours.mol)[0]
        except relaxing.NoValueError:
            continue
        lines.append({
            "formula": rdMolDescriptors.CalcMolFormula(mol),
            "recovered": (start_energy - end_energy) / -theirs.energy_change,
            "left": end_energy - theirs.energy,
            "energy": ours.energy, "gfn2": theirs.energy,
        })  # fmt: skip
    groups = defaultdict(list)
    for line in lines:
        groups[line["formula"]].append(line)
    ranks = {
        formula: float(stats.spearmanr(*(
            [line[name] for line in own] for name in ("energy", "gfn2")
        )).statistic)
        for formula, own in groups.items() if len(own) > 4
    }  # fmt: skip
    median = lambda name: float(np.median([line[name] for line in lines]))
    return {
        "molecules": len(lines), "of": len(mols[:limit]), "spearman": ranks,
        "recovered": median("recovered"), "left_eV": median("left"),
        "cpu_seconds_a_molecule": {k: v / len(lines) for k, v in seconds.items()},
    }  # fmt: skip


def main() -> None:
    """Runs what is asked for, and adds it to the results."""
    parser = report.parser(__doc__, "energy_model")
    add = parser.add_argument
    add("--weights", nargs="+", default=["qm9_energy"], help="names or folders")
    add("--data", type=Path, help="what benchmarks.energy_data wrote")
    add("--samples", type=Path, help="SDF of sampled molecules")
    add("--limit", type=int, default=100, help="molecules of it")
    flags = parser.parse_args()
    found: dict[str, Any] = {}
    if flags.output.is_file():
        kept = json.loads(flags.output.read_text())
        found = {key: kept[key] for key in ("errors", "use") if key in kept}
    if flags.data:
        structures = held_out(flags.data)
        for name in flags.weights:
            every = errors_of(potentials.load_potential(name, "--weights"), structures)
            kinds = {}
            for kind, noised in (("still", False), ("noised", True)):
                pairs = zip(every, structures, strict=True)
                own = [error for error, one in pairs if one["is_noised"] == noised]
                means = {k: float(np.mean([e[k] for e in own])) for k in ERRORS}
                kinds[kind] = {"count": len(own), **means}
            found.setdefault("errors", {})[Path(name).name] = kinds
        sys.stdout.write(table_of_errors(found["errors"]) + "\n")
    if flags.samples:
        found["use"] = use(flags.samples, flags.limit)
        sys.stdout.write(json.dumps(found["use"], indent=2) + "\n")
    report.write(flags.output, **found)


if __name__ == "__main__":
    main()
