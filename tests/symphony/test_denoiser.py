"""Tests of the denoiser, its training, and of refined molecules."""

import io
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

import symphony
from common.commands import cli
from common.errors import UsageError
from common.runs import checkpoints
from configs.symphony import refine_qm9
from symphony import build, data, manifest, molfile, options, records, refine, train
from symphony.data.molecules import make_molecules
from symphony.data.xyz import read_xyz
from symphony.kinds.denoiser import loss
from symphony.kinds.denoiser import sample as denoiser
from symphony.sampler import Sampler, check_refiner
from symphony.weights import Weights
from tests.common.geometry.test_alignment import random_rotation
from tests.symphony import small

NUM_NODES = 8


def small_config():
    config = refine_qm9.get_config()
    config.data.update(path="qm9-sample", num_buckets=1)
    config.model.update(num_channels=8, num_layers=2, max_degree=1)
    config.model.update(num_radial_basis=6, num_pair_feats=8)
    config.train.update(num_steps=4, batch_size=8, num_microbatches=1)
    config.train.update(log_every=2, eval_every=4, checkpoint_every=2)
    config.train.num_validation = 8
    config.refine.num_steps = 3
    return config


@pytest.fixture(scope="module")
def params():
    """Of a network whose moves are large enough to tell apart."""
    params = build.init_params(small_config(), jax.random.key(0))
    rng = np.random.default_rng(0)
    moved = lambda leaf: leaf + 0.2 * rng.normal(size=leaf.shape).astype(np.float32)
    return jax.tree.map(moved, params)


@pytest.fixture(scope="module")
def packaged(params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "small"
    checkpoints.save_packaged(folder, params, small_config(), {})
    return folder


def test_a_network_without_vectors_is_refused():
    config = small_config()
    config.model.max_degree = 0
    with pytest.raises(UsageError, match=r"config\.model\.max_degree: expected 1 or"):
        train.check_config(config)


@pytest.fixture(scope="module")
def denoise(params):
    apply = jax.jit(build.make_model(small_config()).apply)

    def denoise(species, y, node_mask, fixed, sigma=0.2):
        given = (jnp.asarray(x) for x in (species, y, np.float32(sigma)))
        return np.asarray(apply(params, *given, jnp.asarray(node_mask), fixed))

    return denoise


@pytest.fixture
def molecule():
    """Six atoms and two of padding."""
    positions, species = small.chain(0, 6)
    mask = np.arange(NUM_NODES) < 6
    y = np.pad(positions - positions.mean(axis=0), ((0, 2), (0, 0)))
    return np.pad(species, (0, 2)).astype(np.int32), y, mask


def free(mask):
    return jnp.zeros(mask.shape, bool)


@pytest.mark.parametrize("turn", [random_rotation(0), -random_rotation(1)])
def test_it_turns_moves_and_mirrors_with_its_molecule(denoise, molecule, turn):
    species, y, mask = molecule
    shift = np.float32([3.0, -2.0, 5.0]) * mask[:, None]
    found = denoise(species, y, mask, free(mask))
    assert np.max(np.abs(found - y)) > 0.01
    turned = denoise(species, y @ turn.T + shift, mask, free(mask))
    np.testing.assert_allclose(turned, found @ turn.T + shift, atol=1e-5)


def test_order_and_padding_are_nothing(denoise, molecule):
    species, y, mask = molecule
    found = denoise(species, y, mask, free(mask))
    order = np.array([7, 3, 0, 5, 1, 6, 4, 2])
    mixed = denoise(species[order], y[order], mask[order], free(mask))
    np.testing.assert_allclose(mixed, found[order], atol=1e-5)
    species[6:], y[6:] = 3, 100.0
    np.testing.assert_allclose(denoise(species, y, mask, free(mask)), found, atol=1e-6)
    assert not np.any(found[6:])


def test_fixed_atoms_come_back_and_are_known_as_such(denoise, molecule):
    species, y, mask = molecule
    fixed = jnp.arange(NUM_NODES) < 3
    found = denoise(species, y, mask, fixed)
    np.testing.assert_allclose(found[:3], y[:3], atol=1e-6)
    assert np.max(np.abs(found - denoise(species, y, mask, free(mask)))[3:6]) > 1e-3


def test_the_less_the_noise_the_less_it_moves(denoise, molecule):
    species, y, mask = molecule
    moves = [
        np.max(np.abs(denoise(species, y, mask, free(mask), sigma) - y))
        for sigma in (0.5, 0.1, 0.01)
    ]
    assert moves[0] > moves[1] > moves[2]
    assert moves[2] < 0.1


def test_a_neighbourhood_is_known_in_its_share_of_molecules():
    positions, _ = small.chain(1, 6)
    y = np.pad(positions, ((0, 2), (0, 0)))
    mask = jnp.arange(NUM_NODES) < 6
    keys = jax.random.split(jax.random.key(0), 2_000)
    draw = jax.vmap(lambda key: loss.draw_fixed(key, jnp.asarray(y), mask, 0.6))
    fixed = np.asarray(draw(keys))
    counts = fixed.sum(axis=1)
    # One count in six is none, of the share that may have some.
    assert np.mean(counts > 0) == pytest.approx(0.6 * 5 / 6, abs=0.04)
    assert counts.max() == 5
    assert not np.any(fixed[:, 6:])
    for row in fixed[counts == 3][:50]:
        apart = np.linalg.norm(positions[row[:6], None] - positions, axis=-1)
        # Some atom of them has them as its nearest.
        ranks = np.argsort(apart, axis=1)[:, :3]
        assert any(set(rank) == set(np.flatnonzero(row[:6])) for rank in ranks)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    train.train(small_config(), workdir)
    return workdir


def test_a_run_trains_logs_and_goes_on(run):
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    names = {name for line in lines for name in line}
    assert {"denoising", "validation_denoising", "grad_norm"} <= names
    config = small_config()
    config.train.num_steps = 6
    state = train.train(config, run)
    assert int(state.step) == 6
    config.train.start_from = str(run)
    started = train.start_params(config, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, started, state.ema_params)


def test_the_loss_falls_on_one_batch():
    config = small_config()
    packed, _, meta = train.load_data(config)
    batch = data.batch_at(packed, config.train.batch_size, config.seed, 0)
    loss_fn = build.make_loss(config, build.kind_of(config).mean_steps(meta))
    keys = jax.random.split(jax.random.key(0), 8)
    slope = jax.jit(jax.value_and_grad(lambda p: loss_fn(p, batch, keys)[0]))
    params = build.init_params(config, jax.random.key(0))
    first, _ = slope(params)
    for _ in range(60):
        value, grads = slope(params)
        params = jax.tree.map(lambda p, g: p - 0.03 * g, params, grads)
    assert value < 0.8 * first


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--config.loss.alignment=best", ("loss.alignment", "exact", "found best")),
        ("--config.loss.min_noise=2.0", ("min_noise < max_noise", "found 2.0 and 0.5")),
        ("--config.loss.fixed_share=2.0", ("fixed_share", "0 to 1", "found 2")),
        ("--config.refine.num_steps=0", ("refine.num_steps", "found 0")),
        ("--config.model.sigma_data=0.0", ("sigma_data", "found 0.0")),
        (
            "--config.train.start_from=qm9",
            ("start_from", "kind denoiser, found"),
        ),
    ],
)
def test_a_value_that_cannot_be_used_is_told(flag, named, tmp_path, capfd):
    given = [
        "--config=refine_qm9", f"--workdir={tmp_path}",
        "--config.data.path=qm9-sample", flag,
    ]  # fmt: skip
    assert cli.run("symphony train", train.main, given) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1, err
    for word in named:
        assert word in err


def arguments(count):
    """Molecules of several sizes, as `denoiser.refine` takes them."""
    made = [small.chain(seed, 4 + seed % 3) for seed in range(count)]
    numbers = [np.array([1, 6, 7, 8, 9], np.uint8)[species] for _, species in made]
    positions = [x for x, _ in made]
    return numbers, positions, [np.zeros(len(x), bool) for x in positions]


def test_a_molecule_is_refined_alike_in_any_company(packaged):
    refiner = denoiser.load_refiner(packaged)
    numbers, positions, fixed = arguments(5)
    many = denoiser.refine(refiner, numbers, positions, fixed, range(5), 7)
    alone = denoiser.refine(refiner, numbers[3:4], positions[3:4], fixed[3:4], [3], 7)
    np.testing.assert_allclose(alone[0], many[3], atol=1e-5)
    other = denoiser.refine(refiner, numbers, positions, fixed, range(5), 8)
    assert np.max(np.abs(other[3] - many[3])) > 1e-3


@pytest.mark.parametrize("first", [1, 4])
def test_who_goes_on_refines_to_the_same_bits(packaged, first):
    refiner = denoiser.load_refiner(packaged)
    numbers, positions, _ = arguments(5)
    sizes = np.array(list(map(len, numbers)))
    flat = np.concatenate(numbers), np.concatenate(positions)
    refined = partial(refine.refine_molecules, refiner, make_molecules(sizes, *flat))
    for whole, one in zip(list(refined())[first:], refined(first=first), strict=True):
        assert whole.index == one.index
        np.testing.assert_array_equal(whole.positions, one.positions)


def test_it_settles_at_the_end(packaged):
    """As often as asked, what comes out is denoised once more."""
    refiner = denoiser.load_refiner(packaged)
    numbers, positions, fixed = arguments(2)
    given = numbers, positions, fixed, range(2), 7
    first, more = (
        denoiser.refine(refiner._replace(num_final=count), *given) for count in (0, 2)
    )
    species = jnp.asarray(np.searchsorted(refiner.species, numbers[0]))
    free = jnp.zeros(len(species), bool)
    y = jnp.asarray(first[0])
    for _ in range(2):
        sigma = jnp.float32(refiner.model.min_noise)
        y = refiner.model.apply(refiner.params, species, y, sigma, ~free, free)
    np.testing.assert_allclose(more[0], y, atol=1e-5)


@pytest.mark.parametrize("method", ["heun", "euler", "ancestral"])
def test_fixed_atoms_stay_to_the_last_bit(packaged, method):
    refiner = denoiser.load_refiner(packaged, method=method)
    numbers, positions, fixed = arguments(4)
    for one in fixed:
        one[:2] = True
    found = denoiser.refine(refiner, numbers, positions, fixed, range(4), 7)
    for before, after in zip(positions, found, strict=True):
        np.testing.assert_array_equal(before[:2], after[:2])
        assert np.max(np.abs(before - after)[2:]) > 1e-3


@pytest.fixture
def given(tmp_path):
    """A file of three molecules."""
    path = tmp_path / "given.xyz"
    text = ""
    for seed in range(3):
        positions, species = small.chain(seed, 5)
        rows = zip(np.array(["H", "C", "N", "O", "F"])[species], positions, strict=True)
        lines = [f"{symbol} {x} {y} {z}" for symbol, (x, y, z) in rows]
        text += "\n".join(["5", f"molecule {seed}", *lines]) + "\n"
    path.write_text(text)
    return path


def test_the_command_refines_a_file_and_goes_on(packaged, given, tmp_path, capfd):
    output = tmp_path / "refined.sdf"
    flags = [f"--molecules={given}", f"--output={output}", f"--checkpoint={packaged}"]
    assert cli.run("symphony refine", refine.main, [*flags, "--fixed=0,2"]) == 0
    assert "moved by" in capfd.readouterr().out
    head, *records = map(json.loads, output.with_suffix(".jsonl").open())
    assert head["settings"]["fixed"] == [0, 2]
    assert head["settings"]["noise"] == 0.1
    assert [record["index"] for record in records] == [0, 1, 2]
    assert all("log_likelihood" not in record for record in records)
    before, after = (
        read_xyz(io.BytesIO(path.read_bytes()), path.name).molecules
        for path in (given, output.with_suffix(".extxyz"))
    )
    moves = np.linalg.norm(before.positions - after.positions, axis=1).reshape(3, 5)
    assert np.max(moves[:, [0, 2]]) == 0.0
    assert np.min(moves[:, [1, 3, 4]]) > 0.0
    root = np.sqrt(np.mean(np.square(moves), axis=1))
    np.testing.assert_allclose([r["moved"] for r in records], root, atol=1e-4)
    assert cli.run("symphony refine", refine.main, [*flags, "--fixed=0,2"]) == 0
    assert "all 3 molecules are done" in capfd.readouterr().out
    assert cli.run("symphony refine", refine.main, flags) == 2
    assert "was begun with" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--noise=0.9", ("0.01 to 0.5 Å", "found 0.9")),
        ("--noise=nan", ("0.01 to 0.5 Å", "found nan")),
        ("--num_steps=0", ("--num_steps", "found 0")),
        ("--method=dpm", ("--method", "heun", "found dpm")),
        ("--fixed=0,7", ("--fixed", "0 to 4", "found 0, 7")),
        ("--fixed=a", ("--fixed", "found 'a'")),
        ("--checkpoint=qm9", ("--checkpoint", "denoiser", "found symphony in qm9")),
        ("--molecules=nowhere.sdf", ("nowhere.sdf",)),
        ("--seed=-1", ("--seed", "found -1")),
    ],
)
def test_what_cannot_be_refined_is_told(flag, named, packaged, given, tmp_path, capfd):
    output = tmp_path / "refined.sdf"
    flags = [f"--molecules={given}", f"--output={output}", f"--checkpoint={packaged}"]
    assert cli.run("symphony refine", refine.main, [*flags, flag]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1, err
    for word in named:
        assert word in err
    assert not output.exists()


def test_elements_that_it_never_saw_are_warned_of(packaged, caplog):
    refiner = denoiser.load_refiner(packaged)
    denoiser.check_species(refiner, [1, 6, 9], "mine")
    assert not caplog.text
    denoiser.check_species(refiner._replace(unseen=(9,)), [1, 6, 9], "mine")
    assert "mine: no molecule that the weights" in caplog.text
    assert "has F;" in caplog.text


def test_elements_that_it_does_not_know_are_named(packaged):
    refiner = denoiser.load_refiner(packaged)
    with pytest.raises(UsageError, match=r"mine: expected elements .*found S, Cl"):
        denoiser.check_species(refiner, [1, 6, 16, 17], "mine")


@pytest.fixture(scope="module")
def sampler():
    """Small random weights that build molecules."""
    model, params = small.model_and_params()
    config = small.make_config()
    config.sample.max_atoms = 12
    return Sampler(Weights("small", config, model, params, "", ""))


def test_samples_are_refined_on_the_way(packaged, sampler):
    refiner = denoiser.load_refiner(packaged)
    ask = {"num_molecules": 5, "seed": 3, "num_slots": 4}
    plain = sampler.sample_positions(**ask)
    refined = sampler.sample_positions(refine=refiner, **ask)
    for before, after in zip(plain, refined, strict=True):
        np.testing.assert_array_equal(before.atomic_numbers, after.atomic_numbers)
        assert after.log_likelihood == before.log_likelihood
        moves = after.positions - before.positions
        root = np.sqrt(np.mean(np.sum(np.square(moves), axis=1)))
        assert after.moved == pytest.approx(root, rel=1e-5)
        assert before.moved is None
        # An atom alone is as it should be.
        assert after.moved > 0.0 or len(moves) == 1
    again = sampler.sample_positions(3, seed=3, num_slots=4, refine=refiner)
    np.testing.assert_allclose(again[2].positions, refined[2].positions, atol=1e-4)


def test_a_fragment_is_not_refined(packaged, sampler):
    refiner = denoiser.load_refiner(packaged)
    given = np.array([6, 7, 6]), small.chain(0, 3)[0] + np.float32(20.0)
    ask = {"num_slots": 4, "fragment": given}
    plain = sampler.sample_positions(4, seed=3, **ask)
    refined = sampler.sample_positions(4, seed=3, refine=refiner, **ask)
    grown = 0
    for before, after in zip(plain, refined, strict=True):
        np.testing.assert_array_equal(after.positions[:3], given[1])
        moves = np.abs(after.positions - before.positions)[3:]
        grown += len(moves)
        assert not len(moves) or np.max(moves) > 0.0
    assert grown


def test_what_is_written_says_whose_the_likelihood_is(tmp_path):
    one = manifest.Sample(0, 3, np.array([1, 9], np.uint8), np.eye(2, 3), True, -1.5)
    moved = one._replace(moved=0.1, positions=np.eye(2, 3, dtype=np.float32))
    with molfile.open_output(tmp_path / "out.sdf", {}, False) as output:
        manifest.write(output, moved, "F", "")
    _, record = map(json.loads, (tmp_path / "out.jsonl").open())
    assert record["log_likelihood_before_refinement"] == -1.5
    assert record["moved"] == 0.1
    assert "log_likelihood" not in record
    frame = (tmp_path / "out.extxyz").read_text()
    assert "log_likelihood_before_refinement=-1.5" in frame
    assert "log_likelihood" in records.record_of(one, "F")


def test_a_refiner_must_know_every_element_that_may_come(packaged, sampler):
    refiner = denoiser.load_refiner(packaged)._replace(species=(1, 6, 7, 8))
    chosen = options.choose(sampler.weights)
    with pytest.raises(UsageError, match=r"molecules of small: .*found F"):
        check_refiner(sampler.weights, chosen, refiner)
    unseen = sampler.weights._replace(unseen=(9,))
    check_refiner(unseen, chosen, refiner)


def test_molecules_of_rdkit_keep_their_bonds(packaged):
    mol = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    AllChem.EmbedMolecule(mol, randomSeed=0)
    mol.SetProp("origin", "mine")
    loaded = symphony.load_refiner(packaged)
    (found,) = loaded.refine([mol], fixed=(0, 1))
    assert Chem.MolToSmiles(found) == Chem.MolToSmiles(mol)
    assert found.GetProp("origin") == "mine"
    before, after = (m.GetConformer().GetPositions() for m in (mol, found))
    np.testing.assert_array_equal(before[:2], after[:2])
    assert np.min(np.linalg.norm(before - after, axis=1)[2:]) > 0.0
    assert loaded.refine([]) == []
    with pytest.raises(UsageError, match=r"fixed: expected atoms .*found 40"):
        loaded.refine([mol], fixed=(40,))
    with pytest.raises(UsageError, match=r"molecule 0: expected a conformer"):
        loaded.refine([Chem.MolFromSmiles("C")])
    sulphur = Chem.AddHs(Chem.MolFromSmiles("CS"))
    AllChem.EmbedMolecule(sulphur, randomSeed=0)
    with pytest.raises(UsageError, match=r"molecules: expected .*found S"):
        loaded.refine([sulphur])
