"""Symmetry of the data sets, and of the denoiser that refines molecules.

Run: `python -m benchmarks.diagnostics --qm9=qm9.npz`. Orientations of data before and
after they are turned at random, by a classifier; then, against the noise, the
equivariance error of the denoiser, and how far its Jacobian is from symmetric: that of
a score would be.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from benchmarks import report
from common.geometry import diagnostics, matrix_fisher
from common.nn.equivariance import equivariance_error, from_vectors
from common.so3.irreps import VECTOR
from symphony import data
from symphony.kinds.denoiser.sample import Refiner, load_refiner

SIGMAS = (0.01, 0.03, 0.1, 0.3, 0.5)
SPECIES = (1, 6, 7, 8, 9)
NUM_MOLECULES = 32


def molecules(path: str, count: int) -> data.Batch:
    """Returns molecules of a file, padded to one size."""
    found, _ = data.read_molecules(path, SPECIES, 29)
    found = data.choose_molecules(found, count)
    return data.pack(found, SPECIES, (29,))[0]


def frames() -> Float[np.ndarray, "num_frames num_atoms 3"]:
    """Returns the packaged frames of alanine dipeptide, Å."""
    import mdtraj

    from equijump.data.sources.trajectories import PACKAGED

    top = mdtraj.load(PACKAGED / "ala2_300K.pdb")
    paths = sorted(map(str, PACKAGED.glob("ala2_300K_*.xtc")))
    return 10.0 * mdtraj.load(paths, top=top).xyz


def orientations(batch: data.Batch) -> list[dict[str, Any]]:
    """Tests the molecules and the frames, as they are and turned."""
    positions = frames()
    kinds = np.broadcast_to(np.arange(positions.shape[1]), positions.shape[:2])
    sets = {
        "QM9": (batch.positions, batch.node_mask, batch.species),
        "alanine dipeptide, 300 K": (positions, np.ones(kinds.shape, bool), kinds),
    }
    lines = []
    for name, (positions, mask, species) in sets.items():
        turns = matrix_fisher.uniform(jax.random.key(9), len(positions))
        turned = np.einsum("bij,bnj->bni", np.asarray(turns), positions)
        for what, clouds in ((name, positions), (f"{name}, turned", turned)):
            found = diagnostics.orientation_test(clouds, mask, species)
            lines.append({"data": what, **found._asdict()})
    return lines


def denoiser_errors(refiner: Refiner, batch: data.Batch) -> list[dict[str, float]]:
    """Returns the errors of a denoiser against the noise, means over molecules."""

    @partial(jax.jit, static_argnums=0)
    def measure(sigma: float, key: Array, one: data.Batch) -> tuple[Array, Array]:
        keys = jax.random.split(key, 3)
        noise = sigma * jax.random.normal(keys[0], one.positions.shape)
        y = jnp.where(one.node_mask[:, None], one.positions + noise, 0.0)
        fixed = jnp.zeros_like(one.node_mask)
        denoise = lambda y: refiner.model.apply(
            refiner.params, one.species, y, jnp.float32(sigma), one.node_mask, fixed
        )
        # Of what it moves: the molecule itself turns with its input.
        moves = lambda y: from_vectors(denoise(y) - y)
        error = equivariance_error(moves, y, keys[1])[VECTOR]
        return error, diagnostics.jacobian_asymmetry(denoise, y, keys[2])

    keys = jax.random.split(jax.random.key(0), NUM_MOLECULES)
    first = (rows[:NUM_MOLECULES] for rows in batch[:3])
    ones = [data.Batch(*rows, {}) for rows in zip(*first, strict=True)]
    lines = []
    for sigma in SIGMAS:
        found = [measure(sigma, *given) for given in zip(keys, ones, strict=True)]
        error, asymmetry = np.mean(np.array(found), axis=0)
        lines.append({
            "sigma": sigma, "equivariance": float(error), "asymmetry": float(asymmetry)
        })  # fmt: skip
    return lines


def main() -> None:
    """Measures, prints two tables and writes the figures with the machine."""
    parser = report.parser(__doc__, "diagnostics")
    parser.add_argument("--qm9", default="qm9-sample", help="a file, or a known name")
    parser.add_argument("--num_clouds", type=int, default=40_000, help="of QM9")
    parser.add_argument("--refiner", default="refine_qm9", help="weights or a folder")
    options = parser.parse_args()
    batch = molecules(options.qm9, options.num_clouds)
    tested = orientations(batch)
    report.show(
        "rotated at random, or as it was? share told right",
        ("data", "held-out accuracy", "band of guesses", "preferred"),
        [
            (
                line["data"],
                f"{line['accuracy']:.3f}",
                f".5 ± {line['band']:.3f}",
                "yes" if line["is_broken"] else "no",
            )
            for line in tested
        ],
        left=("data",),
    )
    measured = denoiser_errors(load_refiner(options.refiner), batch)
    report.show(
        "the denoiser, float32",
        ("sigma, Å", "equivariance error of its moves", "|J - Jᵀ| / |J|"),
        [
            (
                f"{line['sigma']:g}",
                f"{line['equivariance']:.1e}",
                f"{line['asymmetry']:.3f}",
            )
            for line in measured
        ],
    )
    report.write(options.output, data=tested, denoiser=measured)


if __name__ == "__main__":
    main()
