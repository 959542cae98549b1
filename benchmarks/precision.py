"""Errors of every block by the precision of its matrix products.

    python -m benchmarks.precision

An accelerator may round the factors of matrix products while sums and all else stay in
single precision: to 10 bits (TensorFloat-32) or 7 (bfloat16, the default of TPUs);
`JAX_DEFAULT_MATMUL_PRECISION` chooses. Here the same rounding is written into the
program, so that any machine tells the errors: of values, against products in single
precision, and of equivariance under rotations. Products that ask for the highest
precision, as those of grids and of rotations, are not rounded, here as there.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import Array
from scipy.spatial.transform import Rotation

from benchmarks import report
from benchmarks.backbones import CASE, NUM_BASIS, PEER, contestants
from benchmarks.convolution import draw, draw_features
from common.nn.features import Features, harmonics, rotate
from common.nn.graph import Graph
from common.so3.irreps import uniform

BITS = {"float32": 23, "tensorfloat32": 10, "bfloat16": 7}
NODES, SENDERS, ROTATIONS = 20, 8, 5
PRODUCTS = ("dot_general", "matrix_product")


def with_rounded_factors(
    function: Callable[..., Any], bits: int
) -> Callable[..., list[Array]]:
    """Returns a function that rounds the factors of all matrix products.

    Args:
        function: function of arrays.
        bits: bits of the mantissa that are kept.
    """

    def run(*arguments: Any) -> list[Array]:
        closed = jax.make_jaxpr(function)(*arguments)
        return _evaluate(closed, jax.tree.leaves(arguments), bits)

    return run


def _evaluate(closed: ClosedJaxpr, arguments: Sequence[Any], bits: int) -> list[Any]:
    jaxpr = closed.jaxpr
    known = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    known |= dict(zip(jaxpr.invars, arguments, strict=True))
    read = lambda atom: atom.val if isinstance(atom, Literal) else known[atom]
    for equation in jaxpr.eqns:
        found = _apply(equation, [read(atom) for atom in equation.invars], bits)
        known |= dict(zip(equation.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(equation: Any, operands: list[Any], bits: int) -> list[Any]:
    """Evaluates one equation, the programs inside it too."""
    name, params = equation.primitive.name, equation.params
    inner = [p for p in params.values() if isinstance(p, (ClosedJaxpr, Jaxpr))]
    if name == "scan":
        consts, carried = params["num_consts"], params["num_carry"]
        fixed = operands[:consts]

        def step(carry: list[Any], rows: list[Any]) -> tuple[list[Any], list[Any]]:
            out = _evaluate(params["jaxpr"], [*fixed, *carry, *rows], bits)
            return out[:carried], out[carried:]

        rest = operands[consts:]
        carry, rows = jax.lax.scan(
            step, rest[:carried], rest[carried:], params["length"], params["reverse"]
        )
        return [*carry, *rows]
    if inner:
        (program,) = inner
        if isinstance(program, Jaxpr):
            program = ClosedJaxpr(program, ())
        return _evaluate(program, operands, bits)
    asked = params.get("precision")
    if name in PRODUCTS and (not asked or jax.lax.Precision.HIGHEST not in asked):
        operands = [jax.lax.reduce_precision(a, 8, bits) for a in operands]
    found = equation.primitive.bind(*operands, **params)
    return found if equation.primitive.multiple_results else [found]


def errors(module: Any, x: Features) -> dict[str, dict[str, float]]:
    """Returns the errors of values and of equivariance by mode."""
    shape = NODES, SENDERS
    vectors = 2.0 * draw((*shape, 3), 1)
    rng = np.random.default_rng(2)
    senders = rng.integers(0, NODES, shape)
    feats, envelope = draw((*shape, NUM_BASIS), 4), np.full(shape, 0.7, np.float32)

    def graph_of(vectors: Array) -> Graph:
        rows = harmonics(vectors, CASE.max_degree)
        return Graph(vectors, rows, feats, envelope, senders)

    shapes = jax.eval_shape(module.init, jax.random.key(0), x, graph_of(vectors))
    params = jax.tree.map(
        lambda a: (rng.normal(size=a.shape) / a.shape[0] ** 0.5).astype(np.float32),
        shapes,
    )
    block = lambda x, vectors: module.apply(params, x, graph_of(vectors))
    turn = jax.jit(rotate)
    turns = Rotation.random(ROTATIONS, random_state=3).as_matrix().astype(np.float32)
    found, exact = {}, None
    for mode, bits in BITS.items():
        rounded = jax.jit(with_rounded_factors(block, bits))
        run = lambda x, v, own=rounded: dict(zip(sorted(x), own(x, v), strict=True))
        out = run(x, vectors)
        exact = out if exact is None else exact
        of_turns = [
            _distance(run(turn(x, r), vectors @ r.T), turn(out, r)) for r in turns
        ]
        found[mode] = {
            "values": _distance(out, exact),
            "equivariance": float(np.mean(of_turns)),
        }
    return found


def _distance(found: Features, due: Features) -> float:
    """Returns the norm of a difference, relative to the norm of what is due."""
    square = lambda parts: sum(float(np.sum(np.square(a))) for a in parts)
    off = [np.asarray(found[i], np.float64) - np.asarray(due[i]) for i in due]
    return (
        square(off) / square(np.asarray(a, np.float64) for a in due.values())
    ) ** 0.5


def main() -> None:
    """Runs the benchmark."""
    options = report.parser(__doc__, "precision").parse_args()
    found = {}
    for name, (module, channels) in contestants().items():
        if name != PEER and "," not in name:
            x = draw_features(uniform(CASE.max_degree, channels), NODES)
            found[name] = errors(module, x)
    headings = ("block", *BITS, "values, bfloat16")
    rows = [
        (name, *(f"{own[mode]['equivariance']:.1e}" for mode in BITS),
         f"{own['bfloat16']['values']:.1e}")
        for name, own in found.items()
    ]  # fmt: skip
    report.show("Relative errors of equivariance", headings, rows, left=("block",))
    report.write(options.output, errors=found)


if __name__ == "__main__":
    main()
