"""Denoisers trained on each kind of target, against the optimal one.

Run: `python -m benchmarks.alignment_ablation`. A small network without symmetry is
trained to denoise one molecule in all orientations, on targets in the frame of the
noise ("single"), superposed ("mode"), corrected once ("laplace1") and exact; what is
told is its distance from the oracle. Losses are not: that of "single" has a floor of
three sigma squared which the others lack.
"""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from benchmarks import report
from benchmarks.alignment import draw, molecules
from common.geometry import alignment
from common.nn.mlp import MLP

METHODS = ("single", "mode", "laplace1", "exact")
CLOUDS = ("methane", "ethanol", "aspirin")
SIGMAS = (0.5, 1.0, 2.0)
WIDTH, BATCH, NUM_TEST = 256, 256, 4_000
LEARNING_RATE = 1e-3
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5)

Cloud = Float[Array, "batch num_atoms 3"]


def denoise(
    network: MLP, params: Any, x: Float[Array, "num_atoms 3"], sigma: float, y: Cloud
) -> Cloud:
    """Returns what the network makes of y, around the best linear guess."""
    variance = jnp.mean(jnp.square(x))
    share = variance / (variance + sigma**2)
    scale = jnp.sqrt(variance * (1.0 - share))
    flat = y.reshape(len(y), -1) / jnp.sqrt(variance + sigma**2)
    return share * y + scale * network.apply(params, flat).reshape(y.shape)


@partial(jax.jit, static_argnames=("sigma", "method", "num_steps"))
def distance(
    key: Key[Array, ""],
    x: Float[Array, "num_atoms 3"],
    sigma: float,
    method: str,
    num_steps: int,
) -> Float[Array, ""]:
    """Trains a network and returns its distance from the oracle, over r_g."""
    network = MLP((WIDTH, WIDTH, x.size))
    key_init, key_test, key_train = jax.random.split(key, 3)
    params = network.init(key_init, jnp.zeros((1, x.size)))
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, num_steps)
    optimizer = optax.adam(schedule)

    def step(number: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        params, state = carry
        clean, y = draw(jax.random.fold_in(key_train, number), x, sigma, BATCH)
        target = alignment.rotation_target(y, clean, sigma, method=method)
        loss = lambda p: jnp.mean(jnp.square(denoise(network, p, x, sigma, y) - target))
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    start = (params, optimizer.init(params))
    params, _ = jax.lax.fori_loop(0, num_steps, step, start)
    clean, y = draw(key_test, x, sigma, NUM_TEST)
    oracle = alignment.rotation_target(y, clean, sigma)
    error = denoise(network, params, x, sigma, y) - oracle
    size = jnp.sqrt(jnp.mean(jnp.sum(jnp.square(x), axis=-1)))
    return jnp.sqrt(jnp.mean(jnp.sum(jnp.square(error), axis=-1))) / size


def plot(lines: list[dict[str, Any]], path: Path) -> None:
    """Draws the distances, one panel a cloud."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(CLOUDS), figsize=(10, 3.2), sharey=True)
    for axis, name in zip(axes, CLOUDS, strict=True):
        for method in METHODS:
            chosen = [x for x in lines if (x["cloud"], x["method"]) == (name, method)]
            values = np.array([line["distances"] for line in chosen])
            axis.errorbar(
                SIGMAS, values.mean(axis=1), values.std(axis=1, ddof=1), label=method
            )
        axis.set(title=name, xscale="log", yscale="log", xlabel="noise, Å")
        axis.set_xticks(SIGMAS, [f"{sigma:g}" for sigma in SIGMAS], minor=False)
        axis.set_yticks(TICKS, [f"{value:g}" for value in TICKS])
        axis.minorticks_off()
    axes[0].set_ylabel("distance from the oracle / r_g")
    axes[-1].legend(frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def error_of_mode(x: Float[Array, "num_atoms 3"], sigma: float) -> float:
    """Returns the distance of the superposed cloud itself from the oracle, over r_g."""
    clean, y = draw(jax.random.key(9), x, sigma, NUM_TEST)
    guess = partial(alignment.rotation_target, y, clean, sigma)
    error = jnp.square(guess(method="mode") - guess())
    size = jnp.mean(jnp.sum(jnp.square(x), axis=-1))
    return float(jnp.sqrt(jnp.mean(jnp.sum(error, axis=-1)) / size))


def measure(num_steps: int, seeds: int) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """Trains every network; returns the distances, and the cells of the table."""
    clouds, lines, rows = molecules(), [], []
    for name, sigma in itertools.product(CLOUDS, SIGMAS):
        x = jnp.asarray(clouds[name], jnp.float32)
        row = [name, f"{sigma:g}"]
        for method in METHODS:
            keys = map(jax.random.key, range(seeds))
            found = [float(distance(key, x, sigma, method, num_steps)) for key in keys]
            what = {"cloud": name, "sigma": sigma, "method": method}
            lines.append({**what, "distances": found})
            row.append(f"{np.mean(found):.3f} ({np.std(found, ddof=1):.3f})")
        rows.append([*row, f"{error_of_mode(x, sigma):.3f}"])
    return lines, rows


def main() -> None:
    """Trains, prints a table, writes the figures and a plot."""
    parser = report.parser(__doc__, "alignment_ablation")
    parser.add_argument("--num_steps", type=int, default=4_000, help="of Adam")
    parser.add_argument("--seeds", type=int, default=3, help="of each training")
    figure = Path(__file__).parents[1] / "docs" / "figures" / "alignment.png"
    parser.add_argument("--figure", type=Path, default=figure)
    options = parser.parse_args()
    lines, rows = measure(options.num_steps, options.seeds)
    report.show(
        "distance from the optimal denoiser / r_g: mean (s.d. of seeds)",
        ("cloud", "sigma, Å", *METHODS, "mode itself"),
        rows,
        left=("cloud",),
    )
    report.write(options.output, steps=options.num_steps, lines=lines)
    plot(lines, options.figure)


if __name__ == "__main__":
    main()
