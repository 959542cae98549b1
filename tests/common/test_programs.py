"""Programs that are kept between processes: what is kept, and when it is not used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import programs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of programs of a compilation cache that begins empty."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path / "programs"
    jax.config.update("jax_compilation_cache_dir", before)


class Counted:
    """A sum of trees that counts how often it is traced."""

    def __init__(self):
        self.traces = 0

    def __call__(self, total, more):
        self.traces += 1
        return {"a": total["a"] + more, "b": total["b"] * more}


TOTAL = {"a": np.ones(3, np.float32), "b": np.float32(2.0)}


def program(function, name="sums"):
    return programs.kept(function, name, like=lambda total, more: total)


def check(result, more):
    np.testing.assert_allclose(result["a"], 1.0 + more)
    np.testing.assert_allclose(result["b"], 2.0 * more)


def test_a_second_process_does_not_trace(folder):
    first, second = Counted(), Counted()
    check(program(first)(TOTAL, np.float32(3.0)), 3.0)
    again = program(second)
    for more in (3.0, 5.0):
        check(again(TOTAL, np.float32(more)), more)
    assert (first.traces, second.traces) == (1, 0)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("change", ["name", "shape", "code", "flags"])
def test_whatever_decides_a_program_is_in_its_name(folder, change, monkeypatch):
    program(Counted())(TOTAL, np.float32(3.0))
    again, total, name = Counted(), TOTAL, "sums"
    if change == "name":
        name = "other sums"
    elif change == "shape":
        total = TOTAL | {"a": np.ones(4, np.float32)}
    elif change == "code":
        monkeypatch.setattr(programs, "_digest_of_code", lambda: "newer")
    else:
        monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    check(program(again, name)(total, np.float32(3.0)), 3.0)
    assert again.traces == 1
    assert len(list(folder.iterdir())) == 2


def test_a_broken_file_is_written_anew(folder):
    program(Counted())(TOTAL, np.float32(3.0))
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    flipped = whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]
    for broken in (b"", b"no program", whole[: len(whole) // 2], flipped):
        path.write_bytes(broken)
        for traces in (1, 0):
            again = Counted()
            check(program(again)(TOTAL, np.float32(3.0)), 3.0)
            assert again.traces == traces


@pytest.mark.parametrize("where", ["", "gs://bucket/cache", "a file"])
def test_nothing_is_kept_where_there_is_no_folder(folder, where, tmp_path):
    if where == "a file":
        where = str(tmp_path / "file")
        (tmp_path / "file").write_text("")
    jax.config.update("jax_compilation_cache_dir", where or None)
    check(program(Counted())(TOTAL, np.float32(3.0)), 3.0)
    assert not folder.exists()


def test_a_function_without_a_name_is_not_kept(folder):
    check(program(Counted(), None)(TOTAL, np.float32(3.0)), 3.0)
    assert not folder.exists()


def test_donated_buffers_are_those_of_the_chosen_argument():
    add = programs.kept(
        lambda x, total: total + x, None, like=lambda x, total: total, donates=(1,)
    )
    x, total = jnp.ones(4), jnp.zeros(4)
    np.testing.assert_array_equal(add(x, total), 1.0)
    assert total.is_deleted()
    assert not x.is_deleted()


def test_a_digest_tells_values_shapes_and_types_apart():
    trees = [
        {"x": np.zeros(2)}, {"x": np.ones(2)}, {"x": np.zeros((2, 1))},
        {"x": np.zeros(2, np.float32)}, {"x": 0.0}, {"x": "0.0"}, {"y": np.zeros(2)},
    ]  # fmt: skip
    digests = [programs.digest(tree) for tree in trees]
    assert len(set(digests)) == len(trees)
    assert programs.digest({"x": np.zeros(2)}) == digests[0]


def test_a_function_is_run_once_or_traced_where_tracing_is_under_way():
    double = lambda x: 2.0 * x
    assert float(programs.run_once(double, jnp.float32(3.0))) == 6.0
    shape = jax.eval_shape(lambda x: programs.run_once(double, x), jnp.ones(3))
    assert shape.shape == (3,)
