"""Tests of the store: shards, records, checksums that are kept."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from common.errors import RunError
from equijump.data import shards, store
from equijump.data.sources import ornstein_uhlenbeck

SYSTEM = ornstein_uhlenbeck._system()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "symphony-equijump" / "data" / "store-1"


def forget():
    """Makes this process a new one, as far as the store is concerned."""
    for known in (shards._indices, store._maps):
        known.clear()
    store._loaded.cache_clear()


def frames_of(seed, count=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 8, 3)).astype(np.float32)


def pack_one(seed, writer):
    for part in np.array_split(frames_of(seed), 2):
        writer.add(part)
    writer.end(SYSTEM, [store.Piece(f"run_{seed}", 2.0, conditions={"gap": 1.5})])


def get(seed):
    return store.entry(f"key-{seed}", lambda writer: pack_one(seed, writer))


def never(*_):
    raise AssertionError("packed again")


def check(seed):
    (found,) = store.entry(f"key-{seed}", never).trajectories
    np.testing.assert_array_equal(found.positions, frames_of(seed))
    assert (found.name, found.spacing) == (f"run_{seed}", 2.0)
    assert (found.conditions, found.times) == ({"gap": 1.5}, None)
    for ours, theirs in zip(found.system, SYSTEM, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_packed_is_found_by_another_process(folder):
    for seed in range(3):
        get(seed)
    forget()
    for seed in range(3):
        check(seed)
    assert sorted(p.suffix for p in folder.iterdir()) == [".log", ".pack"]


def test_one_system_is_kept_and_shared():
    one, other = get(1), get(2)
    assert one.trajectories[0].system is other.trajectories[0].system
    sizes = [x.positions.path.stat().st_size for x in (one.trajectories[0],)]
    forget()
    get(3)
    more = one.trajectories[0].positions.path.stat().st_size - sizes[0]
    assert more < 2 * frames_of(3).nbytes


def test_pieces_times_notes_and_what_is_skipped_come_back():
    times = np.array([0.0, 1.0, 5.0])

    def pack(writer):
        writer.add(frames_of(1))
        writer.end(
            SYSTEM,
            [
                store.Piece("a", 1.0, 0, 2),
                store.Piece("b", 2.5, 2, 5, times=times, conditions={"temperature": 9}),
            ],
        )
        writer.add(frames_of(2))
        writer.end(SYSTEM, [store.Piece("c", 3.0)])
        writer.notes.append("a ring")
        writer.skipped["empty"] += 2

    store.entry("key", pack)
    forget()
    found = store.entry("key", never)
    a, b, c = found.trajectories
    np.testing.assert_array_equal(a.positions[:], frames_of(1)[:2])
    np.testing.assert_array_equal(b.positions[:], frames_of(1)[2:])
    np.testing.assert_array_equal(c.positions[:], frames_of(2))
    np.testing.assert_array_equal(b.times, times)
    assert b.times.dtype == np.float64
    assert a.times is None
    assert b.conditions == {"temperature": 9}
    assert (found.notes, found.skipped) == (("a ring",), {"empty": 2})


def test_nothing_is_kept_of_what_cannot_be_packed():
    def fail(writer):
        writer.add(frames_of(9))
        raise ValueError("no molecule")

    get(1)
    with pytest.raises(ValueError, match="no molecule"):
        store.entry("key-9", fail)
    get(2)
    forget()
    check(1)
    check(2)
    with pytest.raises(AssertionError, match="packed again"):
        store.entry("key-9", never)


KILLED = """
import os, signal, sys
import numpy as np
from tests.equijump import test_data_store as t
from equijump.data import store
t.get(1)
def pack(writer):
    writer.add(t.frames_of(2, 1000))
    writer._shard._file.flush()
    if sys.argv[1] == "numbers":
        os.kill(os.getpid(), signal.SIGKILL)
    writer.end(t.SYSTEM, [store.Piece("x", 1.0)])
    log = writer._shard._log
    log.write(b"entry key-2 100")
    log.flush()
    os.kill(os.getpid(), signal.SIGKILL)
store.entry("key-2", pack)
"""


@pytest.mark.parametrize("where", ["numbers", "record"])
def test_a_writer_that_is_killed_loses_no_more_than_its_own(folder, where):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, where], cwd=Path(__file__).parents[2]
    )
    assert done.returncode == -signal.SIGKILL
    (pack,) = folder.glob("*.pack")
    size = pack.stat().st_size
    check(1)
    get(2)
    assert len(list(folder.glob("*.pack"))) == 1
    assert pack.stat().st_size < size
    forget()
    check(1)
    check(2)


def _write_many(numbers):
    for seed in numbers:
        get(seed)


def test_writers_at_once_do_not_disturb_each_other(folder):
    context = multiprocessing.get_context("fork")
    several = [
        context.Process(target=_write_many, args=(range(n, n + 20),))
        for n in (0, 10, 20)
    ]
    for process in several:
        process.start()
    for process in several:
        process.join()
    assert [process.exitcode for process in several] == [0, 0, 0]
    for seed in range(40):
        check(seed)
    assert len(list(folder.glob("*.pack"))) <= 3


def test_a_writer_takes_no_shard_that_another_has(folder):
    get(1)
    with shards.appending() as held:
        get(2)
        assert len(list(folder.glob("*.pack"))) == 2
        held.record("file", "x", {})
    forget()
    check(1)
    check(2)


def test_a_full_shard_takes_nothing_more(folder, monkeypatch):
    monkeypatch.setattr(shards, "MOST_BYTES", 500)
    for seed in range(3):
        get(seed)
    assert len(list(folder.glob("*.pack"))) == 3


@pytest.mark.parametrize("damage", ["lost", "cut", "garbage", "system"])
def test_a_damaged_shard_is_packed_anew(folder, damage):
    get(1)
    (pack,) = folder.glob("*.pack")
    log = pack.with_suffix(".log")
    if damage == "lost":
        pack.unlink()
    elif damage == "cut":
        os.truncate(pack, 100)
    elif damage == "garbage":
        log.write_bytes(bytes(200) + b"\n\xff\xff 3\nentry key-1 5 [\n")
    else:
        lines = log.read_bytes().splitlines(keepends=True)
        log.write_bytes(b"".join(x for x in lines if not x.startswith(b"system")))
    forget()
    get(1)
    for _ in range(2):
        forget()
        check(1)


def test_a_cache_that_cannot_be_written_is_read(folder, monkeypatch, tmp_path):
    get(1)
    forget()
    monkeypatch.setattr(shards.cache, "may", lambda *_: False)
    monkeypatch.setattr(shards.cache, "is_writable", lambda *_: False)
    check(1)


def test_a_full_disk_ends_in_one_line(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards.os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot be written .No space left.*XDG_CACHE"):
        get(1)


def age(path, seconds=100):
    """Changes the time of the last change to the past."""
    now = path.stat().st_mtime_ns - seconds * 10**9
    os.utime(path, ns=(now, now))


def test_an_unchanged_file_is_read_once(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"first")
    age(path)
    first = store.checksum_of(path)
    forget()
    monkeypatch.setattr(store.hashlib, "file_digest", never)
    assert store.checksum_of(path) == first
    monkeypatch.chdir(tmp_path)
    assert store.checksum_of(Path("file")) == first


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_file_that_changed_is_read_again(tmp_path, change):
    path = tmp_path / "file"
    path.write_bytes(b"first")
    age(path)
    first = store.checksum_of(path)
    path.write_bytes(b"later" if change == "time" else b"second")
    if change == "size":
        age(path)
    assert store.checksum_of(path) != first


def test_a_file_that_just_changed_is_not_remembered(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"first")
    assert time.time() - path.stat().st_mtime < store._SETTLED
    status = path.stat()
    first = store.checksum_of(path)
    path.write_bytes(b"other")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert store.checksum_of(path) != first
