"""The core's products against e3nn-jax: forward and gradient, CPU time and memory.

    python -m benchmarks.convolution
    python -m benchmarks.convolution --write

Aims, in CPU time: 5 times less than e3nn-jax's tensor product at degrees 2 and 3, 3
times less than its `LinearSHTP` at degree 5, the layer of the published Symphony, 2
times less for harmonics up to degree 3; a tenth of the temporary memory. Both sides
compute the same numbers, which is checked before anything is timed; the Gaunt product
stands beside them as another operator. `--write` measures how much of a convolution
this device should handle at once, and keeps it for the user's own programs
(`common.nn.products.plan`).
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
from e3nn_jax.experimental.linear_shtp import LinearSHTP
from jaxtyping import Array

from benchmarks import report, timing
from common.commands import cli
from common.nn.features import (
    Features,
    from_irreps_array,
    harmonics,
    irreps_of,
    to_irreps_array,
)
from common.nn.graph import Graph
from common.nn.products import PRODUCTS, clebsch_gordan, plan, so2
from common.nn.products.spec import Spec, make_spec
from common.so3.harmonics import spherical_harmonics
from common.so3.irreps import Irreps, uniform

SELF_NODES, SELF_CHANNELS, SELF_DEGREE = 2_000, 64, 2
VECTORS, HARMONIC_DEGREES = 20_000, range(1, 7)
ROUNDS = 10
SIZES = (250_000, 500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000, None)
"""Bytes of a block's messages that `--write` tries; None for all edges at once."""

Form = Callable[[Features, Graph, Array], Features]


class Case(NamedTuple):
    """A convolution: degree, channels, nodes, senders of each, graphs of a batch."""

    max_degree: int
    channels: int
    nodes: int = 250
    senders: int = 20
    batch: tuple[int, ...] = ()

    @property
    def spec(self) -> Spec:
        irreps = uniform(self.max_degree, self.channels)
        return make_spec(irreps, uniform(self.max_degree, 1), irreps)


CASES = {
    "degree 2, one graph of 5,000 edges": Case(2, 128),
    "degree 2, a batch of 8 graphs": Case(2, 128, 31, batch=(8,)),
    "degree 3, one graph of 5,000 edges": Case(3, 128),
}
IN_FRAMES = {
    "degree 5, 240 edges": Case(5, 64, 80, 3),
    "degree 5, 2,000 edges": Case(5, 64, 100, 20),
}


def draw(shape: tuple[int, ...], seed: int) -> Array:
    """Returns standard normal numbers."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def draw_features(irreps: Irreps, *batch: int) -> Features:
    """Returns standard normal features."""
    return {i: draw((*batch, i.dim, n), 10 + i.degree) for i, n in irreps.items()}


def draw_case(case: Case, product: str) -> tuple[Features, Graph, Array]:
    """Returns features of nodes, a random table of neighbours, and weights."""
    shape = (*case.batch, case.nodes, case.senders)
    vectors, ones = draw((*shape, 3), 1), jnp.ones(shape)
    senders = np.random.default_rng(2).integers(0, case.nodes, shape)
    rows = harmonics(vectors, case.max_degree)
    graph = Graph(vectors, rows, ones[..., None], ones, jnp.asarray(senders))
    irreps = uniform(case.max_degree, case.channels)
    weights = draw((*shape, PRODUCTS[product].num_weights(case.spec)), 3)
    return draw_features(irreps, *case.batch, case.nodes), graph, weights


def core(case: Case, product: str) -> Form:
    """Returns the convolution of a row of the table."""
    row = PRODUCTS[product]
    return lambda x, graph, weights: row.convolve(x, graph, weights, case.spec)


def by_tensor_product(case: Case) -> Form:
    """Returns the convolution of NequIP, MACE and Nequix with e3nn-jax."""
    kept = e3nn.Irreps.spherical_harmonics(case.max_degree)

    def convolve(x: Features, graph: Graph, weights: Array) -> Features:
        filters = to_irreps_array(jax.tree.map(_flat, graph.harmonics))
        senders = to_irreps_array(x)[_flat(graph.senders)]
        messages = e3nn.tensor_product(senders, filters, filter_ir_out=kept)
        messages = messages * _flat(weights).reshape(messages.shape[0], -1)
        return _scattered(messages, weights)

    return convolve


def by_frames(case: Case) -> Form:
    """Returns the convolution of the published Symphony with e3nn-jax."""
    kept = e3nn.Irreps.spherical_harmonics(case.max_degree)
    layer = LinearSHTP(kept, mix=False)

    def convolve(x: Features, graph: Graph, weights: Array) -> Features:
        senders = to_irreps_array(x)[_flat(graph.senders)]
        directions = e3nn.IrrepsArray("1o", _flat(graph.vectors))
        one = lambda x, direction, own: layer.apply(
            {"params": _shtp_weights(own, case)}, x, direction
        )
        return _scattered(jax.vmap(one)(senders, directions, _flat(weights)), weights)

    return convolve


def _shtp_weights(weights: Array, case: Case) -> dict[str, Array]:
    """Returns the weights of an edge as `LinearSHTP` has them, by pairs of degrees."""
    count, start = case.max_degree + 1, 0
    kept = [irrep for _, irrep in e3nn.Irreps.spherical_harmonics(case.max_degree)]
    found: dict[str, list[Array]] = {}
    for m in range(count):
        shape = (count - m, count - m, case.channels)
        own = weights[start : start + np.prod(shape)].reshape(shape)
        start += np.prod(shape)
        for out in range(m, count):
            for l in range(m, count):
                norm = np.sqrt((2 * out + 1) / (2 * min(out, l) + 1))
                name = f"{l}_{out}_S{kept[l]}{kept[out]}"
                found.setdefault(name, []).append(norm * own[out - m, l - m])
    return {name: jnp.stack(rows) for name, rows in found.items()}


def _flat(array: Array) -> Array:
    return array.reshape(-1, *array.shape[2:])


def _scattered(messages: e3nn.IrrepsArray, weights: Array) -> Features:
    receivers = jnp.repeat(jnp.arange(len(weights)), weights.shape[1])
    total = e3nn.scatter_sum(messages, dst=receivers, output_size=len(weights))
    return from_irreps_array(total)


def with_gradient(form: Form, case: Case) -> Callable[..., Any]:
    """Returns the compiled sum of squares and its gradients by all floats."""
    for _ in case.batch:
        form = jax.vmap(form)

    @jax.jit
    def run(x: Features, graph: Graph, weights: Array) -> Any:
        def loss(x: Features, vectors: Array, weights: Array) -> Array:
            rows = harmonics(vectors, case.max_degree)
            moved = graph._replace(vectors=vectors, harmonics=rows)
            return sum(jnp.sum(jnp.square(a)) for a in form(x, moved, weights).values())

        return jax.value_and_grad(loss, (0, 1, 2))(x, graph.vectors, weights)

    return run


def check_same(results: dict[str, Any]) -> None:
    """Raises `AssertionError` unless all results are equal to rounding."""
    first, *others = results.values()
    for other in others:
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
            scale = float(np.abs(b).max())
            np.testing.assert_allclose(a / scale, b / scale, atol=1e-4)


def measure(
    forms: dict[str, tuple[Callable[..., Any], Any]], calls: int = 1
) -> dict[str, Any]:
    """Times contestants and their inputs in turns; the first is the reference.

    Those of the first's inputs must give its numbers.
    """
    (reference, (_, given)), *_ = forms.items()
    same = {name: form(*own) for name, (form, own) in forms.items() if own is given}
    check_same(same)
    race = {name: timing.block(form, *own) for name, (form, own) in forms.items()}
    timed = timing.interleaved(race, ROUNDS, calls)
    memory = {name: timing.temporary_bytes(f, *own) for name, (f, own) in forms.items()}
    return {
        name: {
            "cpu_ms": 1e3 * float(np.median(timed.seconds[name])),
            "times_faster": timing.ratio(timed, reference, name),
            "memory_ratio": memory[name] / max(memory[reference], 1),
            "same_operator": name in same,
        }
        for name in forms
    }


def convolution(case: Case, peer: Form, product: str, *others: str) -> dict[str, Any]:
    """Measures a product, its peer, and other operators beside them."""
    given = draw_case(case, product)
    forms = {"e3nn-jax": (peer, given), product: (core(case, product), given)}
    forms |= {name: (core(case, name), draw_case(case, name)) for name in others}
    return measure({n: (with_gradient(f, case), own) for n, (f, own) in forms.items()})


def self_products() -> dict[str, Any]:
    """Measures the product inside the nodes."""
    irreps = uniform(SELF_DEGREE, SELF_CHANNELS)
    x, row = draw_features(irreps, SELF_NODES), PRODUCTS["self_product"]
    spec = make_spec(irreps, irreps_of(x), irreps)
    given = x, draw((row.num_weights(spec),), 3)

    def with_e3nn(x: Features, weights: Array) -> Features:
        total: Features = {}
        kept = e3nn.Irreps.spherical_harmonics(SELF_DEGREE)
        one = e3nn.IrrepsArray(kept, jnp.concatenate(
            [jnp.swapaxes(x[i], -1, -2) for i in sorted(x)], axis=-1
        ))  # fmt: skip
        product = e3nn.tensor_product(one, one, filter_ir_out=kept)
        scaled = product * weights.reshape(-1, SELF_CHANNELS).T
        for chunk, i in zip(scaled.chunks, sorted(x), strict=True):
            total[i] = jnp.swapaxes(jnp.sum(chunk, axis=-2), -1, -2)
        return total

    def both(form: Callable[..., Features]) -> Callable[..., Any]:
        loss = lambda *a: sum(jnp.sum(jnp.square(p)) for p in form(*a).values())
        return jax.jit(jax.value_and_grad(loss, (0, 1)))

    ours = lambda x, weights: row.product(x, x, weights, spec)
    forms = {"e3nn-jax": with_e3nn, "self_product": ours}
    return measure({name: (both(form), given) for name, form in forms.items()})


def of_harmonics(max_degree: int) -> dict[str, Any]:
    """Measures spherical harmonics with their gradient."""
    irreps = e3nn.Irreps.spherical_harmonics(max_degree)
    given = draw((VECTORS, 3), 1), draw((VECTORS, irreps.dim), 2)
    forms = {
        "e3nn-jax": lambda vectors: (
            e3nn.spherical_harmonics(
                irreps, vectors, normalize=True, normalization="component"
            ).array
        ),
        "harmonics": lambda vectors: spherical_harmonics(vectors, max_degree),
    }

    def both(form: Callable[[Array], Array]) -> Callable[..., Any]:
        def run(vectors: Array, cotangent: Array) -> Any:
            value, pull = jax.vjp(form, vectors)
            return value, pull(cotangent)

        return jax.jit(run)

    return measure({name: (both(form), given) for name, form in forms.items()}, calls=5)


def best_size() -> tuple[int | None, dict[str, float]]:
    """Returns the size of a block that is fastest over all cases, and their times.

    A time is the geometric mean, of the fastest size of each case.
    """
    forms = dict.fromkeys(CASES, clebsch_gordan) | dict.fromkeys(IN_FRAMES, so2)
    seconds: dict[str, list[float]] = {str(size): [] for size in SIZES}
    for name, case in (CASES | IN_FRAMES).items():
        module, race = forms[name], {}
        given = draw_case(case, module.__name__.split(".")[-1])
        for size in SIZES:
            floats = plan.message_floats(module.paths(case.spec), case.channels)
            edges = plan.edges_in(size, floats)
            form = lambda *a, m=module, c=case, e=edges: m.convolve(*a, c.spec, e)
            race[str(size)] = timing.block(with_gradient(form, case), *given)
        timed = timing.interleaved(race, ROUNDS)
        medians = {size: float(np.median(s)) for size, s in timed.seconds.items()}
        for size, median in medians.items():
            seconds[size].append(median / min(medians.values()))
    means = {size: float(np.exp(np.mean(np.log(t)))) for size, t in seconds.items()}
    return min(SIZES, key=lambda size: means[str(size)]), means


def write_plan() -> None:
    """Measures this device, and adds it to the user's own table."""
    path, kind = plan.user_table(), jax.devices()[0].device_kind
    size, means = best_size()
    rows = [(name, f"{mean:.2f}") for name, mean in means.items()]
    report.show(f"Time by bytes of a block, {kind}", ("bytes", "relative"), rows)
    own = json.loads(path.read_text()) if path.is_file() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with cli.atomic_path(path) as partial:
        partial.write_text(json.dumps(own | {kind: size}, indent=2) + "\n")


def main() -> None:
    """Runs the benchmark."""
    parser = report.parser(__doc__, "convolution")
    parser.add_argument(
        "--write", action="store_true", help="choose block sizes for this device"
    )
    options = parser.parse_args()
    if options.write:
        write_plan()
        return
    found = {
        name: convolution(case, by_tensor_product(case), "clebsch_gordan")
        for name, case in CASES.items()
    }
    found |= {
        name: convolution(case, by_frames(case), "so2", "clebsch_gordan", "gaunt")
        for name, case in IN_FRAMES.items()
    }
    found["self product, 2,000 nodes"] = self_products()
    for degree in HARMONIC_DEGREES:
        found[f"harmonics to degree {degree}"] = of_harmonics(degree)
    rows = [
        (case, name, f"{line['cpu_ms']:.1f}", f"{line['times_faster']['median']:.2f}",
         f"{line['memory_ratio']:.3f}", "" if line["same_operator"] else "another")
        for case, lines in found.items() for name, line in lines.items()
    ]  # fmt: skip
    headings = ("case", "form", "CPU ms", "times faster", "memory ratio", "operator")
    words = ("case", "form", "operator")
    report.show("Forward and gradient, float32", headings, rows, left=words)
    report.write(options.output, cases=found, matmul_gflop=timing.matmul_gigaflops())


if __name__ == "__main__":
    main()
