"""Timing of contestants against each other in one process.

Times are CPU seconds of the process and of programs that it ran, taken in turns, and
compared as ratios within a round, so that a load on the machine which comes and goes
falls on every contestant alike.
"""

import platform
import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float


class Timing(NamedTuple):
    """CPU seconds of every round, by contestant, and how many calls a round makes."""

    seconds: dict[str, Float[np.ndarray, " rounds"]]
    calls: int


def block(function: Callable[..., Any], *arguments: Any) -> Callable[[], None]:
    """Makes a contestant: calls a function and waits for its arrays."""

    def call() -> None:
        jax.block_until_ready(function(*arguments))

    return call


def cpu_seconds(call: Callable[[], Any], repeats: int = 1) -> float:
    """Returns the CPU seconds per call, all threads together, and of its programs."""
    start = _clock()
    for _ in range(repeats):
        call()
    return (_clock() - start) / repeats


def _clock() -> float:
    """Returns the CPU seconds of this process and of programs that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def interleaved(
    contestants: Mapping[str, Callable[[], Any]], rounds: int = 8, calls: int = 1
) -> Timing:
    """Times contestants in turns, after one call of each that is not counted.

    Args:
        contestants: functions without arguments that return when their work is done.
        rounds: number of rounds; the order is reversed in every second one.
        calls: calls of each contestant in a round.
    """
    for call in contestants.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for index in range(rounds):
        for name in list(contestants)[:: 1 if index % 2 == 0 else -1]:
            seconds[name].append(cpu_seconds(contestants[name], calls))
    return Timing({name: np.array(times) for name, times in seconds.items()}, calls)


def ratio(timing: Timing, reference: str, name: str) -> dict[str, float]:
    """Returns how many times less CPU time `name` took than `reference`.

    The median over rounds of the ratio within a round, and its 10th and 90th
    percentile.
    """
    ratios = timing.seconds[reference] / timing.seconds[name]
    low, median, high = np.percentile(ratios, [10, 50, 90])
    return {"median": float(median), "p10": float(low), "p90": float(high)}


def temporary_bytes(function: Callable[..., Any], *arguments: Any) -> int:
    """Returns the temporary memory of a compiled function, by XLA's own analysis."""
    compiled = jax.jit(function).lower(*arguments).compile()
    return int(compiled.memory_analysis().temp_size_in_bytes)


def matmul_gigaflops(size: int = 2048, rounds: int = 5) -> float:
    """Returns a machine's yardstick: its rate per CPU second of a matrix product."""
    matrix = jax.random.normal(jax.random.key(0), (size, size), jnp.float32)
    product = block(jax.jit(jnp.matmul), matrix, matrix)
    seconds = interleaved({"matmul": product}, rounds).seconds["matmul"]
    return 2e-9 * size**3 / float(np.median(seconds))


def machine() -> dict[str, Any]:
    """Describes where a benchmark ran: processor, devices and versions."""
    processor = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        names = [line.split(":")[1] for line in lines if line.startswith("model name")]
        processor = names[0].strip() if names else processor
    packages = ("jax", "jaxlib", "flax", "e3nn-jax", "numpy")
    return {
        "processor": processor,
        "devices": [
            kind if count == 1 else f"{count} x {kind}"
            for kind, count in Counter(d.device_kind for d in jax.devices()).items()
        ],
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
    }
