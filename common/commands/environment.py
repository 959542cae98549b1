"""What a command finds around it: settings of JAX, caches, devices, the terminal.

JAX is imported here only where a function needs it.
"""

import codecs
import contextlib
import functools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from common.errors import UsageError
from common.folders import user_folder
from common.runs import cache

PINNED: dict[str, Any] = {
    "jax_enable_x64": False,
    "jax_threefry_partitionable": True,
    "jax_default_prng_impl": "threefry2x32",
    "jax_random_seed_offset": 0,
    "jax_enable_custom_prng": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
}
"""Settings of JAX that would change what a seed gives, or make programs fail."""

_ROOT = Path(__file__).resolve().parents[2]
_KNOWN_FLAGS = re.compile(r"(\s*--xla_force_host_platform_device_count=\d+)*\s*")
_EXTRAS = {"cuda": "cuda12", "gpu": "cuda12"}
_PLAIN = {
    "Å": "A", "±": "+-", "–": "-", "−": "-", "√": "sqrt ", "×": "x", "µ": "u",
    "²": "^2", "³": "^3", "…": "...",
}  # fmt: skip


def prepare_streams() -> None:
    """Lets no letter fail to be written, whatever the terminal's encoding.

    >>> prepare_streams()
    """
    codecs.register_error("symphony-equijump", _in_plain_letters)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # It was closed by who started the command.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="symphony-equijump")


def _in_plain_letters(error: UnicodeError) -> tuple[str, int]:
    """Returns what stands for letters that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter, "?") for letter in letters), error.end


def of_child() -> dict[str, str]:
    """Returns the environment of a child process that runs code of ours by `python -P`.

    It finds modules in our folder and in what the user has set, not in the working
    folder, where a file may have the name of a module.

    >>> of_child()["PYTHONPATH"].startswith(str(_ROOT))
    True
    """
    own = [] if _ROOT.name.endswith("-packages") else [str(_ROOT)]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    here = os.getcwd()
    given = [path for path in given if path and os.path.abspath(path) != here]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(own + given)}


def use_compilation_cache() -> None:
    """Keeps compiled programs between processes, so that a second start is warm.

    The folder is `JAX_COMPILATION_CACHE_DIR`, or `symphony-equijump/jax` in the user's
    cache folder. A setting found in the environment stays. Where the folder cannot be
    written, there is no cache, and a warning tells so.

    >>> use_compilation_cache()
    >>> "JAX_COMPILATION_CACHE_DIR" in os.environ
    True
    """
    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    ours = None if given else user_folder()
    folder = given or (None if ours is None else str(ours / "jax"))
    if folder is None or ("://" not in folder and not cache.is_writable(Path(folder))):
        if os.environ.get("JAX_ENABLE_COMPILATION_CACHE") != "false":
            logging.warning(
                "compiled programs are not kept: %s; set JAX_COMPILATION_CACHE_DIR to "
                "a folder of yours",
                "there is no home folder" if folder is None else f"{folder} is not "
                "writable",
            )  # fmt: skip
        _set({"jax_enable_compilation_cache": False})
        return
    defaults = {
        "jax_compilation_cache_dir": folder,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    _set({k: v for k, v in defaults.items() if k.upper() not in os.environ})


def pin_jax() -> None:
    """Sets what else would change the results of a seed, whatever the environment says.

    >>> pin_jax()
    >>> os.environ["JAX_ENABLE_X64"]
    'false'
    """
    _set(PINNED)


def _set(values: Mapping[str, Any]) -> None:
    """Sets values of JAX in the environment, and in JAX if it has read that already."""
    for name, value in values.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        os.environ[name.upper()] = text
        if "jax" in sys.modules and hasattr(sys.modules["jax"].config, name):
            sys.modules["jax"].config.update(name, value)


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Sets the same in this thread as long as the block runs: for calls from Python.

    >>> import jax
    >>> with pinned():
    ...     print(jax.numpy.asarray([0.1]).dtype)
    float32
    """
    import jax

    names = (name.removeprefix("jax_") for name in PINNED)
    with contextlib.ExitStack() as stack:
        for name in names:
            context = getattr(jax, name, None)
            if context is not None:
                stack.enter_context(context(PINNED[f"jax_{name}"]))
        yield


def step_by_step(items: Iterator[Any]) -> Iterator[Any]:
    """Yields items, each of which is computed under `pinned`; the caller's code is not.

    >>> list(step_by_step(iter([1, 2])))
    [1, 2]
    """
    while True:
        with pinned():
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


def check_platform() -> None:
    """Raises `UsageError` if the device that `JAX_PLATFORMS` asks for is not there.

    >>> check_platform()
    """
    import jax

    _check_xla_flags()
    names = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME")
    name = next((name for name in names if os.environ.get(name)), names[0])
    asked = os.environ.get(name) or jax.config.jax_platforms
    try:
        jax.devices()
    except Exception as error:  # Of any kind: an assertion, a RuntimeError.
        if not asked:
            raise
        extra = next((e for n, e in _EXTRAS.items() if n in asked.split(",")), None)
        install = f" and pip install 'jax[{extra}]'" if extra else ""
        raise UsageError(
            f"{name}={asked}: expected a {asked.upper()} device{install}, found "
            f"the platforms {', '.join(_platforms())}; unset it to use what is "
            "there"
        ) from error


@functools.cache
def _check_xla_flags() -> None:
    """Raises `UsageError` for `XLA_FLAGS` at which XLA would end the process.

    A child process asks it, unless they only say how many devices a CPU shall be.
    """
    if _KNOWN_FLAGS.fullmatch(os.environ.get("XLA_FLAGS", "")):
        return
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import jax; jax.devices()"],
        env={**of_child(), "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode:
        fault = next((line for line in told if "flag" in line.lower()), "others")
        raise UsageError(
            "XLA_FLAGS: expected flags that XLA knows, found "
            f"{fault.rpartition('] ')[2].strip()[:200]}; correct it, or unset it"
        )


def _platforms() -> list[str]:
    """Returns the platforms that there are; restores the setting."""
    import jax

    before = jax.config.jax_platforms
    try:
        jax.config.update("jax_platforms", "cpu")
        return sorted({device.platform for device in jax.devices("cpu")})
    except RuntimeError:
        return ["none"]
    finally:
        jax.config.update("jax_platforms", before)


def announce_device() -> str:
    """Prints the devices in use and returns the line; starts JAX's backend.

    >>> line = announce_device()  # doctest: +ELLIPSIS
    device: ...
    """
    import jax

    check_platform()
    devices = jax.devices()
    kind = devices[0].device_kind
    line = f"device: {len(devices)} x {devices[0].platform} ({kind})"
    if devices[0].platform == "cpu":
        line = f"device: {len(devices)} x cpu ({os.cpu_count()} cores)"
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    return line


def prepare_matplotlib() -> None:
    """Gives Matplotlib a folder of its own where it would find none and complain.

    >>> prepare_matplotlib()
    """
    given = os.environ.get("MPLCONFIGDIR")
    home = os.path.expanduser("~")  # The sign itself where there is no home folder.
    names = {"XDG_CONFIG_HOME": f"{home}/.config", "XDG_CACHE_HOME": f"{home}/.cache"}
    bases = [given] if given else [os.environ.get(n) or d for n, d in names.items()]
    folders = [Path(base, "" if given else "matplotlib") for base in bases]
    if all(map(cache.is_writable, folders)) and "~" not in bases[0]:
        return
    _kept.append(tempfile.TemporaryDirectory(prefix="matplotlib-"))
    os.environ["MPLCONFIGDIR"] = _kept[-1].name


_kept: list[tempfile.TemporaryDirectory] = []
"""Temporary folders, which are removed when the process ends."""
