"""How long a run takes to find its data, and what that holds: thousands of files.

    python -m benchmarks.store --folder=workdir/store

writes short trajectories of peptides as XTC with a PDB each, packs them in a first
process, and finds them again in further ones, the store once out of the page cache and
once in it. Needs the extra `dev`. Each process says its seconds, descriptors and
memory, before the data, with them, and after pairs of frames were drawn from all over.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from common.runs import config as configs

SPACING = 10.0  # ps
NUM_BATCHES, BATCH_SIZE = 300, 128
_PAGE = resource.getpagesize()


def make(folder: Path, num_systems: int, num_replicas: int, size: int) -> None:
    """Writes the trajectories of random sequences, unless they are there."""
    import mdtraj

    from equijump import md

    rng = np.random.default_rng(0)
    for number in range(num_systems):
        letters = "".join(rng.choice(list("ARNDCQEGHILKMFPSTWYV"), 12))
        pdb = folder / f"{number:04d}" / f"{letters}.pdb"
        if pdb.is_file():
            continue
        pdb.parent.mkdir(parents=True, exist_ok=True)
        text = md.build_peptide(letters, caps=False, start="extended")
        pdb.with_suffix(".tmp").write_text(text)
        start = mdtraj.load_pdb(str(pdb.with_suffix(".tmp")))
        for replica in range(num_replicas):
            shape = (size, start.n_atoms, 3)
            xyz = start.xyz + 0.003 * rng.normal(size=shape)  # nm
            times = SPACING * np.arange(size)
            path = pdb.with_name(f"{letters}_{replica}.xtc")
            mdtraj.Trajectory(xyz.astype(np.float32), start.topology, times).save(path)
        pdb.with_suffix(".tmp").rename(pdb)


def start(folder: Path) -> dict[str, Any]:
    """Reads all trajectories as training does, and draws pairs of their frames."""
    from equijump.data import sources

    data = configs.find("equijump", "ala2").get_config().data
    data.sources = (f"{folder}/*/*.xtc",)
    before = _held()
    wall, cpu = time.perf_counter(), time.process_time()
    found = list(sources.read(data))
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    with_data = _held()
    held = [with_data]
    for batch in range(NUM_BATCHES):
        _draw(found, np.random.default_rng(batch))
        if batch in (NUM_BATCHES // 2, NUM_BATCHES - 1):
            held.append(_held())
    return {
        "trajectories": len(found),
        "systems": len({id(one.system) for one in found}),
        "gigabytes": sum(np.prod(one.positions.shape) for one in found) * 4e-9,
        "wall seconds": seconds[0],
        "CPU seconds": seconds[1],
        "descriptors": max(count for count, _ in held),
        "MB before": before[1],
        "MB with data": with_data[1],
        "MB half way": held[1][1],
        "MB at the end": held[2][1],
    }


def _draw(found: list[Any], rng: np.random.Generator) -> None:
    for index in rng.integers(len(found), size=BATCH_SIZE):
        positions = found[index].positions
        first = int(rng.integers(len(positions) - 1))
        positions[np.array([first, first + 1])]


def _held() -> tuple[int, float]:
    """Returns the descriptors and the memory in MB that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(os.listdir("/proc/self/fd")), pages * _PAGE / 1e6


def _forget_pages(folder: Path) -> None:
    """Asks the system to drop what it keeps of the files of a folder in memory."""
    for path in folder.rglob("*.*"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _in_a_process(folder: Path, cache: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.store", f"--folder={folder}", "--read"]
    done = subprocess.run(
        command,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--systems", type=int, default=1_000)
    parser.add_argument("--replicas", type=int, default=10)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--read", action="store_true", help="of the processes within")
    flags = parser.parse_args()
    if flags.read:
        sys.stdout.write(json.dumps(start(flags.folder)))
        return
    make(flags.folder / "set", flags.systems, flags.replicas, flags.frames)
    cache = flags.folder / "cache"
    results = {"first, packs": _in_a_process(flags.folder / "set", cache)}
    _forget_pages(cache)
    results["later, not in memory"] = _in_a_process(flags.folder / "set", cache)
    results["later, in memory"] = _in_a_process(flags.folder / "set", cache)
    for name in next(iter(results.values())):
        row = "  ".join(f"{result[name]:>22,.4g}" for result in results.values())
        sys.stdout.write(f"{name:<16}  {row}\n")
    sys.stdout.write(f"{'':<16}  {'  '.join(f'{name:>22}' for name in results)}\n")


if __name__ == "__main__":
    main()
