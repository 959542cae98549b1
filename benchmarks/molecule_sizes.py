"""What Symphony costs against the atoms of a molecule: a training step, and sampling.

    python -m benchmarks.molecule_sizes

The molecules are n-alkanes with positions by RDKit. The networks are fresh: that of
`druglike`, whose atoms see the nearest `num_neighbors`, and the same with all atoms. A
sampler whose stop is never drawn builds molecules of one size. Times are CPU seconds of
the process, taken in turns; memory is the temporary one of the compiled step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from rdkit import Chem
from rdkit.Chem import AllChem

from benchmarks import markdown, report, timing
from common.programs import compiler_options
from common.runs import config as configs
from symphony import build, data, drawing, options
from symphony.weights import Weights

CARBONS = (6, 12, 19, 26)  # 20, 38, 59 and 80 atoms.
NETWORKS = {"nearest": None, "all": 0}
BATCH, SLOTS = 8, 16


def alkane(num_carbons: int) -> data.Molecules:
    """Returns a batch of one n-alkane."""
    mol = Chem.AddHs(Chem.MolFromSmiles("C" * num_carbons))
    AllChem.EmbedMolecule(mol, randomSeed=0)
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    positions = mol.GetConformer().GetPositions()
    charges = {"charge": np.zeros(BATCH)}
    return data.make_molecules(
        np.full(BATCH, len(numbers)), np.tile(numbers, BATCH),
        np.tile(positions, (BATCH, 1)), properties=charges,
    )  # fmt: skip


def config_of(name: str) -> ml_collections.ConfigDict:
    """Returns the config of a network."""
    config = configs.find("symphony", "druglike").get_config()
    if NETWORKS[name] is not None:
        config.model.num_neighbors = NETWORKS[name]
    return config


def training(config: ml_collections.ConfigDict, num_carbons: int) -> dict[str, Any]:
    """Compiles the gradient of a batch; returns a call and what it took."""
    molecules = alkane(num_carbons)
    num_atoms = int(molecules.num_atoms[0])
    (batch,) = data.pack(molecules, tuple(config.data.species), (num_atoms,))
    params = build.init_params(config, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), BATCH)
    loss = build.make_loss(config, float(num_atoms))
    step = jax.jit(jax.value_and_grad(loss, has_aux=True), **_quick())
    compiled: list[Any] = []
    compilation = timing.cpu_seconds(
        lambda: compiled.append(step.lower(params, batch, keys).compile())
    )
    memory = compiled[0].memory_analysis().temp_size_in_bytes / 2**20
    call = timing.block(compiled[0], params, batch, keys)
    return {
        "call": call, "num_atoms": num_atoms, "compilation": compilation,
        "megabytes": memory,
    }  # fmt: skip


def _quick() -> dict[str, Any]:
    return {"compiler_options": compiler_options()}


def sampling(config: ml_collections.ConfigDict, num_atoms: int) -> Callable[[], None]:
    """Returns a call that builds molecules of one size, a slot each."""
    params = build.init_params(config, jax.random.key(0))
    params["params"]["stop_logit"]["bias"] -= 1e3
    model = build.make_model(config)
    weights = Weights("fresh", config, model, params, "", "")
    asked = options.choose(weights, max_atoms=num_atoms)

    def call() -> None:
        drawn = drawing.draw(weights, asked, 0, 0, SLOTS, SLOTS)
        assert {len(one.atomic_numbers) for one in drawn} == {num_atoms}

    return call


def exponent(lines: Sequence[dict[str, Any]], key: str) -> float:
    """Returns the exponent of a time in the atoms, from the smallest to the largest."""
    first, last = lines[0], lines[-1]
    growth = np.log(last[key] / first[key])
    return float(growth / np.log(last["num_atoms"] / first["num_atoms"]))


def measure(num_carbons: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Returns a line for each network."""
    found = {name: training(config_of(name), num_carbons) for name in NETWORKS}
    calls = {name: one.pop("call") for name, one in found.items()}
    num_atoms = found["nearest"]["num_atoms"]
    timed = timing.interleaved(calls, rounds)
    drawn = {name: sampling(config_of(name), num_atoms) for name in NETWORKS}
    sampled = timing.interleaved(drawn, rounds)
    for name, line in found.items():
        line["training"] = float(np.median(timed.seconds[name])) / BATCH
        line["sampling"] = float(np.median(sampled.seconds[name])) / SLOTS
    return found


def table(lines: dict[str, list[dict[str, Any]]]) -> str:
    """Returns the table in Markdown."""
    rows = [["atoms seen", "atoms", "training, CPU s a molecule",
             f"MB of {BATCH} molecules", "compilation, CPU s",
             "sampling, CPU s a molecule"]]  # fmt: skip
    for name, own in lines.items():
        for line in own:
            rows.append([
                name, str(line["num_atoms"]), f"{line['training']:.3f}",
                f"{line['megabytes']:.0f}", f"{line['compilation']:.0f}",
                f"{line['sampling']:.3f}",
            ])  # fmt: skip
        rows.append([
            name, "exponent", f"{exponent(own, 'training'):.2f}", markdown.NONE,
            markdown.NONE, f"{exponent(own, 'sampling'):.2f}",
        ])  # fmt: skip
    return markdown.table(rows)


def main() -> None:
    """Measures all sizes; what is measured is written after each."""
    parser = report.parser(__doc__, "molecule_sizes")
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)  # It is timed here.
    lines: dict[str, list[dict[str, Any]]] = {name: [] for name in NETWORKS}
    for num_carbons in CARBONS:
        for name, line in measure(num_carbons, flags.rounds).items():
            lines[name].append(line)
        report.write(flags.output, lines=lines)
    print(table(lines))  # noqa: T201


if __name__ == "__main__":
    main()
