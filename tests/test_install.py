"""The wheel and the sdist: what they hold, and what they do where they are installed.

The environments have no network: other packages are those of the tests' own.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

import common
from symphony.core import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("common", "symphony", "equijump")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
NEEDED = {
    "common/py.typed", "common/pages/3dmol/3Dmol-min.js", "common/pages/molecules.js",
    "common/nn/products/plan.json", "symphony/py.typed", "equijump/py.typed",
    "symphony/packaged/qm9_sample.npz", "symphony/view/grid.css",
    "equijump/packaged/ala2_300K.pdb", "equijump/view/view.js",
}  # fmt: skip
FOREIGN = "raise RuntimeError('this is the file of somebody else')\n"
EXAMPLE = re.compile(r"## From Python\n+```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Returns the wheel and the sdist, built without a network."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-P", "-m", "hatchling", "build", "-d", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def bin_folder(built, tmp_path_factory):
    """Returns the folder of commands of an environment that has the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    has_uv = shutil.which("uv") is not None
    venv.create(folder, with_pip=not has_uv, symlinks=True)
    python = folder / "bin" / "python"
    given = ["--no-deps", "--no-index", built[0]]
    uv = ["uv", "pip", "install", "--offline", "--python", python]
    pip = [python, "-m", "pip", "install"]
    subprocess.run([*(uv if has_uv else pip), *given], check=True, capture_output=True)
    # The tests' own packages come behind; links of editable ones there do not count.
    paths = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (site(folder) / "others.pth").write_text("\n".join(sorted(paths)) + "\n")
    return folder / "bin"


@pytest.fixture
def busy(tmp_path):
    """A folder of a user, with names that Python and ours have as well."""
    for name in ("common", "configs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(FOREIGN)
    (tmp_path / "random.py").write_text(FOREIGN)
    return tmp_path


def site(environment):
    [found] = environment.glob("lib/python3*/site-packages")
    return found


def run(folder, *command, status=0, **variables):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False,
        env=environment | variables,
    )  # fmt: skip
    assert done.returncode == status, done.stderr[-2000:]
    return done


def source_files():
    """Returns the files of the packages, by their names in the wheel."""
    tracked = {}
    for name in PACKAGES:
        paths = [p for p in (ROOT / name).rglob("*") if p.is_file()]
        tracked |= {p.relative_to(ROOT).as_posix(): p for p in paths}
    for name in ("symphony", "equijump"):
        for path in (ROOT / "configs" / name).glob("*.py"):
            tracked[f"{name}/configs/{path.name}"] = path
    return {name: p for name, p in tracked.items() if "__pycache__" not in name}


def test_the_wheel_holds_the_packages_whole_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == source_files().keys()
    assert names >= NEEDED
    for folder in ROOT.glob("*/pretrained/*"):
        kept = folder.relative_to(ROOT).as_posix()
        assert {f"{kept}/{x}" for x in ("MODEL_CARD.md", "weights.npz")} <= names


def test_the_sdist_holds_what_builds_and_tests_it(built):
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    packaged = {n for n in source_files() if not re.match(r"\w+/configs/", n)}
    assert packaged <= names
    files = {"README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md", "pyproject.toml"}
    assert {*files, "Makefile", "docs/README.md", "tests/test_install.py"} <= names
    assert {f"configs/symphony/{n}.py" for n in ("qm9", "tiny")} <= names


def test_the_metadata_are_whole(built):
    with zipfile.ZipFile(built[0]) as wheel:
        [name] = [n for n in wheel.namelist() if n.endswith("/METADATA")]
        found = Parser().parsestr(wheel.read(name).decode())
    assert found["Name"] == common.PROJECT
    assert found["Version"] == common.__version__
    assert found["Author"] == "the developers"
    assert found["License-Expression"] == "Apache-2.0"
    assert found["Summary"] == PROJECT["description"]
    assert {*found["Keywords"].split(",")} == {*PROJECT["keywords"]}
    assert found.get_all("Classifier") == sorted(PROJECT["classifiers"])
    assert found.get_all("Project-URL") is None
    assert found.get_payload().startswith("# Symphony and EquiJump")


def test_commands_of_the_wheel_start_in_a_folder_with_names_of_ours(bin_folder, busy):
    version = common.__version__
    for name in PROJECT["scripts"]:
        assert "usage: " in run(busy, bin_folder / name, "--help").stdout
        assert version in run(busy, bin_folder / name, "--version").stdout
    for name in ("symphony", "equijump"):
        module = run(busy, bin_folder / "python", "-m", name, "--version")
        assert module.stdout == f"{name} {version}\n"


@pytest.mark.parametrize("command", [*COMMANDS, "equijump", "-m symphony"])
def test_a_package_common_of_others_is_one_line(command, bin_folder, busy, tmp_path):
    (busy / "common" / "__init__.py").write_text("")
    other = {"PYTHONPATH": str(tmp_path)}
    (busy / "random.py").unlink()
    words = command.split()
    program = [bin_folder / "python", *words] if words[1:] else [bin_folder / command]
    done = run(tmp_path / "configs", *program, "--help", status=2, **other)
    assert "expected the common of symphony-equijump, found another" in done.stderr
    assert str(busy / "common") in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_package_common_of_others_is_told_to_python(bin_folder, busy):
    (busy / "common" / "__init__.py").write_text("")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import symphony"
    done = run(busy, bin_folder / "python", "-P", "-c", code, str(busy), status=1)
    assert done.stderr.splitlines()[-1].startswith("ImportError: expected the common")


@pytest.mark.slow
def test_the_wheel_samples_with_its_own_weights(bin_folder, busy):
    output = busy / "two.sdf"
    sample = ("sample", "--num_molecules=2", "--seed=0", f"--output={output}")
    run(busy, bin_folder / "symphony", *sample)
    assert output.read_text().count("$$$$") == 2
    rollout = ("sample", "--num_jumps=4", "--replicas=2", "--output=rollout")
    run(busy, bin_folder / "equijump", *rollout)
    assert len([*(busy / "rollout").glob("*.xtc")]) == 2


@pytest.mark.slow
def test_the_examples_of_the_readme_run_from_the_wheel(bin_folder, busy):
    [example] = EXAMPLE.findall((ROOT / "README.md").read_text("utf-8"))
    propanol = Chem.AddHs(Chem.MolFromSmiles("CCCO"))
    AllChem.EmbedMolecule(propanol, randomSeed=0)
    Chem.MolToMolFile(propanol, str(busy / "in.sdf"))
    script = busy / "example.py"
    script.write_text(
        f"{example}print(symphony.__file__)\n"
        "print(len(molecules) > 80, len(trajectories), len(peptide), len(edited) > 0)\n"
    )
    done = run(busy, bin_folder / "python", "-P", script)
    file, counts = done.stdout.splitlines()
    assert Path(file).is_relative_to(bin_folder.parent)
    assert counts == "True 10 1 True"
