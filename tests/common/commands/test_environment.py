"""Tests of what a command finds around it: settings, caches, devices, terminals."""

import io
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from common.commands import cli, environment
from common.errors import UsageError

ROOT = Path(__file__).resolve().parents[3]


def python(code, **variables):
    """Runs code in a fresh process with some variables; None takes one away."""
    merged = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={name: value for name, value in merged.items() if value is not None},
    )


SETTINGS = {
    "JAX_ENABLE_X64": "1",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_RANDOM_SEED_OFFSET": "7",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
}
DRAW = (
    "import sys\n"
    "from common.commands import cli, environment\n"
    "late = 'late' == sys.argv[-1] and __import__('jax')\n"
    "def main(argv):\n"
    "    import jax\n"
    "    print(jax.random.split(jax.random.key(1), 3), jax.random.normal("
    "jax.random.key(2), (5,)))\n"
    "sys.exit(cli.run('symphony sample', main, []))\n"
)


def test_settings_of_jax_do_not_change_what_a_command_draws():
    plain = python(DRAW)
    assert plain.returncode == 0
    assert python(DRAW, **SETTINGS).stdout == plain.stdout
    late = DRAW.replace("'late' == sys.argv[-1] and ", "")  # JAX has read them already.
    assert python(late, **SETTINGS).stdout == plain.stdout


def test_calls_from_python_draw_the_same_and_leave_the_callers_settings():
    def draws():
        while True:
            yield jax.random.normal(jax.random.key(3), (4,)).tolist()

    expected = next(draws())
    items = environment.step_by_step(draws())
    with (
        jax.enable_x64(True),
        jax.threefry_partitionable(False),
        jax.default_prng_impl("rbg"),
    ):
        assert next(draws()) != expected
        assert next(items) == expected
        assert jax.numpy.zeros(1).dtype == "float64"
        assert next(items) == expected


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("cuda", "expected a CUDA device and pip install 'jax[cuda12]'"),
        ("gpu", "expected a GPU device and pip install"),
        ("tpu", "expected a TPU device"),
        ("nonsense", "expected a NONSENSE device"),
    ],
)
def test_a_platform_that_is_not_there_is_one_line(asked, told, capfd, monkeypatch):
    def fail():
        raise AssertionError

    monkeypatch.setenv("JAX_PLATFORMS", asked)
    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setattr(environment, "_platforms", lambda: ["cpu"])
    assert cli.run("symphony sample", lambda argv: cli.check_platform(), []) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"symphony sample: JAX_PLATFORMS={asked}: {told}")
    assert "found the platforms cpu; unset it" in err
    assert err.count("\n") == 1


def test_the_platforms_that_there_are_are_found():
    code = (
        "from symphony.cli import main\n"
        "raise SystemExit(main(['score', '--molecules=a.sdf']))"
    )
    done = python(code, JAX_PLATFORMS="nonsense")
    assert done.returncode == 2
    assert "found the platforms cpu" in done.stderr
    assert done.stderr.count("\n") == 1


def test_flags_that_xla_does_not_know_are_told(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--rubbish")
    environment._check_xla_flags.cache_clear()
    with pytest.raises(UsageError, match=r"XLA_FLAGS: .* --rubbish; correct it, or"):
        environment.check_platform()


def test_flags_that_xla_knows_are_taken(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    monkeypatch.setattr(environment.subprocess, "run", None)  # No child is needed.
    environment._check_xla_flags.cache_clear()
    environment.check_platform()


NO_HOME = (
    "import pathlib, os, sys\n"
    "def home(): raise RuntimeError('Could not determine home directory.')\n"
    "pathlib.Path.home = home\n"
    "os.path.expanduser = lambda path: path\n"
    "from common.commands import cli\n"
    "def main(argv):\n"
    "    from common.runs.cache import cache_folder\n"
    "    folder = cache_folder('a/b.json')\n"
    "    (folder / 'x').mkdir(parents=True)\n"
    "    assert cache_folder() == folder\n"
    "    print(folder)\n"
    "sys.exit(cli.run('symphony sample', main, []))\n"
)


def test_without_a_home_folder_there_is_a_warning_for_each_cache(tmp_path):
    unset = {"HOME": None, "XDG_CACHE_HOME": None, "JAX_COMPILATION_CACHE_DIR": None}
    done = python(NO_HOME, **unset)
    assert done.returncode == 0, done.stderr
    assert "compiled programs are not kept: there is no home folder" in done.stderr
    assert "kept for this command only; set XDG_CACHE_HOME" in done.stderr
    assert done.stderr.count("\n") == 2
    assert not Path(done.stdout.strip()).exists()  # It went with the process.


def test_a_home_is_not_asked_for_where_the_caches_are_set(tmp_path):
    given = {
        "HOME": None,
        "XDG_CACHE_HOME": str(tmp_path),
        "JAX_COMPILATION_CACHE_DIR": None,
    }
    done = python(NO_HOME, **given)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)


def test_a_compilation_cache_that_cannot_be_written_is_left_out(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    code = (
        "from common.commands import cli; cli.use_compilation_cache()\n"
        "cli.use_compilation_cache(); import jax\n"
        "print(jax.config.jax_enable_compilation_cache)"
    )
    folder = str(tmp_path / "file" / "jax")
    done = python(code, JAX_COMPILATION_CACHE_DIR=folder)
    assert done.stdout == "False\n"
    assert f"{folder} is not writable" in done.stderr
    assert done.stderr.count("\n") == 1


def test_matplotlib_gets_a_folder_where_it_has_none(monkeypatch, tmp_path):
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    environment.prepare_matplotlib()
    assert os.environ["MPLCONFIGDIR"] == str(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "file"))
    environment.prepare_matplotlib()
    assert Path(os.environ["MPLCONFIGDIR"]).is_dir()


def test_letters_that_a_terminal_lacks_are_spelt_or_replaced(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    environment.prepare_streams()
    terminal.write("92.5 ± 0.1 %, 1.5 Å, √JS – 鳥 \udcff")
    terminal.flush()
    assert terminal.buffer.getvalue() == b"92.5 +- 0.1 %, 1.5 A, sqrt JS - ? ?"


@pytest.mark.parametrize("program", ["symphony", "equijump"])
def test_a_working_folder_hides_no_module(program, tmp_path):
    for name in ("random", "numbers", "common"):
        (tmp_path / f"{name}.py").write_text("print('mine'); raise ImportError\n")
    command = [sys.executable, "-m", f"{program}.cli", "--version"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{program} ")


def test_a_home_sign_is_expanded_in_flags_and_configs(monkeypatch, tmp_path):
    from common.commands import training

    monkeypatch.setenv("HOME", str(tmp_path))
    parser = cli.argument_parser("symphony sample", "Builds molecules.")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--start", nargs="+")
    given = parser.parse_args(["--output=~/a.sdf", "--start", "~/*.pdb", "b.pdb"])
    assert given.output == tmp_path / "a.sdf"
    assert given.start == [f"{tmp_path}/*.pdb", "b.pdb"]
    (tmp_path / "mine.py").write_text(
        "import ml_collections\n"
        "def get_config():\n"
        "    data = {'path': '~/a.sdf', 'topology': '~/a.pdb',\n"
        "            'sources': ('~/*.xtc', 'ala2', 'files:~/b.xtc')}\n"
        "    train = {'start_from': '~/run', 'num_devices': 1}\n"
        "    return ml_collections.ConfigDict({'data': data, 'train': train})\n"
    )
    found = {}
    argv = ["--config=~/mine.py", "--workdir=~/run"]
    keep = lambda config, workdir: found.update(workdir=workdir, config=config)
    check = lambda config: None
    assert training.run("equijump train", "", check, keep, argv) == 0
    assert found["workdir"] == tmp_path / "run"
    data = found["config"].data
    assert (data.path, data.topology) == (f"{tmp_path}/a.sdf", f"{tmp_path}/a.pdb")
    assert data.sources == (f"{tmp_path}/*.xtc", "ala2", f"files:{tmp_path}/b.xtc")
    assert found["config"].train.start_from == f"{tmp_path}/run"


def test_a_home_sign_without_a_home_is_bad_usage(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    parser = cli.argument_parser("symphony sample", "Builds molecules.")
    parser.add_argument("--output")
    with pytest.raises(UsageError, match="expected a home folder for ~"):
        parser.parse_args(["--output=~/a.sdf"])


def test_a_setting_that_jax_does_not_know_is_bad_usage():
    code = (
        "from symphony.cli import main\n"
        "raise SystemExit(main(['score', '--molecules=a.sdf']))"
    )
    done = python(code, JAX_DEFAULT_MATMUL_PRECISION="nonsense")
    assert done.returncode == 2
    assert "expected settings in JAX_... that JAX knows, found" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_child_finds_our_code_and_nothing_in_the_working_folder(
    monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f":{tmp_path}:/else:.")
    assert environment.of_child()["PYTHONPATH"] == f"{ROOT}:/else"
    monkeypatch.delenv("PYTHONPATH")
    assert environment.of_child()["PYTHONPATH"] == str(ROOT)
