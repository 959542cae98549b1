"""What XLA is told about the programs that people wait for."""

from typing import Any

import jax


def compiler_options() -> dict[str, Any]:
    """Returns options of `jax.jit` for large programs: on a CPU, half the compilation.

    Each fused loop is a kernel that LLVM compiles. XLA's older emitter of such kernels
    and the first level of optimisation take half the time, and training and sampling
    are as fast (docs/results.md#compilation); at higher levels that emitter is slower.
    Other devices have their own defaults.

    >>> program = jax.jit(lambda x: x + 1, compiler_options=compiler_options())
    >>> int(program(1))
    2
    """
    if jax.default_backend() != "cpu":
        return {}
    return {
        "xla_backend_optimization_level": 1,
        "xla_cpu_use_fusion_emitters": False,
    }
