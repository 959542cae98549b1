r"""How well the steps of a jump keep targets whose end is known, and their search.

    python -m benchmarks.jump_steps
    python -m benchmarks.jump_steps --num_steps=10 --search=300

Three kinds of target have an exact $D = E[x_1 \mid x_t, x_0]$; lengths are in units of
the scale of the noise, 2 Å in `configs/equijump/peptides.py`, and the source is zero:

* a normal end, of the spread of a bond's length up to that of a free torsion;
* two basins, the rarer with weights from 1e-4, the chance that phi leaves its side in a
  jump of 10 ps, to .3; of the distances of a rotamer to those of a flip of phi;
* a bond, whose length is sharp while its direction is spread by the law of von Mises
  and Fisher.

Printed are the spread, the weight of the rarer basin and the share 1 - <cos> of a bond
over their true values, and the error of a bond's length in Å. `--search` moves the
numbers of `equijump.transport.foellmer_steps` downhill (Nelder and Mead) in the mean
square of the logarithms of all these ratios, from those that the table has.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from rich.console import Console
from scipy.optimize import minimize

from benchmarks import report
from equijump.transport import foellmer, foellmer_steps, paths
from equijump.transport.foellmer_steps import Numbers, Step

SPREADS = (0.0135, 0.028, 0.06, 0.12, 0.25, 0.5, 1.0)
BASINS = (
    (1.2, 0.06), (1.7, 0.06), (1.7, 0.15), (2.2, 0.06),
    (2.2, 0.2), (3.0, 0.1), (3.0, 0.25), (4.5, 0.2), (6.0, 0.2),
)  # fmt: skip
"""Distances of two basins, and the spread of each."""

WEIGHTS = {1e-4: 750_000, 1e-3: 250_000, 0.03: 50_000, 0.3: 50_000}
"""Draws of each weight of the rarer basin."""

DISPLACEMENT = 0.2
"""Known spread of the displacement of two basins."""

KAPPAS = (6.0, 25.0, 100.0)
"""Concentrations of the directions of a bond: spreads of 24, 11 and 6 degrees."""

BOND, DRAWS_OF_BOND = 0.75, 20_000
ANGSTROM = 2.0
"""Å, the scale of the noise of peptides."""

_AT_ONCE = 250_000


def _ends(
    step: Step, key: Key[Array, ""], start: Array, expect: Any, displacement: Array
) -> Array:
    """Returns ends of jumps of a target, by the steps of the sampler."""
    request = paths.Request(
        predict=lambda x, t: (expect(x, t),),
        draw_noise=lambda key: jax.random.normal(key, start.shape),
        key=key,
        x_0=start,
        scales=paths.Scales(displacement, jnp.ones(())),
        num_steps=len(step.time),
    )
    return foellmer.advance(request, key, start, step)


@functools.partial(jax.jit, static_argnames="count")
def rarer(
    step: Step,
    key: Key[Array, ""],
    weight: float,
    distance: float,
    spread: float,
    count: int,
) -> Float[Array, ""]:
    """Returns how often the rarer of two basins comes, over its weight.

    Args:
        step: steps of a jump.
        key: key of the noise.
        weight: weight of the basin that lies off the source.
        distance: distance of the basins.
        spread: spread of each.
        count: number of draws.
    """

    def expect(x: Array, t: Array) -> Array:
        variance = jnp.square(t * spread) + jnp.square(1.0 - t) * t
        variance = jnp.maximum(variance, 1e-9)
        odds = 0.5 * (jnp.square(x) - jnp.square(x - t * distance)) / variance
        share = jax.nn.sigmoid(jnp.log(weight) - jnp.log1p(-weight) + odds)
        within = t * jnp.square(spread) / variance * (x - t * share * distance)
        return share * distance + within

    def part(key: Key[Array, ""]) -> Float[Array, ""]:
        start = jnp.zeros(min(count, _AT_ONCE))
        x = _ends(step, key, start, expect, jnp.array(DISPLACEMENT))
        # Without a jump at the middle, so that a search is led by each draw.
        return jnp.mean(jnp.clip(10.0 * (x / distance - 0.5) + 0.5, 0.0, 1.0))

    keys = jax.random.split(key, max(1, count // _AT_ONCE))
    return jnp.mean(jax.lax.map(part, keys)) / weight


@jax.jit
def spread_ratios(step: Step) -> Float[Array, " num_spreads"]:
    """Returns the spread of ends over that of normal targets, without any draw."""

    def of(spread: Float[Array, ""]) -> Float[Array, ""]:
        def one(covariance: Float[Array, "2 2"], now: Step) -> Any:
            variance = jnp.square(now.time * spread)
            variance += jnp.square(1.0 - now.time) * now.time
            gain = now.time * jnp.square(spread) / jnp.maximum(variance, 1e-12)
            moved, ahead = 1.0 - now.kept, now.extrapolation
            first = jnp.array([moved * (1.0 + ahead) * gain + now.kept, -moved * ahead])
            move = jnp.stack([first, jnp.array([gain, 0.0])])
            noise = jnp.square(now.noise) + jnp.square(now.spread * spread)
            return (move @ covariance @ move.T).at[0, 0].add(noise), None

        return jnp.sqrt(jax.lax.scan(one, jnp.zeros((2, 2)), step)[0][0, 0]) / spread

    return jax.vmap(of)(jnp.array(SPREADS))


@jax.jit
def bond(step: Step, key: Key[Array, ""], kappa: float) -> Float[Array, "2"]:
    """Returns the error of a bond's length, in Å, and 1 - <cos> over its true value.

    Args:
        step: steps of a jump.
        key: key of the noise.
        kappa: concentration of its directions around that of the source.
    """
    source = jnp.array([0.0, 0.0, BOND])
    order = kappa * paths.langevin_over(jnp.asarray(kappa))

    def expect(x: Array, t: Array) -> Array:
        variance = jnp.maximum(jnp.square(1.0 - t) * t, 1e-9)
        seen = BOND * t / variance * (x - (1.0 - t) * source)
        theta = kappa * source / BOND + seen
        size = jnp.linalg.norm(theta, axis=-1, keepdims=True)
        return BOND * paths.langevin_over(size) * theta

    start = jnp.broadcast_to(source, (DRAWS_OF_BOND, 3))
    displacement = BOND * jnp.sqrt(2.0 * (1.0 - order) / 3.0)
    x = _ends(step, key, start, expect, displacement)
    length = jnp.linalg.norm(x, axis=-1)
    error = ANGSTROM * jnp.sqrt(jnp.mean(jnp.square(length - BOND)))
    return jnp.stack([error, jnp.mean(1.0 - x[:, 2] / length) / (1.0 - order)])


def measure(step: Step, seed: int = 0, times: int = 1) -> dict[str, Any]:
    """Returns what steps keep of all targets.

    Args:
        step: steps of a jump.
        seed: seed of the draws.
        times: draws of basins, in units of `WEIGHTS`.
    """
    key = jax.random.key(seed)
    return {
        "basins": [
            [float(rarer(step, key, weight, *basins, times * count))
             for weight, count in WEIGHTS.items()]
            for basins in BASINS
        ],
        "spreads": spread_ratios(step).tolist(),
        "bonds": [bond(step, key, kappa).tolist() for kappa in KAPPAS],
    }  # fmt: skip


def error_of(found: dict[str, Any]) -> float:
    """Returns what a search makes small: mean squares of logarithms, and bonds.

    Spreads count four times, those of bonds twelve times; a hundredth of an Å in the
    length of bonds counts as a seventh in a ratio.

    Args:
        found: figures of `measure`.
    """
    basins, spreads, bonds = (np.array(found[name]) for name in found)
    if not all(np.isfinite(x).all() for x in (basins, spreads, bonds)):
        return 1e3
    square = lambda ratios: float(np.mean(np.log(np.maximum(ratios, 1e-2)) ** 2))
    lengths = 50.0 * float(np.mean(np.square(bonds[:, 0])))
    narrow = 8.0 * square(spreads[:3])
    ratios = square(basins) + 4.0 * square(spreads) + square(bonds[:, 1])
    return ratios + narrow + lengths


def to_vector(numbers: Numbers) -> Float[np.ndarray, " num_numbers"]:
    """Returns numbers as a search moves them: levels by their logarithms."""
    levels = numbers.largest, numbers.smallest, numbers.rho, numbers.early
    shares = numbers.extrapolation, numbers.last_extrapolation
    return np.hstack([np.log(levels), *shares, numbers.mean_square_share])


def from_vector(vector: Sequence[float]) -> Numbers:
    """Returns the numbers of a vector.

    >>> numbers = foellmer_steps.FITTED[10]
    >>> np.allclose(to_vector(from_vector(to_vector(numbers))), to_vector(numbers))
    True
    """
    levels = [float(x) for x in np.exp(vector[:4])]
    inner, second, last, early, late = (float(x) for x in vector[4:])
    return Numbers(*levels, (inner, second), last, (early, late))


def search(num_steps: int, trials: int, start: Numbers) -> Numbers:
    """Returns better numbers for so many evaluations of a network.

    Args:
        num_steps: evaluations of the network in a jump.
        trials: numbers that are tried, at most.
        start: numbers to begin from.
    """

    def cost(vector: Float[np.ndarray, " num_numbers"]) -> float:
        numbers = from_vector(vector)
        if (
            not 0.0
            <= min(numbers.mean_square_share)
            <= max(numbers.mean_square_share)
            <= 1
        ):
            return 1e3
        return error_of(measure(foellmer_steps.steps(num_steps, numbers)))

    begin = to_vector(start)
    moves = np.diag([0.2, 0.3, 0.2, 0.4, 0.2, 0.2, 0.2, -0.2, 0.2])
    found = minimize(
        cost, begin, method="Nelder-Mead",
        options={"maxfev": trials, "initial_simplex": [begin, *(begin + moves)]},
    )  # fmt: skip
    return from_vector(found.x)


def main() -> None:
    """Measures, or searches first, and writes."""
    parser = report.parser(__doc__, "jump_steps")
    add = parser.add_argument
    add("--num_steps", type=int, nargs="+", default=[*foellmer_steps.FITTED])
    add("--search", type=int, default=0, help="numbers to try; 0 to measure alone")
    flags = parser.parse_args()
    results = []
    for count in flags.num_steps:
        numbers = foellmer_steps.numbers_of(count)
        if flags.search:
            numbers = search(count, flags.search, numbers)
        found = measure(foellmer_steps.steps(count, numbers), seed=1, times=2)
        results.append({"num_steps": count, "numbers": numbers._asdict(), **found})
    report.show("Over the true value; bonds in Å", _HEADINGS, map(_row, results))
    if flags.search:
        Console().print({each["num_steps"]: each["numbers"] for each in results})
    report.write(flags.output, results=results)


_HEADINGS = (
    "evaluations",
    *(f"basins of {weight:g}" for weight in WEIGHTS),
    "spreads",
    "1 - <cos>",
    "bonds, Å",
    "error",
)


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    told = lambda x: f"{np.min(x):.2f}–{np.max(x):.2f}"
    basins, bonds = np.array(found["basins"]), np.array(found["bonds"])
    figures = {name: found[name] for name in ("basins", "spreads", "bonds")}
    return (
        str(found["num_steps"]),
        *(told(column) for column in basins.T),
        told(found["spreads"]),
        told(bonds[:, 1]),
        f"{bonds[:, 0].max():.3f}",
        f"{error_of(figures):.4f}",
    )


if __name__ == "__main__":
    main()
