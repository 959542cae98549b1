"""Errors and times of rotational alignment, method by method.

Run: `python -m benchmarks.alignment`. First the error of each guess of the clean cloud
against the optimal denoiser, root mean square over atoms and draws and in units of the
radius of gyration: molecules are turned at random and noised. Then CPU-seconds
relative to a Kabsch rotation by `jnp.linalg.svd`, on a batch of clouds, taken in turns
in one process.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from benchmarks import report, timing
from common.geometry import alignment, matrix_fisher

MOLECULES = {
    "water": "O",
    "CO2": "O=C=O",
    "methane": "C",
    "ethanol": "CCO",
    "benzene": "c1ccccc1",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "alanine dipeptide": "CC(=O)N[C@@H](C)C(=O)NC",
}
SIGMAS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
NUM_CLOUDS, NUM_ATOMS = 4_096, 20
COLUMNS = ("single", "mode", "laplace1", "laplace2", "laplace3", "high_temperature")


def molecules() -> dict[str, Float[np.ndarray, "num_atoms 3"]]:
    """Returns centred clouds in Å, hydrogens included, and the CA of a helix."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    found = {}
    for name, smiles in MOLECULES.items():
        molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
        AllChem.EmbedMolecule(molecule, randomSeed=0)
        AllChem.UFFOptimizeMolecule(molecule)
        found[name] = molecule.GetConformer().GetPositions()
    angle = np.radians(100.0) * np.arange(20)
    rise = 1.5 * np.arange(20)
    helix = np.stack([2.3 * np.cos(angle), 2.3 * np.sin(angle), rise], axis=-1)
    found["helix, 20 CA"] = helix
    return {name: x - x.mean(axis=0) for name, x in found.items()}


def draw(
    key: Key[Array, ""], x: Float[Array, "num_atoms 3"], sigma: float, count: int
) -> tuple[Float[Array, "count num_atoms 3"], Float[Array, "count num_atoms 3"]]:
    """Returns rotated clouds, and the same with noise."""
    key_turn, key_noise = jax.random.split(key)
    turns = matrix_fisher.uniform(key_turn, count)
    clean = alignment.rotate(x, turns)
    return clean, clean + sigma * jax.random.normal(key_noise, clean.shape)


def errors(
    x: Float[np.ndarray, "num_atoms 3"], sigma: float, num_draws: int
) -> dict[str, float]:
    """Returns the error of each method, and of the exact one in single precision."""
    size = np.sqrt(np.mean(np.sum(np.square(x), axis=-1)))
    clean, y = draw(jax.random.key(0), jnp.asarray(x), sigma, num_draws)
    guess = lambda method, kind: alignment.rotation_target(
        y.astype(kind), clean.astype(kind), sigma, method=method
    )
    exact = guess("exact", jnp.float64)
    relative = lambda found: float(
        jnp.sqrt(jnp.mean(jnp.sum(jnp.square(found - exact), axis=-1))) / size
    )
    found = {method: relative(guess(method, jnp.float64)) for method in COLUMNS}
    return found | {"exact, float32": relative(guess("exact", jnp.float32))}


def gap(x: Float[np.ndarray, "num_atoms 3"], sigma: float) -> float:
    """Returns the smallest gap over sigma^2: the concentration of the freest axis."""
    values = np.linalg.eigvalsh(x.T @ x)
    return float(values[0] + values[1]) / sigma**2


def contestants() -> dict[str, Callable[[], None]]:
    """Returns the rotations of a batch of clouds, by each method."""
    y, x = jax.random.normal(jax.random.key(0), (2, NUM_CLOUDS, NUM_ATOMS, 3))

    def plain(y: Array) -> Array:
        u, _, vt = jnp.linalg.svd(jnp.einsum("bni,bnj->bij", y, x))
        sign = jnp.where(jnp.linalg.det(u @ vt) < 0.0, -1.0, 1.0)
        return u.at[:, :, 2].multiply(sign[:, None]) @ vt

    def rotation(method: str, y: Array) -> Array:
        covariance = alignment.cross_covariance(y, x)
        return matrix_fisher.mean_rotation(covariance, method)

    exact = partial(rotation, "exact")
    functions = {"Kabsch by jnp.linalg.svd": plain}
    functions |= {
        method: partial(rotation, method)
        for method in ("mode", "laplace1", "laplace3", "exact")
    }
    functions["exact, with its derivative along y"] = lambda y: jax.jvp(
        exact, (y,), (x,)
    )
    functions["exact, with its gradient by y"] = lambda y: jax.vjp(exact, y)[1](
        jnp.ones((NUM_CLOUDS, 3, 3))
    )
    return {name: timing.block(jax.jit(f), y) for name, f in functions.items()}


def compare_errors(num_draws: int) -> list[dict[str, Any]]:
    """Returns the errors of every cloud and noise, and prints them."""
    lines = []
    with jax.enable_x64(True):
        for name, x in molecules().items():
            for sigma in SIGMAS:
                found = errors(x, sigma, num_draws)
                lines.append(
                    {"cloud": name, "sigma": sigma, "gap": gap(x, sigma), **found}
                )
    columns = (*COLUMNS, "exact, float32")
    report.show(
        "error of a guess against the optimal denoiser, over r_g",
        ("cloud", "sigma, Å", "gap / sigma²", *columns),
        [
            (
                line["cloud"],
                f"{line['sigma']:g}",
                f"{line['gap']:.2g}",
                *(f"{line[column]:.1e}" for column in columns),
            )
            for line in lines
        ],
        left=("cloud",),
    )
    return lines


def compare_times(rounds: int) -> dict[str, dict[str, float]]:
    """Returns the time of each rotation over that of Kabsch's, and prints them."""
    measured = timing.interleaved(contestants(), rounds)
    first = next(iter(measured.seconds))
    times = {
        name: timing.ratio(measured, name, first)
        | {"seconds": float(np.median(values))}
        for name, values in measured.seconds.items()
    }
    report.show(
        f"{NUM_CLOUDS} clouds of {NUM_ATOMS} atoms, float32",
        ("rotation", "CPU ms", "of Kabsch", "p10 to p90"),
        [
            (
                name,
                f"{1e3 * line['seconds']:.1f}",
                f"{line['median']:.2f}",
                f"{line['p10']:.2f} to {line['p90']:.2f}",
            )
            for name, line in times.items()
        ],
        left=("rotation",),
    )
    return times


def main() -> None:
    """Measures, prints two tables and writes the figures with the machine."""
    parser = report.parser(__doc__, "alignment")
    parser.add_argument("--num_draws", type=int, default=400, help="of each cloud")
    parser.add_argument("--rounds", type=int, default=12, help="of all contestants")
    options = parser.parse_args()
    lines = compare_errors(options.num_draws)
    times = compare_times(options.rounds)
    report.write(options.output, errors=lines, times=times)


if __name__ == "__main__":
    main()
