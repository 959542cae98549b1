"""The core's convolution against e3nn-jax: forward and gradient, CPU time and memory.

Run: `python -m benchmarks.convolution` (about three minutes on two cores).
Aim: at 128x(0e+1o+2e), 5,000 edges, at least 4 times less CPU time than e3nn-jax's
tensor product and at most a tenth of its temporary memory. Both sides compute the same
numbers, which is checked before anything is timed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from rich.console import Console

from benchmarks import report, timing
from common.nn.layers import Linear, self_product
from common.nn.products.clebsch_gordan import (
    Degrees,
    convolution,
    message_per_degree,
    neighbour_convolution,
    num_paths,
    radial_convolution,
)
from common.so3.harmonics import spherical_harmonics
from common.so3.irreps import from_irreps_array, to_irreps_array

MAX_DEGREE = 2
DEGREES = Degrees(MAX_DEGREE, MAX_DEGREE, MAX_DEGREE, "O3")
IRREPS_OUT = e3nn.Irreps.spherical_harmonics(MAX_DEGREE)
NUM_RADIAL = 8


class Graph(NamedTuple):
    """One graph with a table of neighbours; `cotangent` belongs to the messages."""

    x: Float[Array, "*batch nodes components channels"]
    harmonics: Float[Array, "*batch nodes neighbours components"]
    weights: Float[Array, "*batch nodes neighbours paths channels"]
    senders: Int[Array, "*batch nodes neighbours"]
    cotangent: Float[Array, "*batch nodes rows channels"]


class Molecules(NamedTuple):
    """Input of the two-layer model, batch first."""

    x: Float[Array, "batch nodes components channels"]
    vectors: Float[Array, "batch nodes neighbours 3"]
    radial: Float[Array, "batch nodes neighbours basis"]
    senders: Int[Array, "batch nodes neighbours"]


def random_graph(num_nodes: int, num_neighbours: int, channels: int) -> Graph:
    """Draws features and a regular graph."""
    keys = jax.random.split(jax.random.key(0), 5)
    edges = (num_nodes, num_neighbours)
    paths = num_paths(*DEGREES)
    return Graph(
        jax.random.normal(keys[0], (num_nodes, 9, channels)),
        spherical_harmonics(jax.random.normal(keys[1], (*edges, 3)), MAX_DEGREE),
        jax.random.normal(keys[2], (*edges, paths, channels)),
        jax.random.randint(keys[3], edges, 0, num_nodes),
        jax.random.normal(keys[4], (num_nodes, 35, channels)),
    )


def flat(array: Array) -> Array:
    """Merges receivers and neighbours into edges."""
    return array.reshape(-1, *array.shape[2:])


def receivers_of(senders: Int[Array, "nodes neighbours"]) -> Int[Array, " edges"]:
    """Returns the receiver of every edge of a table of neighbours."""
    return jnp.repeat(jnp.arange(senders.shape[0]), senders.shape[1])


def peer(x: Array, harmonics: Array, weights: Array, senders: Array) -> Array:
    """Computes messages as NequIP, MACE and Nequix do; rows as e3nn orders them."""
    node_feats = x if isinstance(x, e3nn.IrrepsArray) else to_irreps_array(x)
    filters = e3nn.IrrepsArray(IRREPS_OUT, flat(harmonics))
    messages = e3nn.tensor_product(
        node_feats[flat(senders)], filters, filter_ir_out=IRREPS_OUT
    )
    messages = messages * flat(weights).reshape(messages.shape[0], -1)
    return e3nn.scatter_sum(
        messages, dst=receivers_of(senders), output_size=senders.shape[0]
    )


def peer_rows(x: Array, harmonics: Array, weights: Array, senders: Array) -> Array:
    """Computes the peer's messages, rows in the core's order."""
    total = peer(x, harmonics, weights, senders)
    blocks = [jnp.swapaxes(chunk, -1, -2) for chunk in total.chunks]
    return jnp.concatenate(
        [block.reshape(len(x), -1, x.shape[-1]) for block in blocks], axis=-2
    )


def dense_rows(x: Array, harmonics: Array, weights: Array, senders: Array) -> Array:
    """Computes messages by one dense matrix per edge."""
    return convolution(
        x,
        flat(harmonics),
        flat(weights),
        flat(senders),
        receivers_of(senders),
        MAX_DEGREE,
    )


def blocked_rows(x: Array, harmonics: Array, weights: Array, senders: Array) -> Array:
    """Computes messages by blocks of receivers."""
    return neighbour_convolution(x, harmonics, weights, senders, MAX_DEGREE)


def with_gradient(rows: Callable[..., Array]) -> Callable[[Graph], Any]:
    """Pulls the cotangent back to features, harmonics and weights."""

    def run(graph: Graph) -> Any:
        def scalar(x: Array, harmonics: Array, weights: Array) -> Array:
            return jnp.vdot(rows(x, harmonics, weights, graph.senders), graph.cotangent)

        return jax.value_and_grad(scalar, argnums=(0, 1, 2))(*graph[:3])

    return run


class RadialKernel(nn.Module):
    """Last layer of the radial network: its matrix, not its product.

    Attributes:
        features: Number of weights of an edge.
    """

    features: int

    @nn.compact
    def __call__(self, num_radial: int) -> Array:
        init = nn.initializers.lecun_normal()
        return self.param("kernel", init, (num_radial, self.features))


class CoreModel(nn.Module):
    """Two layers: Linear, convolution, Linear, silu on scalars; one molecule.

    Attributes:
        form: Computes messages from radial weights, or None to make those in blocks.
    """

    form: Callable[..., Array] | None

    @nn.compact
    def __call__(
        self, x: Array, vectors: Array, radial: Array, senders: Array
    ) -> Array:
        channels, paths = x.shape[-1], num_paths(*DEGREES)
        harmonics = spherical_harmonics(vectors, MAX_DEGREE)
        for layer in range(2):
            kernel = RadialKernel(paths * channels, name=f"radial_{layer}")(NUM_RADIAL)
            x = Linear(channels, name=f"up_{layer}")(x)
            if self.form is None:
                kernel = kernel.reshape(NUM_RADIAL, paths, channels)
                rows = radial_convolution(
                    x, harmonics, radial, kernel, senders, MAX_DEGREE
                )
            else:
                weights = (radial @ kernel).reshape(*senders.shape, paths, channels)
                rows = self.form(x, harmonics, weights, senders)
            blocks = [
                Linear(channels, max_degree=0, name=f"down_{layer}_{degree}")(
                    block.reshape(-1, 1, block.shape[-1])
                ).reshape(*block.shape[:2], channels)
                for degree, block in enumerate(message_per_degree(rows, DEGREES))
            ]
            x = jnp.concatenate([nn.silu(blocks[0]), *blocks[1:]], axis=-2)
        return x


class PeerModel(nn.Module):
    """The same two layers out of e3nn's own modules."""

    channels: int

    @nn.compact
    def __call__(
        self, x: Array, vectors: Array, radial: Array, senders: Array
    ) -> Array:
        harmonics = e3nn.spherical_harmonics(
            IRREPS_OUT,
            e3nn.IrrepsArray("1o", vectors),
            normalize=True,
            normalization="component",
        ).array
        node_feats = to_irreps_array(x)
        for layer in range(2):
            weights = nn.Dense(
                num_paths(*DEGREES) * self.channels,
                use_bias=False,
                name=f"radial_{layer}",
            )(radial)
            node_feats = e3nn.flax.Linear(node_feats.irreps, name=f"up_{layer}")(
                node_feats
            )
            messages = peer(node_feats, harmonics, weights, senders)
            node_feats = e3nn.flax.Linear(node_feats.irreps, name=f"down_{layer}")(
                messages
            )
            node_feats = e3nn.scalar_activation(
                node_feats, even_act=nn.silu, normalize_act=False
            )
        return from_irreps_array(node_feats)


def peer_tree(tree: dict[str, Any], channels: int, power: int = 1) -> dict[str, Any]:
    """Renames the core's parameters, or their gradients, to those of the peer.

    e3nn divides every product by the root of its fan-in, so a weight is multiplied by
    it (power 1), and its gradient divided (power -1).
    """
    source, renamed = tree["params"], {}

    def entry(degree: int, paths: int, kernel: Array) -> tuple[str, Array]:
        irrep = f"{degree}{'eo'[degree % 2]}"
        name = f"w[{degree},{degree}] {paths * channels}x{irrep},{channels}x{irrep}"
        return name, kernel * (paths * channels) ** (0.5 * power)

    for layer in range(2):
        renamed[f"radial_{layer}"] = source[f"radial_{layer}"]
        up = source[f"up_{layer}"]
        renamed[f"up_{layer}"] = dict(entry(l, 1, up[f"kernel_{l}"]) for l in range(3))
        renamed[f"down_{layer}"] = dict(
            entry(l, paths, source[f"down_{layer}_{l}"]["kernel_0"])
            for l, paths in enumerate((3, 4, 4))
        )
    return {"params": renamed}


def random_molecules(size: int, num_nodes: int, channels: int) -> Molecules:
    """Draws molecules in which every atom neighbours every other."""
    keys = jax.random.split(jax.random.key(1), 3)
    table = np.array(
        [[j for j in range(num_nodes) if j != i] for i in range(num_nodes)]
    )
    positions = 2.0 * jax.random.normal(keys[0], (size, num_nodes, 3))
    vectors = positions[:, :, None] - positions[:, table]
    return Molecules(
        jax.random.normal(keys[1], (size, num_nodes, 9, channels)),
        vectors,
        jax.random.normal(keys[2], (*vectors.shape[:3], NUM_RADIAL)),
        jnp.broadcast_to(jnp.asarray(table), (size, *table.shape)),
    )


def model_gradient(model: nn.Module) -> Callable[[Any, Molecules], Any]:
    """Runs a model on a batch and pulls a loss back to parameters and vectors."""

    def loss(parameters: Any, vectors: Array, molecules: Molecules) -> Array:
        batch = molecules._replace(vectors=vectors)
        out = jax.vmap(lambda molecule: model.apply(parameters, *molecule))(batch)
        return jnp.mean(jnp.square(out))

    def run(parameters: Any, molecules: Molecules) -> Any:
        return jax.value_and_grad(loss, argnums=(0, 1))(
            parameters, molecules.vectors, molecules
        )

    return run


def compare(
    functions: dict[str, Callable[..., Any]],
    arguments: dict[str, tuple[Any, ...]],
    rounds: int,
    calls: int = 1,
) -> dict[str, Any]:
    """Times contestants in turns; the first is the reference of every ratio."""
    compiled = {
        name: jax.jit(f).lower(*arguments[name]).compile()
        for name, f in functions.items()
    }
    temporary = {
        name: int(program.memory_analysis().temp_size_in_bytes)
        for name, program in compiled.items()
    }
    contestants = {
        name: timing.block(program, *arguments[name])
        for name, program in compiled.items()
    }
    timed = timing.interleaved(contestants, rounds, calls)
    reference = next(iter(functions))
    return {
        name: {
            "cpu_ms": 1e3 * float(np.median(timed.seconds[name])),
            "speed_up": timing.ratio(timed, reference, name),
            "temporary_MB": temporary[name] / 1e6,
            "memory_ratio": temporary[name] / max(1, temporary[reference]),
        }
        for name in functions
    }


def check_equal(mine: Any, other: Any, what: str) -> None:
    """Stops the benchmark unless two results agree, relative to their largest."""
    pairs = zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True)
    for index, (a, b) in enumerate(pairs):
        error = float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))
        if not error < 1e-4:
            raise ValueError(f"{what}: result {index} differs by {error:.1e}")


def convolution_alone(rounds: int) -> dict[str, Any]:
    """Times case A: 128 channels, 250 nodes, 5,000 edges."""
    graph = random_graph(250, 20, 128)
    functions = {
        "e3nn-jax": with_gradient(peer_rows),
        "dense": with_gradient(dense_rows),
        "blocked": with_gradient(blocked_rows),
    }
    results = {name: jax.jit(f)(graph) for name, f in functions.items()}
    for name in ("dense", "blocked"):
        check_equal(results[name], results["e3nn-jax"], name)
    return compare(functions, dict.fromkeys(functions, (graph,)), rounds)


def convolution_in_model(rounds: int) -> dict[str, Any]:
    """Times two layers on 16 molecules of 18 atoms: 4,896 edges, 128 channels."""
    molecules = random_molecules(16, 18, 128)
    core = {
        "dense": CoreModel(dense_rows),
        "blocked": CoreModel(blocked_rows),
        "blocked, weights too": CoreModel(None),
    }
    parameters = core["dense"].init(jax.random.key(2), *(a[0] for a in molecules))
    renamed = peer_tree(parameters, 128)
    functions = {"e3nn-jax": model_gradient(PeerModel(128))}
    functions |= {name: model_gradient(model) for name, model in core.items()}
    arguments = dict.fromkeys(functions, (parameters, molecules))
    arguments["e3nn-jax"] = (renamed, molecules)
    results = {name: jax.jit(f)(*arguments[name]) for name, f in functions.items()}
    for name in core:
        loss, (gradient, vectors) = results[name]
        expected_loss, (expected, expected_vectors) = results["e3nn-jax"]
        check_equal((loss, vectors), (expected_loss, expected_vectors), name)
        gradient = peer_tree(gradient, 128, power=-1)
        check_equal(gradient, expected, f"{name}, parameters")
    return compare(functions, arguments, rounds)


def linear(rounds: int) -> dict[str, Any]:
    """Times one Linear, 4,000 nodes, 128x(0e+1o+2e) to itself."""
    x = jax.random.normal(jax.random.key(3), (4000, 9, 128))
    array = to_irreps_array(x)
    peer_module, module = e3nn.flax.Linear(array.irreps), Linear(128)
    peer_weights = peer_module.init(jax.random.key(4), array)
    weights = module.init(jax.random.key(4), x)

    def pulled(apply: Callable[..., Array]) -> Callable[..., Any]:
        loss = lambda weights, x: jnp.sum(jnp.square(apply(weights, x)))
        return jax.value_and_grad(loss, argnums=(0, 1))

    functions = {
        "e3nn-jax": pulled(
            lambda w, x: peer_module.apply(w, e3nn.IrrepsArray(array.irreps, x)).array
        ),
        "core": pulled(module.apply),
    }
    arguments = {"e3nn-jax": (peer_weights, array.array), "core": (weights, x)}
    return compare(functions, arguments, rounds)


def self_products(rounds: int) -> dict[str, Any]:
    """Times the channelwise product of 2,000 nodes with themselves, 64 channels."""
    keys = jax.random.split(jax.random.key(7), 3)
    x = jax.random.normal(keys[0], (2000, 9, 64))
    weights = jax.random.normal(keys[1], (num_paths(*DEGREES), 64))
    cotangent = jax.random.normal(keys[2], (2000, 9, 64))

    def theirs(x: Array, weights: Array, cotangent: Array) -> Array:
        factor = e3nn.IrrepsArray(IRREPS_OUT, jnp.swapaxes(x, -1, -2))
        product = e3nn.tensor_product(factor, factor, filter_ir_out=IRREPS_OUT)
        blocks = [jnp.sum(chunk, axis=-2) for chunk in (product * weights.T).chunks]
        product = jnp.swapaxes(jnp.concatenate(blocks, axis=-1), -1, -2)
        return jnp.vdot(product, cotangent)

    def ours(x: Array, weights: Array, cotangent: Array) -> Array:
        return jnp.vdot(self_product(x, x, weights, MAX_DEGREE), cotangent)

    functions = {"e3nn-jax": theirs, "core": ours}
    functions = {name: jax.value_and_grad(f, (0, 1)) for name, f in functions.items()}
    arguments = (x, weights, cotangent)
    results = [jax.jit(f)(*arguments) for f in functions.values()]
    check_equal(results[1], results[0], "self product")
    return compare(functions, dict.fromkeys(functions, arguments), rounds)


def harmonics(rounds: int, max_degree: int) -> dict[str, Any]:
    """Times spherical harmonics of 20,000 vectors with their gradient."""
    vectors = jax.random.normal(jax.random.key(5), (20_000, 3))
    irreps = e3nn.Irreps.spherical_harmonics(max_degree)
    cotangent = jax.random.normal(jax.random.key(6), (20_000, (max_degree + 1) ** 2))

    def theirs(vectors: Array, cotangent: Array) -> Array:
        array = e3nn.IrrepsArray("1o", vectors)
        values = e3nn.spherical_harmonics(
            irreps, array, normalize=True, normalization="component"
        )
        return jnp.vdot(values.array, cotangent)

    def ours(vectors: Array, cotangent: Array) -> Array:
        return jnp.vdot(spherical_harmonics(vectors, max_degree), cotangent)

    functions = {"e3nn-jax": jax.value_and_grad(theirs)}
    functions["core"] = jax.value_and_grad(ours)
    arguments = dict.fromkeys(functions, (vectors, cotangent))
    return compare(functions, arguments, rounds, calls=20)


def main() -> None:
    """Runs every case, prints a table and writes the figures with the machine."""
    parser = report.parser(__doc__, "convolution")
    parser.add_argument("--rounds", type=int, default=10, help="rounds per case")
    options = parser.parse_args()
    rate = timing.matmul_gigaflops()
    cases = {
        "convolution, 5,000 edges": convolution_alone(options.rounds),
        "two layers, 16 molecules of 18 atoms": convolution_in_model(options.rounds),
        "self product, 2,000 nodes": self_products(options.rounds),
        "linear, 4,000 nodes": linear(options.rounds),
        "harmonics, degree 2": harmonics(options.rounds, 2),
        "harmonics, degree 3": harmonics(options.rounds, 3),
        "harmonics, degree 5": harmonics(options.rounds, 5),
    }
    report.show(
        "Forward and gradient, float32, process-CPU time",
        ("case", "form", "CPU ms", "times faster", "temporary MB", "ratio"),
        [
            (
                case,
                name,
                f"{row['cpu_ms']:.1f}",
                f"{row['speed_up']['median']:.2f}",
                f"{row['temporary_MB']:.1f}",
                f"{row['memory_ratio']:.3f}",
            )
            for case, rows in cases.items()
            for name, row in rows.items()
        ],
        left=("case", "form"),
    )
    Console().print(f"2048^3 matmul: {rate:.0f} GFLOP per CPU second")
    report.write(
        options.output,
        matmul_gflop_per_cpu_second=rate,
        rounds=options.rounds,
        cases=cases,
    )


if __name__ == "__main__":
    main()
