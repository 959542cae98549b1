"""Programs that people wait for: what XLA is told, and what is kept between starts.

JAX keeps the machine code of programs; tracing them again takes as long as drawing some
molecules. `kept` keeps the traced program too, as the StableHLO that `jax.export`
writes. Its name is a digest of all that decides it, our own code among it.
"""

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = "common", "symphony", "equijump"
_DIGEST_SIZE = hashlib.sha256().digest_size


LEVEL = {"xla_backend_optimization_level": 1}
"""The first of these options alone, for scores: the older emitter rounds otherwise."""

QUICK = dict(LEVEL)
if jax.__version_info__ < (0, 11):  # Later versions have no older emitter.
    QUICK["xla_cpu_use_fusion_emitters"] = False
"""Options of XLA for a CPU, see `compiler_options`."""


def compiler_options() -> dict[str, Any]:
    """Returns options of `jax.jit` for large programs: on a CPU, half the compilation.

    Each fused loop is a kernel that LLVM compiles. XLA's older emitter of such kernels
    and the first level of optimisation take half the time. Sampling is as fast, a
    gradient 6 % slower (docs/results.md#waiting-for-compilers); at higher levels that
    emitter is slower. Other devices have their own defaults.

    >>> program = jax.jit(lambda x: x + 1, compiler_options=compiler_options())
    >>> int(program(1))
    2
    """
    return dict(QUICK) if jax.default_backend() == "cpu" else {}


def run_once(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what a function gives, by a program that is compiled for one call.

    On a CPU it is compiled without optimisation. While something else is traced, the
    function is a part of that.

    >>> int(run_once(lambda x: x + 1, jax.numpy.array(1)))
    2

    Args:
        function: function of arrays.
        arguments: its arguments.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments)):
        return function(*arguments)
    options = compiler_options()
    options |= {name: 0 for name in options if name.endswith("_level")}
    return jax.jit(function, compiler_options=options)(*arguments)


def kept(
    function: Callable[..., Any],
    name: str | None,
    like: Callable[..., Any],
    donates: Sequence[int] = (),
    quick: bool = True,
) -> Callable[..., Any]:
    """Returns a compiled function, whose program is read where an earlier process ran.

    Programs are in `programs` in the folder of JAX's compilation cache, and are not
    kept where there is none. A file that cannot be used is written anew.

    >>> first = lambda total, x: total
    >>> add = kept(lambda total, x: total + x, "an example", like=first)
    >>> float(add(jax.numpy.array(1.0), jax.numpy.array(2.0)))
    3.0

    Args:
        function: function of trees of arrays, without keys of random numbers.
        name: what decides the program beside our code and the shapes of the arguments:
            see `digest`; None to keep nothing.
        like: function of the same arguments to a tree of the structure of the result.
        donates: numbers of the arguments whose buffers the result may take.
        quick: true for `compiler_options`, false for those of JAX.
    """
    programs: dict[str, Callable[..., Any]] = {}

    def call(*arguments: Any) -> Any:
        leaves, structure = jax.tree.flatten(arguments)
        shapes = str([(jax.numpy.shape(x), jax.numpy.result_type(x)) for x in leaves])
        known = f"{structure} {shapes}"
        if known not in programs:
            flat = _flat(function, structure)
            donated = _numbers_of(arguments, donates)
            program = _read_or_export(flat, name and f"{name} {known}", leaves)
            # Compiled for these shapes, whatever the sharding is called: results of
            # an exported program have one of their own, and would compile it again.
            programs[known] = (
                jax.jit(program, donate_argnums=donated)
                .lower(*leaves)
                .compile(compiler_options() if quick else None)
            )
        results = programs[known](*leaves)
        return jax.tree.unflatten(jax.tree.structure(like(*arguments)), results)

    return call


def digest(*parts: Any) -> str:
    """Returns a digest of trees of arrays, and of what else they hold by its `repr`.

    >>> digest(jax.numpy.ones(2), "euler") == digest(jax.numpy.ones(2), "euler")
    True
    >>> digest(jax.numpy.ones(2)) == digest(jax.numpy.zeros(2))
    False
    """
    known = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(parts)[0]:
        known.update(f"{jax.tree_util.keystr(path)}: ".encode())
        if isinstance(leaf, jax.Array | np.ndarray):
            known.update(f"{leaf.shape} {leaf.dtype} ".encode())
            known.update(np.asarray(leaf).tobytes())
        else:
            known.update(repr(leaf).encode())
    return known.hexdigest()


def _flat(function: Callable[..., Any], structure: Any) -> Callable[..., list[Any]]:
    """Returns a function of leaves that lists the leaves of the result."""
    return lambda *leaves: jax.tree.leaves(
        function(*jax.tree.unflatten(structure, leaves))
    )


def _numbers_of(arguments: Sequence[Any], chosen: Sequence[int]) -> tuple[int, ...]:
    """Returns the numbers of the leaves of some arguments among those of all."""
    counts = [len(jax.tree.leaves(argument)) for argument in arguments]
    starts = [sum(counts[:number]) for number in range(len(counts))]
    return tuple(starts[n] + k for n in chosen for k in range(counts[n]))


def _read_or_export(
    function: Callable[..., Any], name: str | None, leaves: Sequence[Any]
) -> Callable[..., Any]:
    """Returns a function that was exported, now or by an earlier process."""
    path = None if name is None else _path_of(name)
    if path is None:
        return function
    content = _read(path)
    if content is not None:
        return jax.export.deserialize(bytearray(content)).call
    exported = jax.export.export(jax.jit(function))(*leaves)
    _write(path, bytes(exported.serialize()))
    return exported.call


def _path_of(name: str) -> Path | None:
    """Returns the file of a program; None where programs are not kept."""
    folder = jax.config.jax_compilation_cache_dir
    if not folder or "://" in folder or not jax.config.jax_enable_compilation_cache:
        return None
    settings = jax.default_backend(), jax.__version__, os.environ.get("XLA_FLAGS")
    precision = jax.config.jax_default_matmul_precision
    known = f"{name} {settings} {precision} {_digest_of_code()}"
    return Path(folder, "programs", hashlib.sha256(known.encode()).hexdigest())


@functools.cache
def _digest_of_code() -> str:
    """Returns a digest of the modules of this project."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((_ROOT / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> bytes | None:
    """Returns what was written to a file; None where it is not there, or not whole."""
    try:
        found = path.read_bytes()
    except OSError:
        return None
    head, content = found[:_DIGEST_SIZE], found[_DIGEST_SIZE:]
    return content if head == hashlib.sha256(content).digest() else None


def _write(path: Path, content: bytes) -> None:
    """Writes a file behind a digest of it; or nothing, where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(hashlib.sha256(content).digest() + content)
        os.replace(file.name, path)
    except OSError as error:
        logging.info("%s is not kept: %s", path, error)
