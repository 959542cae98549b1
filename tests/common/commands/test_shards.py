"""Tests of the parts of a run: their arithmetic, their names, and what is refused."""

import argparse
import itertools
from pathlib import Path

import pytest

from common.commands import shards
from common.commands.shards import Shard
from common.errors import UsageError


@pytest.mark.parametrize("unit", [1, 32])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("total", [7 * 32, 7 * 32 + 5, 1000])
def test_parts_follow_one_another_and_are_of_one_size(total, count, unit):
    parts = [shards.span(Shard(index, count), total, unit) for index in range(count)]
    assert [*itertools.chain(*parts)] == [*range(total)]
    assert all(part.start % unit == 0 for part in parts)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) < 2 * unit
    assert min(sizes) > 0


def test_without_a_flag_a_part_is_the_whole():
    assert shards.read(None) is None
    assert shards.span(None, 5, 32) == range(5)
    assert shards.path_of(Path("a.sdf"), None) == Path("a.sdf")
    assert shards.describe(None, range(5), 5) == {}


@pytest.mark.parametrize(
    "text", ["", "4/4", "-1/4", "0/0", "1", "a/b", "0/4/5", " 0/4", "٣/4", "1.0/4"]
)
def test_what_is_no_part_is_refused(text):
    with pytest.raises(
        UsageError, match=r"--shard: expected i/n .* 0 to n - 1"
    ) as info:
        shards.read(text)
    assert repr(text) in str(info.value)


def test_more_parts_than_pieces_are_refused():
    assert len(shards.span(Shard(2, 3), 3)) == 1
    with pytest.raises(UsageError, match="at most 3 parts of 3 replicas, found 4"):
        shards.span(Shard(0, 4), 3, what="replicas")
    with pytest.raises(UsageError, match=r"at most 2 parts of 40 .* 32 stay together"):
        shards.span(Shard(0, 3), 40, unit=32)


def test_a_flag_that_needs_all_parts_is_refused_beside_a_part():
    flags = argparse.Namespace(shard="0/4", best=3, diverse=False)
    with pytest.raises(UsageError, match=r"--best: .* no --shard .* found 0/4; merge"):
        shards.refuse(flags, ("diverse", "best"), "merge takes it")
    shards.refuse(flags, ("diverse",), "merge takes it")
    flags.shard = None
    shards.refuse(flags, ("diverse", "best"), "merge takes it")


@pytest.mark.parametrize("path", [".", "..", "a/.."])
def test_an_output_without_a_name_has_no_parts(path):
    with pytest.raises(UsageError, match="with a name of its own, found"):
        shards.path_of(Path(path), Shard(0, 2))
    with pytest.raises(UsageError, match="with a name of its own, found"):
        shards.find(Path(path))


def touch(folder, *names):
    for name in names:
        (folder / name).touch()
    return folder / "out.sdf"


def test_parts_are_found_in_their_order_by_the_name_of_the_whole(tmp_path):
    names = [f"out.{index}-of-11.sdf" for index in range(11)]
    path = touch(tmp_path, *names, "out.sdf", "out.x-of-2.sdf", "outer.0-of-2.sdf")
    assert [found.name for found in shards.find(path)] == names
    assert shards.find(tmp_path / "none" / "out.sdf") == []
    with pytest.raises(UsageError, match=r"in.sdf: .* as in.0-of-4.sdf, found none"):
        shards.found(tmp_path / "in.sdf")


def test_missing_parts_are_named(tmp_path):
    path = touch(tmp_path, "out.1-of-4.sdf", "out.2-of-4.sdf")
    told = "4 parts .* found 2; missing: out.0-of-4.sdf, out.3-of-4.sdf"
    with pytest.raises(UsageError, match=told):
        shards.find(path)


def test_parts_of_two_numbers_are_refused(tmp_path):
    path = touch(tmp_path, "out.0-of-1.sdf", "out.0-of-2.sdf", "out.1-of-2.sdf")
    with pytest.raises(UsageError, match="found parts of 1 and 2; move those"):
        shards.find(path)


def headers():
    parts = [shards.span(Shard(index, 3), 10) for index in range(3)]
    return [
        {"seed": 1, "name": index, "settings": {"lag": 5}}
        | shards.describe(Shard(index, 3), part, 10)
        for index, part in enumerate(parts)
    ]


PATHS = [Path(f"out.{index}-of-3.sdf") for index in range(3)]


def test_parts_of_one_run_differ_in_what_they_may_alone():
    shards.check(PATHS, headers(), frozenset({"name"}))
    with pytest.raises(UsageError, match=r"out.1-of-3.sdf: .*name = 0, found 1"):
        shards.check(PATHS, headers())


@pytest.mark.parametrize(
    ("place", "change", "told"),
    [
        (1, {"seed": 2}, "seed = 1, found 2"),
        (2, {"settings": {"lag": 6}}, "lag = 5, found 6"),
        (2, {"more": 1}, "more = None, found 1"),
        (1, {"shard": {"count": 4}}, "count = 3, found 4"),
        (2, {"shard": {"total": 11}}, "total = 10, found 11"),
        (1, {"shard": {"first": 3}}, "first = 4, found 3"),
        (2, {"shard": {"end": 9}}, "end = 10, found 9"),
        (0, {"shard": {"end": "4"}}, "a part of a run, found none"),
    ],
)
def test_parts_of_another_run_are_named(place, change, told):
    parts = headers()
    for name, value in change.items():
        own = parts[place].get(name)
        parts[place][name] = own | value if isinstance(own, dict) else value
    with pytest.raises(UsageError, match=f"{PATHS[place].name}: .*{told}"):
        shards.check(PATHS, parts, frozenset({"name"}))


def test_a_whole_run_is_no_part():
    parts = headers()
    del parts[0]["shard"]
    with pytest.raises(UsageError, match=r"out.0-of-3.sdf: expected a part of a run"):
        shards.check(PATHS, parts)
