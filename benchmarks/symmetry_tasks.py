"""Tools of symmetry, each on the smallest task that shows what it is for.

Run: `python -m benchmarks.symmetry_tasks`. Relaxed weights find a direction; a square
becomes a rectangle; encodings of rings do not see the choice of eigenvectors; pair
histograms see what a cutoff hides; heads reproduce overlaps and a Hessian.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.spatial.transform import Rotation

from benchmarks import overlaps, report
from common.geometry.point_groups import point_group
from common.nn import relaxed as relaxing
from common.nn.features import Features, harmonics
from common.nn.laplacian import BasisNet, Modes, SignNet, laplacian_modes
from common.nn.pair_histogram import cloud_histogram, node_histogram
from common.nn.products.clebsch_gordan import path_product
from common.nn.symmetry_breaking import breaking_set, breaking_set_of
from common.so3.irreps import PSEUDOVECTOR, SCALAR, VECTOR, Irrep

TENSOR = Irrep(2, 1)
Figures = dict[str, float]

EPSILON = 0.3
"""Anisotropy of the map that relaxed weights are to find."""


def relaxed() -> Figures:
    """Learns the map 1 + epsilon z z^T, and that of data without direction."""
    sizes = {SCALAR: 1, PSEUDOVECTOR: 3, TENSOR: 5}

    def theta_of(flat: Float[Array, " 9"]) -> Features:
        parts = jnp.split(flat[:, None], np.cumsum(list(sizes.values()))[:-1])
        return dict(zip(sizes, parts, strict=True))

    # The map is linear in theta: its columns solve the task by least squares.
    columns = np.asarray(
        jax.jit(jax.jacfwd(lambda flat: relaxing.vector_map(theta_of(flat))))(
            jnp.zeros(9)
        ),
        np.float64,
    )
    rng = np.random.default_rng(0)

    def learned(axes: np.ndarray) -> np.ndarray:
        x = rng.normal(size=axes.shape)
        y = x + EPSILON * axes * np.sum(axes * x, axis=1, keepdims=True)
        design = np.einsum("abk,nb->nak", columns, x).reshape(-1, 9)
        return np.linalg.lstsq(design, y.reshape(-1), rcond=None)[0]

    def directions(count: int) -> np.ndarray:
        drawn = rng.normal(size=(count, 3))
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    z = directions(1)[0]
    found = columns @ learned(np.broadcast_to(z, (64, 3)))
    second = found - np.trace(found) / 3.0 * np.eye(3)
    expected = EPSILON * (np.outer(z, z) - np.eye(3) / 3.0)
    counts = np.array([100, 400, 1600, 6400])
    isotropic = [
        np.mean([np.linalg.norm(learned(directions(n))[4:]) for _ in range(20)])
        for n in counts
    ]
    return {
        "error of the learned second degree": float(np.abs(second - expected).max()),
        "second degree of isotropic data, n = 100": float(isotropic[0]),
        "second degree of isotropic data, n = 6,400": float(isotropic[-1]),
        "its power of n": float(np.polyfit(np.log(counts), np.log(isotropic), 1)[0]),
    }


def _moments(cloud: Float[Array, "num_points 3"]) -> Features:
    """Returns the sums of the even harmonics of a cloud, as irreps of SO(3)."""
    of_points = harmonics(cloud, 4, "SO3")
    kept = (SCALAR, TENSOR, Irrep(4, 1))
    return {irrep: jnp.sum(of_points[irrep], axis=0) for irrep in kept}


@jax.jit
def _candidates(
    cloud: Float[Array, "num_points 3"], b: Features
) -> tuple[Features, Features]:
    """Returns equivariant vectors and tensors: of a cloud alone, and with an object."""
    moments, even = _moments(cloud), lambda l: Irrep(l, 1)
    product = lambda x, y, i, j, k: path_product(x, y, (even(i), even(j), even(k)))
    third = {even(3): product(b, b, 2, 1, 3)}
    alone, both = {}, {}
    for out in (1, 2):
        pairs = [(2, 2), (2, 4), (4, 4)]
        parts = [product(moments, moments, *p, out) for p in pairs if p != (2, 4)]
        if out == 2:
            parts += [moments[TENSOR], product(moments, moments, 2, 4, 2)]
        alone[even(out)] = jnp.concatenate(parts, axis=-1)
        own = [(i, j) for i in (0, 2, 4) for j in (1, 2) if abs(i - j) <= out <= i + j]
        parts = [product(moments, b, i, j, out) for i, j in own]
        parts += [product(moments, third, i, 3, out) for i in (2, 4) if i + out >= 3]
        both[even(out)] = jnp.concatenate(parts, axis=-1)
    return alone, both


def breaking() -> Figures:
    """Turns a square into a rectangle, and into a vector, as SO(3) sees them.

    One pair of object and output is fitted; equivariance gives the outputs of others.
    """
    square = np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
    group, found = point_group("D4"), breaking_set("D4")
    pick = lambda k: jax.tree.map(lambda a: a[k], found.objects)
    count = len(found.objects[VECTOR])
    given = [
        _candidates(jnp.asarray(square, jnp.float32), pick(k)) for k in range(count)
    ]
    rows = lambda which, irrep: np.stack([np.asarray(g[which][irrep]) for g in given])
    # A vector a quarter of the way from one corner to the next: eight are alike.
    vector = 0.75 * square[0] + 0.25 * square[1]
    vectors = rows(1, PSEUDOVECTOR)
    weights = np.linalg.lstsq(vectors[0], vector, rcond=None)[0]
    outputs = vectors @ weights
    wanted = group @ vector
    gaps = np.linalg.norm(outputs[:, None] - wanted, axis=-1)
    # The strain that stretches along one diagonal and shrinks along the other.
    strain = _tensor(np.diag([1.0, -1.0, 0.0]))
    tensors = rows(1, TENSOR)
    weights = np.linalg.lstsq(tensors[0], strain, rcond=None)[0]
    strains = tensors @ weights
    off = np.minimum(*(np.linalg.norm(strains - s * strain, axis=1) for s in (1, -1)))
    alone = rows(0, PSEUDOVECTOR), rows(0, TENSOR)[0]
    # Rounding is no feature: columns of it are cut off.
    best = alone[1] @ np.linalg.lstsq(alone[1], strain, rcond=1e-4)[0]
    turn = Rotation.random(random_state=1).as_matrix()
    ours = breaking_set_of(square @ turn.T).objects[VECTOR][..., 0]
    theirs = np.asarray(breaking_set_of(square).objects[VECTOR][..., 0]) @ turn.T
    distance = np.linalg.norm(np.asarray(ours)[:, None] - theirs, axis=-1)
    return {
        "vector without a set": float(np.abs(alone[0]).max()),
        "strain without a set": float(np.abs(best).max()),
        "objects": float(count),
        "vectors reached": float(len(np.unique(gaps.argmin(axis=1)))),
        "distance of an output to a valid one": float(gaps.min(axis=1).max()),
        "mean of the vectors": float(np.abs(outputs.mean(axis=0)).max()),
        "rectangles reached": float(len(np.unique(strains.round(3), axis=0))),
        "distance of a strain to a valid one": float(off.max()),
        "mean of the strains": float(np.abs(strains.mean(axis=0)).max()),
        "set of the rotated square": float(distance.min(axis=1).max()),
    }


def _tensor(matrix: np.ndarray) -> np.ndarray:
    """Returns the second degree of a symmetric matrix without trace."""
    axes, vectors = np.linalg.eigh(matrix)
    rows = harmonics(jnp.asarray(vectors.T, jnp.float32), 2)[TENSOR][..., 0]
    return axes @ np.asarray(rows)


def rings() -> Figures:
    """Compares encodings of rings for two choices of the eigenvectors."""
    figures = {}
    for count in (6, 12):
        ring = np.roll(np.eye(count), 1, axis=0) + np.roll(np.eye(count), -1, axis=0)
        mask = jnp.ones(count, bool)
        modes = jax.jit(laplacian_modes)(jnp.asarray(ring, jnp.float32), mask)
        other = another_choice(modes, seed=count)
        naive = np.abs(np.asarray(modes.vectors - other.vectors)[:, :4]).max()
        figures[f"eigenvectors, ring of {count}"] = float(naive)
        for name, module in (("SignNet", SignNet(4, 4)), ("BasisNet", BasisNet(4, 4))):
            parameters = jax.jit(module.init)(jax.random.key(0), modes, mask)
            apply = jax.jit(module.apply)
            outputs = [np.asarray(apply(parameters, m, mask)) for m in (modes, other)]
            change = np.abs(outputs[0] - outputs[1]).max() / np.abs(outputs[0]).max()
            figures[f"{name}, ring of {count}"] = float(change)
    return figures


def another_choice(modes: Modes, seed: int) -> Modes:
    """Returns modes with eigenspaces rotated at random, signs included."""
    rng = np.random.default_rng(seed)
    values, vectors = np.asarray(modes.values), np.array(modes.vectors)
    for value in np.unique(values.round(3)):
        own = np.abs(values - value) < 2e-3
        turn, _ = np.linalg.qr(rng.normal(size=(own.sum(), own.sum())))
        vectors[:, own] = vectors[:, own] @ turn
    return modes._replace(vectors=jnp.asarray(vectors))


def correlation() -> Figures:
    """Foresees the distance of paired clusters, by features near and far."""
    rng = np.random.default_rng(0)
    num_clouds, num_pairs, box, cutoff = 600, 10, 14.0, 1.2
    label = rng.uniform(3.0, 6.0, num_clouds)
    centres = rng.uniform(0.0, box, (num_clouds, num_pairs, 3))
    axis = rng.normal(size=centres.shape)
    axis *= label[:, None, None] / np.linalg.norm(axis, axis=-1, keepdims=True)
    clusters = np.concatenate([centres, centres + axis], axis=1)
    points = np.repeat(clusters, 2, axis=1)
    points += 0.3 * rng.normal(size=points.shape)
    mask = jnp.ones(points.shape[1], bool)

    @jax.jit
    def feats(cloud: Float[Array, "num_points 3"]) -> tuple[Array, Array]:
        near = node_histogram(cloud, mask, 0.0, cutoff, 6)
        near = jnp.concatenate([near, near**2, jnp.sqrt(near + 1e-4)], axis=1)
        far = cloud_histogram(cloud, mask, 0.0, 10.0, 21)
        return jnp.mean(near, axis=0), far

    near, far = map(np.asarray, jax.lax.map(feats, jnp.asarray(points, jnp.float32)))
    figures = {"spread of the label": float(label[400:].std())}
    for name, rows in (("near", near), ("near and far", np.hstack([near, far]))):
        figures[f"error, {name}"] = _ridge_error(rows, label, 400)
    return figures


def _ridge_error(rows: np.ndarray, label: np.ndarray, num_train: int) -> float:
    """Returns the error of held-out labels; a fifth of the training chose the ridge."""
    mean, spread = rows[:num_train].mean(0), rows[:num_train].std(0) + 1e-9
    design = np.hstack([(rows - mean) / spread, np.ones((len(rows), 1))])

    def error(fit: slice, tested: slice, ridge: float) -> float:
        x, y = design[fit], label[fit]
        w = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
        return float(np.sqrt(np.mean((design[tested] @ w - label[tested]) ** 2)))

    fit = num_train * 4 // 5
    chosen = min(
        10.0 ** np.arange(-3, 4),
        key=lambda ridge: error(slice(fit), slice(fit, num_train), ridge),
    )
    return error(slice(num_train), slice(num_train, None), chosen)


TASKS: dict[str, Callable[[], Figures]] = {
    "relaxed weights": relaxed,
    "symmetry-breaking set of a square": breaking,
    "Laplacian encodings: change with the basis": rings,
    "pair histogram: distance of clusters, Å": correlation,
    "block head: overlaps of Gaussians": overlaps.heads,
}


def main() -> None:
    """Runs all tasks, prints their figures and writes them with the machine."""
    options = report.parser(__doc__, "symmetry_tasks").parse_args()
    found = {name: task() for name, task in TASKS.items()}
    report.show(
        "tools of symmetry",
        ("task", "figure", "value"),
        [
            (task, figure, f"{value:.3g}")
            for task, figures in found.items()
            for figure, value in figures.items()
        ],
        left=("task", "figure"),
    )
    report.write(options.output, tasks=found)


if __name__ == "__main__":
    main()
