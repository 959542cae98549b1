"""The published Nequix against the same network here: energy, forces, stress.

    pip install --no-deps nequix equinox jraph
    python -m benchmarks.nequix --file nequix-mp-1.nqx

Crystals of copper with moved atoms, 8 to 200 of them. Both codes get the neighbours of
one search and the same weights, answers are compared before anything is timed, and CPU
time is taken in turns in one process. Files of weights are in the published repository
(https://github.com/atomicarchitects/nequix).
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import report, timing
from common.commands import cli, import_nequix
from common.nn.energy import EnergyModel, Structure, make_structure, predict

REPEATS = {8: (2, 1, 1), 32: (2, 2, 2), 108: (3, 3, 3), 200: (5, 5, 2)}
"""Cells of four atoms along each axis, by the number of atoms."""
LATTICE, CUTOFF = 3.61, 6.0  # Å
COPPER = 29


def crystal(num_atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions and cell of a crystal of copper, in Å, its atoms moved."""
    repeats = np.array(REPEATS[num_atoms])
    corners = np.stack(np.meshgrid(*map(np.arange, repeats), indexing="ij"), -1)
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    places = LATTICE * (corners.reshape(-1, 1, 3) + basis).reshape(-1, 3)
    noise = 0.05 * np.random.default_rng(0).normal(size=places.shape)
    return places + noise, np.diag(LATTICE * repeats)


def ours(path: Path) -> tuple[EnergyModel, Callable[[Structure], Any]]:
    """Returns our network, and energy, forces and stress of a structure."""
    published = import_nequix.read(path)
    config = import_nequix.to_config(published)
    params = jax.tree.map(jnp.asarray, import_nequix.to_params(published))
    fields = tuple(config.data.species), tuple(config.data.atom_energies)
    model = EnergyModel(*fields, **config.model)

    @jax.jit
    def answer(params: Any, structure: Structure) -> Any:
        return predict(lambda s: model.apply(params, s).energy.sum(), structure)

    return model, lambda structure: answer(params, structure)


def peer(path: Path) -> Callable[[Any], Any]:
    """Returns the same of the published code, for its own graphs."""
    import equinox
    from nequix.model import load_model  # An optional peer.

    return equinox.filter_jit(load_model(str(path))[0])


def peer_graph(structure: Structure) -> Any:
    """Returns the published code's graph, padded as its calculator pads."""
    import jraph

    near, count = structure.neighbours, len(structure.positions)
    receivers, places = np.nonzero(np.asarray(near.mask))
    pick = lambda table: np.asarray(table)[receivers, places]
    num_edges = len(receivers)
    graph = jraph.GraphsTuple(
        n_node=np.array([count], np.int32), n_edge=np.array([num_edges], np.int32),
        nodes={
            "species": np.asarray(structure.species),
            "positions": np.asarray(structure.positions), "forces": None,
        },
        edges={"shifts": pick(near.shifts)}, senders=pick(near.senders),
        receivers=receivers.astype(np.int32),
        globals={
            "cell": np.asarray(structure.cell)[None], "energy": None, "stress": None,
        },
    )  # fmt: skip
    capacity = -(-int(np.ceil(1.1 * num_edges)) // 64) * 64
    return jraph.pad_with_graphs(graph, (count + 8) // 8 * 8, capacity, 2)


def measure(path: Path, num_atoms: int, rounds: int) -> dict[str, Any]:
    """Returns CPU times and their ratio for one size."""
    (model, answer), other = ours(path), peer(path)
    positions, cell = crystal(num_atoms)
    species = np.full(num_atoms, model.atomic_numbers.index(COPPER))
    structure = make_structure(positions, species, CUTOFF, cell, multiple=8)
    graph = peer_graph(structure)
    found, wanted = answer(structure), other(graph)
    scale = np.abs(wanted[1]).max()
    apart = float(np.abs(found.forces - wanted[1][:num_atoms]).max() / scale)
    if apart > 1e-4:
        raise AssertionError(f"expected the same forces, found {apart:.1e} apart")
    timed = timing.interleaved(
        {
            "published": timing.block(other, graph),
            "ours": timing.block(answer, structure),
        },
        rounds,
    )
    milliseconds = {
        name: 1e3 * float(np.median(values)) for name, values in timed.seconds.items()
    }
    return {
        "num_atoms": num_atoms,
        "num_edges": int(np.sum(structure.neighbours.mask)),
        "cpu_ms": milliseconds,
        "times_faster": timing.ratio(timed, "published", "ours"),
        "largest_difference_of_forces": apart,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    parser = report.parser(__doc__, "nequix")
    parser.add_argument("--file", type=Path, required=True, help="file .nqx")
    parser.add_argument("--rounds", type=int, default=10)
    flags = parser.parse_args(argv)
    rows = [measure(flags.file, count, flags.rounds) for count in REPEATS]
    report.write(flags.output, rows=rows)
    report.show(
        "Energy, forces and stress, CPU time",
        ("atoms", "edges", "published, ms", "ours, ms", "times faster"),
        [
            (
                str(row["num_atoms"]), str(row["num_edges"]),
                *(f"{value:.0f}" for value in row["cpu_ms"].values()),
                "{median:.2f} ({p10:.2f} to {p90:.2f})".format(**row["times_faster"]),
            )
            for row in rows
        ],
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("benchmarks.nequix", main))
