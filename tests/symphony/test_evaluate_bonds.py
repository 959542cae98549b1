"""Validity by each convention, and the worker processes it is computed in."""

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from common.errors import RunError
from symphony.chemistry import bonds, edm, pool
from symphony.evaluate import conventions, samples
from symphony.evaluate.samples import read_reference, read_samples

GOLDEN = "symphony/packaged/gschnet_qm9_samples.npz"


@pytest.fixture(scope="module")
def golden(request):
    return read_samples(request.config.rootpath / GOLDEN).molecules


@pytest.fixture(scope="module")
def data():
    return read_reference("qm9-sample").molecules


def embed(smiles):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], np.uint8)
    return numbers, mol.GetConformer().GetPositions().astype(np.float32)


def test_golden_samples_keep_their_exact_counts(golden):
    judged = conventions.judge(golden[:500])
    counts = {
        name: (score.num_valid, score.num_unique)
        for name, score in judged.scores.items()
    }
    assert counts == {
        "edm": (285, 262),
        "xyz2mol": (267, 246),
        "xyz2mol_hueckel": (266, 245),
        "strict": (261, 240),
        "geom_drugs": (265, 244),
    }
    stability = edm.stability(golden[:500])
    assert (stability.num_stable_atoms, stability.num_stable_molecules) == (7476, 207)


@pytest.mark.slow
def test_distance_table_gives_the_published_figures(golden):
    stability = edm.stability(golden)
    found = edm.validity(golden)
    figures = stability.atom_stability, stability.molecule_stability
    figures += found.valid, found.num_unique / found.num_molecules
    percent = [round(100 * figure, 2) for figure in figures]
    assert percent == [95.71, 68.03, 85.45, 80.32]


@pytest.mark.slow
def test_hueckel_gives_the_known_validity_of_all_golden_samples(golden):
    found = bonds.validity(golden, "xyz2mol_hueckel")
    assert abs(100 * found.valid - 80.4) <= 0.3
    assert "timeout" not in found.failures


def test_data_are_valid(data):
    found = bonds.validity(data[:300], "xyz2mol_hueckel")
    assert found.num_valid == 300
    assert found.num_unique >= 299


@pytest.mark.slow
def test_nearly_all_data_are_valid(data):
    found = bonds.validity(data[:5000], "xyz2mol_hueckel")
    assert found.valid >= 0.999


def test_methane_is_stable_and_a_stretched_one_is_not():
    numbers, positions = embed("C")
    assert edm.stable_atoms(numbers, positions).all()
    positions[1] *= 1.5
    assert edm.stable_atoms(numbers, positions).tolist() == [False] * 2 + [True] * 3


@pytest.mark.parametrize(("length", "order"), [(1.2499, 2), (1.25, 1), (1.54, 0)])
def test_a_pair_at_a_limit_has_the_lower_order(length, order):
    positions = np.array([[0.0, 0, 0], [length, 0, 0]])
    orders = edm.bond_orders(np.array([6, 8], np.uint8), positions)
    assert orders[0, 1] == order


@pytest.mark.parametrize(
    ("pair", "limits"),
    [
        ((1, 1), (0.84,)),
        ((1, 9), (1.02,)),
        ((6, 6), (1.64, 1.39, 1.23)),
        ((6, 7), (1.57, 1.34, 1.19)),
        ((7, 8), (1.50, 1.26)),
        ((8, 8), (1.58, 1.26)),
        ((9, 9), (1.52,)),
    ],
)
def test_limits_are_those_of_edm_whichever_atom_comes_first(pair, limits):
    for order, limit in enumerate(limits, 1):
        for numbers in (pair, pair[::-1]):
            for length, wanted in ((limit - 0.001, order), (limit + 0.001, order - 1)):
                positions = np.array([[0.0, 0, 0], [0, length, 0]])
                orders = edm.bond_orders(np.array(numbers, np.uint8), positions)
                assert orders.tolist() == [[0, wanted], [wanted, 0]]


@pytest.mark.parametrize(
    ("molecule", "status"),
    [
        ("[NH3+]CC(=O)[O-]", "formal charges"),
        ("O.O", "disconnected"),
        ("CCO", "valid"),
    ],
)
def test_strict_refuses_what_hueckel_accepts(molecule, status):
    numbers, positions = embed(molecule)
    if status == "disconnected":
        numbers, positions = embed("O")
        numbers = np.tile(numbers, 2)
        positions = np.concatenate([positions, positions + 8.0])
    assert bonds.perceive(numbers, positions, "xyz2mol_hueckel") is not None
    assert bonds.describe_molecule(numbers, positions, "strict").status == status
    is_valid = bonds.perceive(numbers, positions, "strict") is not None
    assert is_valid == (status == "valid")


def test_bad_molecules_stay_in_the_denominator():
    numbers, positions = embed("CCO")
    coincident = positions.copy()
    coincident[3] = coincident[4]
    molecules = [
        (numbers, positions),
        (numbers, positions * np.nan),
        (numbers, coincident),
        (numbers[:0], positions[:0]),
    ]
    for preset in ("xyz2mol", "strict"):
        found = bonds.validity(molecules, preset)
        assert found.valid == 0.25
        assert sum(found.failures.values()) == 3
    assert edm.validity(molecules).valid == 0.25
    assert edm.stability(molecules).molecule_stability == 0.25


def test_hueckel_is_silent(golden, capfd):
    for molecule in golden[:3]:
        bonds.perceive(*molecule, "xyz2mol_hueckel")
    bonds.validity(golden[:3], "xyz2mol_hueckel")
    assert capfd.readouterr() == ("", "")


def test_metrics_leave_their_inputs_alone(data):
    molecules = [(n.copy(), x.copy()) for n, x in data[:5]]
    for array in [array for molecule in molecules for array in molecule]:
        array.setflags(write=False)
    conventions.judge(molecules)
    for (n, x), (m, y) in zip(molecules, data[:5], strict=True):
        np.testing.assert_array_equal(n, m)
        np.testing.assert_array_equal(x, y)


def test_workers_and_this_process_agree(golden):
    chosen = golden[::1000]
    here = [bonds.describe_molecule(*molecule, "xyz2mol") for molecule in chosen]
    assert bonds.perceive_all(chosen, "xyz2mol", num_workers=2) == here


def test_a_molecule_beyond_the_time_limit_counts_as_invalid(golden):
    found = bonds.validity(golden[:2], "xyz2mol_hueckel", time_limit=1e-6)
    assert found.valid == 0.0
    assert found.failures == {"timeout": 2}


@pytest.fixture
def moody_worker(tmp_path, monkeypatch):
    """A worker that answers a task, hangs on it or dies of it, as the task says."""
    (tmp_path / "moody.py").write_text(
        "import json, os, sys, time\n"
        "sys.stdout.write('{}\\n')\n"
        "sys.stdout.flush()\n"
        "for line in sys.stdin:\n"
        "    do = json.loads(line)['do']\n"
        "    time.sleep(600 if do == 'hang' else 0)\n"
        "    if do == 'die':\n"
        "        os.abort()\n"
        "    sys.stdout.write(json.dumps({'did': do}) + '\\n')\n"
        "    sys.stdout.flush()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "moody"


def test_pool_survives_hung_and_crashed_workers(moody_worker):
    tasks = ["a", "hang", "b", "die", "c", "hang", "die", "d"]
    progress = []
    answers = pool.map_tasks(
        moody_worker, [{"do": do} for do in tasks], 2, 1.0, progress.append
    )
    outcome = {"hang": "timeout", "die": "crash"}
    assert answers == [outcome.get(do, {"did": do}) for do in tasks]
    assert progress[-1] == len(tasks)


def test_a_stream_answers_in_order_and_survives_its_workers(moody_worker):
    moods = ["sing", "hang", "dance", "die", "sing"] * 3
    with pool.Stream(moody_worker, 2, 1.0) as stream:
        found = []
        for mood in moods:
            stream.submit({"do": mood})
            found += stream.ready()
        found += stream.rest()
        assert list(stream.rest()) == []
    given_up = {"hang": "timeout", "die": "crash"}
    assert found == [given_up.get(mood, {"did": mood}) for mood in moods]


def test_what_a_worker_prints_before_it_is_ready_is_no_answer(
    moody_worker, tmp_path, monkeypatch
):
    module = tmp_path / "moody.py"
    text = module.read_text()
    for words in ("print('hello')", "print('one\\ntwo\\n', flush=True)"):
        module.write_text(f"{words}\n{text}")
        found = pool.map_tasks(moody_worker, [{"do": "sing"}, {"do": "dance"}], 1, 5.0)
        assert found == [{"did": "sing"}, {"did": "dance"}]


def test_files_of_the_working_folder_hide_no_module_of_a_worker(
    tmp_path, monkeypatch, golden
):
    for name in ("random", "numbers", "common", "symphony", "json"):
        (tmp_path / f"{name}.py").write_text("print('{}')\nraise ImportError('mine')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f":{tmp_path}:.")
    assert_workers_answer(golden)


def assert_workers_answer(golden):
    here = [bonds.describe_molecule(*molecule, "xyz2mol") for molecule in golden[:2]]
    assert bonds.perceive_all(golden[:2], "xyz2mol", num_workers=1) == here


def test_a_printed_line_without_an_end_is_no_answer_either(
    tmp_path, monkeypatch, golden
):
    (tmp_path / "sitecustomize.py").write_text("print('mine', end='', flush=True)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert_workers_answer(golden)


def test_pool_says_when_its_worker_cannot_start():
    with pytest.raises(RunError, match=r"worker process.*No module named"):
        pool.map_tasks("symphony.no_such_module", [{}], 1, 1.0)


def test_novelty_ignores_the_form_of_smiles():
    assert samples.canonical_graphs(["OCC", "C(O)C", "nonsense["]) == {"CCO"}
