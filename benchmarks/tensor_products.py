"""Every product of the table, timed by degree: the price of freedom on this machine.

    python -m benchmarks.tensor_products

All irreps are called even, so that odd paths occur, and products are kept up to the
degree of the factors. Times are CPU seconds, alone and with gradients by both factors
and the weights; contestants of a degree take turns in one process. "Reach" counts the
directions in which the path weights of one channel can change. Who takes longer than
`FIRST_CALL` seconds for a first call, mostly to compile, is left out from there on, and
the table says so. Figures of one machine count as ratios only.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array
from matplotlib.figure import Figure

from benchmarks import markdown, report, timing
from benchmarks.convolution import check_same, draw, draw_features
from common.nn.features import Features, harmonics
from common.nn.products import PRODUCTS, fully_connected, self_product
from common.nn.products.spec import Product, Spec, make_spec
from common.so3.irreps import uniform

DEGREES = range(1, 9)
NODES, CHANNELS = 64, 16
ROUNDS = 5
FIRST_CALL = 30.0
ALL_TERMS, NO_TERMS = 10**9, 0
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "tensor_products.png"
PEER, REFERENCE = "e3nn-jax", "self_product, dense"

Form = Callable[[Features, Features, Array], Any]


class Contestant(NamedTuple):
    """A product: its row, its function, and whether y is harmonics of one channel."""

    row: Product
    form: Callable[..., Any]
    has_direction: bool = False


def contestants() -> dict[str, Contestant]:
    """Returns all products, both forms of those that have two, and the peer."""
    directed = ("scalar", "so2")
    split = {"self_product": self_product, "fully_connected": fully_connected}
    found = {
        name: Contestant(row, row.product, name in directed)
        for name, row in PRODUCTS.items()
        if name not in split
    }
    for name, module in split.items():
        for kind, terms in (("sparse", ALL_TERMS), ("dense", NO_TERMS)):
            form = functools.partial(module.product, max_terms=terms)
            found[f"{name}, {kind}"] = Contestant(PRODUCTS[name], form)
    return found | {PEER: Contestant(PRODUCTS["self_product"], peer)}


def peer(x: Features, y: Features, weights: Array, spec: Spec) -> list[Array]:
    """Multiplies by e3nn-jax's tensor product, channel by channel."""
    kept = e3nn.Irreps([(1, (k.degree, k.parity)) for k in spec.out])
    rows = lambda part: jnp.concatenate(
        [jnp.swapaxes(part[i], -1, -2) for i in sorted(part)], axis=-1
    )
    one, other = (e3nn.IrrepsArray(kept, rows(part)) for part in (x, y))
    product = e3nn.tensor_product(one, other, filter_ir_out=kept)
    product = product * weights.reshape(-1, CHANNELS).T
    return [jnp.swapaxes(jnp.sum(c, axis=-2), -1, -2) for c in product.chunks]


def with_gradient(form: Form) -> Form:
    """Returns the sum of squares and its gradients by factors and weights."""

    def loss(*floats: Any) -> Array:
        return sum(jnp.sum(jnp.square(a)) for a in jax.tree.leaves(form(*floats)))

    return jax.value_and_grad(loss, (0, 1, 2))


def inputs(one: Contestant, max_degree: int) -> tuple[Spec, tuple[Any, ...]]:
    """Returns the spec and random inputs of a product."""
    irreps = uniform(max_degree, CHANNELS, "SO3")
    x = draw_features(irreps, NODES)
    if one.has_direction:
        y, of_y = harmonics(draw((NODES, 3), 1), max_degree, "SO3"), 1
    else:
        y, of_y = draw_features(irreps, NODES), CHANNELS
    spec = make_spec(irreps, uniform(max_degree, of_y, "SO3"), irreps)
    return spec, (x, y, draw((one.row.num_weights(spec),), 3))


def freedom(one: Contestant, max_degree: int) -> tuple[int, int]:
    """Returns the paths of a product, and the reach of one channel."""
    irreps = uniform(max_degree, 1, "SO3")
    spec = make_spec(irreps, irreps, irreps)
    weights = draw((one.row.num_weights(spec),), 4)
    if not one.row.is_separable:
        paths = len(one.row.path_weights(weights, spec))
        return paths, paths
    rows = lambda w: jnp.stack([*one.row.path_weights(w, spec).values()])[:, 0]
    slopes = np.asarray(jax.jit(jax.jacobian(rows))(weights))
    return len(slopes), int(np.linalg.matrix_rank(slopes, 1e-4))


def measure(
    max_degree: int, racing: dict[str, Contestant]
) -> tuple[list[dict[str, Any]], set[str]]:
    """Times one degree.

    Returns:
        A line for each contestant, and the names of those that took too long.
    """
    calls: dict[str, dict[str, Callable[[], None]]] = {"forward": {}, "gradient": {}}
    lines, late, values = {}, set(), {}
    # The exact tables are shared, and no contestant's time.
    self_product.form(make_spec(*[uniform(max_degree, 1, "SO3")] * 3))
    for name, one in racing.items():
        spec, floats = inputs(one, max_degree)
        form = lambda *a, one=one, spec=spec: one.form(*a, spec)
        paths, reach = freedom(one, max_degree)
        lines[name] = {
            "product": name, "degree": max_degree, "paths": paths, "reach": reach,
        }  # fmt: skip
        if name in (PEER, REFERENCE):
            values[name] = jax.jit(form)(*floats)
        for kind, run in (("forward", form), ("gradient", with_gradient(form))):
            call = timing.block(jax.jit(run), *floats)
            seconds = timing.cpu_seconds(call)
            if seconds > FIRST_CALL:
                logging.info("%s, degree %d: %.0f s", name, max_degree, seconds)
                late.add(name)
                break
            calls[kind][name] = call
    if len(values) == 2:
        check_same(values)
    for kind, of_kind in calls.items():
        timed = timing.interleaved(of_kind, ROUNDS)
        for name in of_kind:
            milliseconds = 1e3 * float(np.median(timed.seconds[name]))
            per_path = 1e3 * milliseconds / lines[name]["paths"]
            lines[name] |= {f"{kind}_ms": milliseconds, f"{kind}_us_a_path": per_path}
            if PEER in of_kind:
                ratio = timing.ratio(timed, PEER, name)["median"]
                lines[name][f"{kind}_times_faster"] = ratio
    return list(lines.values()), late


def table(lines: list[dict[str, Any]]) -> str:
    """Returns one Markdown table of all products and degrees."""
    columns = {
        "paths": "{:d}", "reach": "{:d}", "forward_ms": "{:.2f}",
        "gradient_ms": "{:.2f}", "gradient_us_a_path": "{:.1f}",
        "gradient_times_faster": "{:.2f}",
    }  # fmt: skip
    rows = [["product", "degree", "paths", "reach", "CPU ms", "with gradient",
             "of it a path, µs", "times faster than e3nn-jax"]]  # fmt: skip
    for line in lines:
        cells = [
            form.format(line[key]) if key in line else markdown.NONE
            for key, form in columns.items()
        ]
        rows.append([line["product"], str(line["degree"]), *cells])
    return markdown.table(rows)


def plot(lines: list[dict[str, Any]], path: Path) -> None:
    """Draws time, and time a path, against the degree."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    titles = {
        "gradient_ms": "a product with its gradients, CPU ms",
        "gradient_us_a_path": "the same a path, CPU µs",
    }
    for place, name in enumerate(dict.fromkeys(line["product"] for line in lines)):
        own = [x for x in lines if x["product"] == name and "gradient_ms" in x]
        marker = "osv^D"[place // 4]
        for axis, key in zip(axes, titles, strict=True):
            values = [line[key] for line in own]
            degrees = [line["degree"] for line in own]
            axis.plot(degrees, values, marker=marker, markersize=4, label=name)
    for axis, title in zip(axes, titles.values(), strict=True):
        axis.set(title=title, xlabel="largest degree", yscale="log")
    figure.legend(loc="outside right center", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Runs the benchmark; what is measured is written after every degree."""
    parser = report.parser(__doc__, "tensor_products")
    parser.add_argument("--figure", type=Path, default=FIGURE, help="PNG file")
    options = parser.parse_args()
    racing, lines = contestants(), []
    left_out: dict[str, int] = {}
    for degree in DEGREES:
        of_degree, late = measure(degree, racing)
        lines += of_degree
        left_out |= dict.fromkeys(late, degree)
        racing = {name: one for name, one in racing.items() if name not in late}
        lines.sort(key=lambda line: line["product"])
        report.write(
            options.output, nodes=NODES, channels=CHANNELS, lines=lines,
            left_out_from_degree=left_out, seconds_of_a_first_call=FIRST_CALL,
        )  # fmt: skip
        plot(lines, options.figure)
        logging.info("degree %d is measured", degree)
    print(table(lines))  # noqa: T201


if __name__ == "__main__":
    main()
