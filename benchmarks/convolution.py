"""The core's products against e3nn-jax: forward and gradient, CPU time and memory.

    python -m benchmarks.convolution

Aim: at 128x(0e+1o+2e) and 5,000 edges at least 4 times less CPU time than e3nn-jax's
tensor product, and at most a tenth of its temporary memory. Both sides compute the same
numbers, which is checked before anything is timed.
"""

import functools
from collections.abc import Callable
from typing import Any

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from benchmarks import report, timing
from common.nn.features import (
    Features,
    from_irreps_array,
    harmonics,
    irreps_of,
    to_irreps_array,
)
from common.nn.graph import Graph
from common.nn.products import PRODUCTS
from common.nn.products.spec import Spec, make_spec
from common.so3.irreps import Irreps, uniform

MAX_DEGREE = 2
NODES, NEIGHBOURS, CHANNELS = 250, 20, 128
BATCH, SELF_NODES, SELF_CHANNELS = 8, 2_000, 64

Form = Callable[[Features, Graph, Array], Features]


def draw(shape: tuple[int, ...], seed: int) -> Array:
    """Returns standard normal numbers."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def draw_features(irreps: Irreps, *batch: int) -> Features:
    """Returns standard normal features."""
    return {i: draw((*batch, i.dim, n), 10 + i.degree) for i, n in irreps.items()}


def draw_graph(num_nodes: int, *batch: int) -> tuple[Graph, Features]:
    """Returns a random table of neighbours and features of the nodes."""
    shape = (*batch, num_nodes, NEIGHBOURS)
    vectors, ones = draw((*shape, 3), 1), jnp.ones(shape)
    senders = np.random.default_rng(2).integers(0, num_nodes, shape)
    graph = Graph(
        vectors, harmonics(vectors, MAX_DEGREE), ones[..., None], ones,
        jnp.asarray(senders),
    )  # fmt: skip
    irreps = uniform(MAX_DEGREE, CHANNELS)
    return graph, draw_features(irreps, *batch, num_nodes)


def spec_of() -> Spec:
    """Returns the spec of all convolutions here."""
    irreps = uniform(MAX_DEGREE, CHANNELS)
    return make_spec(irreps, uniform(MAX_DEGREE, 1), irreps)


def ours(x: Features, graph: Graph, weights: Array) -> Features:
    """Convolves by the core."""
    return PRODUCTS["clebsch_gordan"].convolve(x, graph, weights, spec_of())


def peer(x: Features, graph: Graph, weights: Array) -> Features:
    """Convolves as NequIP, MACE and Nequix do with e3nn-jax."""
    flat = lambda a: a.reshape(-1, *a.shape[2:])
    filters = to_irreps_array(jax.tree.map(flat, graph.harmonics))
    kept = e3nn.Irreps.spherical_harmonics(MAX_DEGREE)
    senders = to_irreps_array(x)[flat(graph.senders)]
    messages = e3nn.tensor_product(senders, filters, filter_ir_out=kept)
    messages = messages * flat(weights).reshape(messages.shape[0], -1)
    receivers = jnp.repeat(jnp.arange(len(weights)), weights.shape[1])
    total = e3nn.scatter_sum(messages, dst=receivers, output_size=len(weights))
    return from_irreps_array(total)


def with_gradient(form: Form) -> Callable[..., Any]:
    """Returns the compiled sum of squares and its gradients by all floats."""

    @jax.jit
    def run(x: Features, graph: Graph, weights: Array) -> Any:
        def loss(x: Features, y: Features, weights: Array) -> Array:
            out = form(x, graph._replace(harmonics=y), weights)
            return sum(jnp.sum(jnp.square(part)) for part in out.values())

        return jax.value_and_grad(loss, (0, 1, 2))(x, graph.harmonics, weights)

    return run


def check_same(results: dict[str, Any]) -> None:
    """Raises `AssertionError` unless all results are equal to rounding."""
    first, *others = results.values()
    for other in others:
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
            scale = float(np.abs(b).max())
            np.testing.assert_allclose(a / scale, b / scale, atol=1e-4)


def measure(forms: dict[str, Callable[..., Any]], inputs: Any) -> dict[str, Any]:
    """Times contestants in turns; the first is the reference."""
    check_same({name: form(*inputs) for name, form in forms.items()})
    calls = {name: timing.block(form, *inputs) for name, form in forms.items()}
    timed, names = timing.interleaved(calls, 10), list(forms)
    memory = {name: timing.temporary_bytes(forms[name], *inputs) for name in names}
    return {
        "cpu_ms": {n: 1e3 * float(np.median(timed.seconds[n])) for n in names},
        "times_faster": timing.ratio(timed, *names),
        "memory_ratio": memory[names[1]] / memory[names[0]],
    }


def self_products() -> dict[str, Any]:
    """Measures the product inside the nodes."""
    irreps = uniform(MAX_DEGREE, SELF_CHANNELS)
    x, row = draw_features(irreps, SELF_NODES), PRODUCTS["self_product"]
    spec = make_spec(irreps, irreps_of(x), irreps)
    weights = draw((row.num_weights(spec),), 3)

    def with_e3nn(x: Features, weights: Array) -> Features:
        total: Features = {}
        kept = e3nn.Irreps.spherical_harmonics(MAX_DEGREE)
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

    forms = {"e3nn-jax": with_e3nn, "core": lambda x, w: row.product(x, x, w, spec)}
    return measure({name: both(form) for name, form in forms.items()}, (x, weights))


def main() -> None:
    """Runs the benchmark."""
    options = report.parser(__doc__, "convolution").parse_args()
    weights = PRODUCTS["clebsch_gordan"].num_weights(spec_of())
    alone, x = draw_graph(NODES)
    forms = {name: with_gradient(f) for name, f in (("e3nn-jax", peer), ("core", ours))}
    found = {
        "one graph of 5,000 edges": measure(
            forms, (x, alone, draw((NODES, NEIGHBOURS, weights), 3))
        )
    }
    many, x = draw_graph(NODES // BATCH, BATCH)
    shape = (BATCH, NODES // BATCH, NEIGHBOURS, weights)
    batched = {
        name: with_gradient(functools.partial(lambda f, *a: jax.vmap(f)(*a), form))
        for name, form in (("e3nn-jax", peer), ("core", ours))
    }
    found["batch of 8 graphs"] = measure(batched, (x, many, draw(shape, 3)))
    found["self product, 2,000 nodes"] = self_products()
    rows = [
        (case, *(f"{row['cpu_ms'][name]:.1f}" for name in ("e3nn-jax", "core")),
         f"{row['times_faster']['median']:.2f}", f"{row['memory_ratio']:.3f}")
        for case, row in found.items()
    ]  # fmt: skip
    headings = ("case", "e3nn-jax, CPU ms", "core", "times faster", "memory ratio")
    report.show("Forward and gradient, float32", headings, rows, left=("case",))
    report.write(options.output, cases=found, matmul_gflop=timing.matmul_gigaflops())


if __name__ == "__main__":
    main()
