"""Every block of the table against a NequIP layer of e3nn-jax: time, memory, size.

    python -m benchmarks.backbones
    LD_PRELOAD=libtcmalloc_minimal.so.4 python -m benchmarks.backbones \
      --output=tcmalloc.json

A layer of 32x(0e+1o+2e) on one graph of 250 nodes with 20 senders each: its value and
its gradient by features, directions of the edges and parameters, in CPU seconds, all in
turns in one process. The peer has the layer's linear maps, convolution, radial network
and gate; its numbers are others, since its parameters are. Widths are equal, parameters
are not: the table tells them. The last line has about as many parameters as `nequip`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import e3nn_jax as e3nn
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from benchmarks import report, timing
from benchmarks.convolution import Case, draw, draw_case, draw_features
from common.nn.blocks import BLOCKS, make_block
from common.nn.features import Features, harmonics, to_irreps_array
from common.nn.graph import Graph
from common.so3.irreps import format_irreps, uniform

CASE = Case(2, 32)
NUM_BASIS, ROUNDS = 8, 8
NUM_HIDDEN = CASE.channels  # Of the radial network, as in the blocks.
NARROW = "equiformer_v3", 16
PEER = "nequip of e3nn-jax"


class PeerLayer(nn.Module):
    """A NequIP layer made of e3nn-jax's parts."""

    @nn.compact
    def __call__(self, x: Features, graph: Graph) -> list[Array]:
        flat = lambda a: a.reshape(-1, *a.shape[2:])
        kept = e3nn.Irreps.spherical_harmonics(CASE.max_degree)
        own = to_irreps_array(x)
        senders = e3nn.flax.Linear(own.irreps)(own)[flat(graph.senders)]
        filters = to_irreps_array(jax.tree.map(flat, graph.harmonics))
        messages = e3nn.tensor_product(senders, filters, filter_ir_out=kept)
        sizes = NUM_HIDDEN, NUM_HIDDEN, messages.irreps.num_irreps
        radial = e3nn.flax.MultiLayerPerceptron(sizes, jax.nn.silu)
        messages = messages * radial(flat(graph.feats))
        nodes, degree = graph.envelope.shape
        receivers = jnp.repeat(jnp.arange(nodes), degree)
        sums = e3nn.scatter_sum(messages, dst=receivers, output_size=nodes)
        gates = CASE.channels * (len(kept) - 1)
        wide = e3nn.Irreps(f"{gates}x0e") + own.irreps
        update = e3nn.flax.Linear(wide)(sums / degree**0.5)
        update += e3nn.flax.Linear(wide)(own)
        return e3nn.gate(update, even_act=jax.nn.silu, even_gate_act=jax.nn.silu).chunks


def contestants() -> dict[str, tuple[nn.Module, int]]:
    """Returns the peer and all blocks, each with its number of channels."""

    def block(name: str, channels: int) -> tuple[nn.Module, int]:
        irreps = format_irreps(uniform(CASE.max_degree, channels))
        made = make_block(name, irreps=irreps, avg_num_neighbors=float(CASE.senders))
        return made, channels

    wide = {name: block(name, CASE.channels) for name in BLOCKS}
    name, channels = NARROW
    narrow = {f"{name}, {channels} channels": block(name, channels)}
    return {PEER: (PeerLayer(), CASE.channels), **wide, **narrow}


def layer(
    module: nn.Module, x: Features, graph: Graph
) -> tuple[Callable[..., Any], Any]:
    """Returns a compiled value and gradient, and random parameters."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, graph)
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), jnp.float32), shapes
    )

    @jax.jit
    def run(params: Any, x: Features, graph: Graph) -> Any:
        def loss(params: Any, x: Features, vectors: Array) -> Array:
            rows = harmonics(vectors, CASE.max_degree)
            moved = graph._replace(vectors=vectors, harmonics=rows)
            out = jax.tree.leaves(module.apply(params, x, moved))
            return sum(jnp.sum(jnp.square(part)) for part in out)

        return jax.value_and_grad(loss, (0, 1, 2))(params, x, graph.vectors)

    return run, params


def main() -> None:
    """Runs the benchmark."""
    options = report.parser(__doc__, "backbones").parse_args()
    _, graph, _ = draw_case(CASE, "clebsch_gordan")
    feats = draw((CASE.nodes, CASE.senders, NUM_BASIS), 4)
    graph = graph._replace(feats=feats)
    made = {}
    for name, (module, channels) in contestants().items():
        x = draw_features(uniform(CASE.max_degree, channels), CASE.nodes)
        made[name] = *layer(module, x, graph), x
    race = {
        name: timing.block(run, params, x, graph)
        for name, (run, params, x) in made.items()
    }
    timed = timing.interleaved(race, ROUNDS)
    found = {
        name: {
            "cpu_ms": 1e3 * float(np.median(timed.seconds[name])),
            "times_faster": timing.ratio(timed, PEER, name),
            "temporary_mb": timing.temporary_bytes(run, params, x, graph) / 1e6,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        }
        for name, (run, params, x) in made.items()
    }
    rows = [
        (name, f"{row['cpu_ms']:.1f}", f"{row['times_faster']['median']:.2f}",
         f"{row['temporary_mb']:.0f}", f"{row['parameters']:,}")
        for name, row in found.items()
    ]  # fmt: skip
    headings = ("block", "CPU ms", "times faster", "temporary MB", "parameters")
    report.show("A layer, forward and gradient", headings, rows, left=("block",))
    preload = Path(os.environ.get("LD_PRELOAD", "")).name
    report.write(options.output, layers=found, preload=preload)


if __name__ == "__main__":
    main()
