"""Tests of the log-likelihood of molecules."""

import csv
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.commands import cli
from common.errors import UsageError
from common.runs import checkpoints
from symphony import data, decisions, likelihood, places, score, weights
from symphony.model import Surroundings
from tests.symphony import small

CARBON, NITROGEN = 1, 2  # Indices into the species table.


def precision_of():
    model, params = small.model_and_params()
    config = small.make_config()
    return weights.Weights("small", config, model, params, "", "")


def molecules_of(*pairs):
    """Packs molecules given by positions and species."""
    table = np.array(small.make_config().data.species)
    return data.make_molecules(
        np.array([len(species) for _, species in pairs]),
        np.concatenate([table[species] for _, species in pairs]),
        np.concatenate([positions for positions, _ in pairs]).astype(np.float32),
    )


def score_one(positions, species, num_orders=8, num_draws=8, seed=0):
    molecules = molecules_of((positions, species))
    scored = likelihood.score_molecules(
        precision_of(), molecules, num_orders, num_draws, seed
    )
    ((_, result),) = scored
    return result


@functools.cache
def compiled_terms(num_draws):
    """Evaluates a given cut."""
    model, params = small.model_and_params()

    @jax.jit
    def run(drawn, near, key):
        bound = model.bind(params)
        given = small.NO_NOISE
        return likelihood.order_terms(bound, drawn, near, given, key, num_draws)

    return run


def near_of(positions, num_pairs):
    model, _ = small.model_and_params()
    near = places.find_near_pairs(positions, model.min_radius, model.max_radius)
    count = len(near)
    near = np.pad(near, ((0, num_pairs - count), (0, 0)))
    return places.NearPairs(near[:, 0], near[:, 1], np.arange(num_pairs) < count)


PAIR = np.array([[0.0, 0.0, 0.0], [0.0, 0.9, 1.1]], np.float32)


def two_atom_terms():
    """Log-likelihoods of the two orders of a pair of atoms, by the training loss.

    From a lone atom every direction is as likely as any other.
    """
    model, params = small.model_and_params()
    run = jax.jit(lambda drawn: small.step_terms(model, params, drawn))
    length = np.linalg.norm(PAIR[1] - PAIR[0])
    terms = {}
    seeds = itertools.count()
    while len(terms) < 2:
        seed = next(seeds)
        drawn = small.cut_of(PAIR, np.array([CARBON, NITROGEN]), 2, seed)
        found = run(drawn)
        discrete = found.first + found.focus.sum() + found.radial.sum()
        sphere = np.log(4.0 * np.pi * length**2)
        terms[int(drawn.order[0])] = -float(discrete) - sphere
    return np.array([terms[0], terms[1]])


def test_a_pair_of_atoms_scores_the_sum_over_its_two_orders():
    expected = np.logaddexp(*two_atom_terms())
    species = np.array([CARBON, NITROGEN])
    found = score_one(PAIR, species, num_orders=64, num_draws=64)
    # The law of the cuts takes each order with one half; 64 orders are not quite so.
    np.testing.assert_allclose(
        found.bound, expected, atol=4.0 * found.standard_error + 0.05
    )
    # What the terms have in common is the stop.
    total = found.per_atom.sum() + found.stop
    np.testing.assert_allclose(total, found.mean_order, atol=1e-4)


def test_one_order_of_a_pair_scores_as_the_training_loss_says():
    species = np.array([CARBON, NITROGEN])
    by_loss = two_atom_terms()
    for seed in range(3):
        drawn = small.cut_of(PAIR, species, 2, seed)
        terms = compiled_terms(4_096)(drawn, near_of(PAIR, 1), jax.random.key(seed))
        total = float(terms.placed.sum() + terms.stop)
        np.testing.assert_allclose(total, by_loss[int(drawn.order[0])], atol=0.1)
        np.testing.assert_allclose(terms.log_law, np.log(0.5), atol=1e-6)


def density_by_independent_draws(drawn, new, focus, num_draws=2_048):
    """Log-density of a new atom seen from a focus, as the sampler estimates it."""
    model, params = small.model_and_params()

    @jax.jit
    def run(key):
        bound = model.bind(params)
        feats, logits = likelihood.step_features(bound, drawn, small.NO_NOISE)
        now = jax.tree.map(lambda x: x[new - 1][None], logits)
        log_total = jax.nn.logsumexp(jnp.append(now.focus_species, now.stop))
        species, at = drawn.species[new][None], jnp.array([focus])
        vector = drawn.positions[new] - drawn.positions[focus]
        radius = jnp.linalg.norm(vector)
        placed = (jnp.arange(len(drawn.species)) < new) & drawn.node_mask
        condition = bound.position_condition(feats, now, at, species)
        around = Surroundings(feats, drawn.positions, at, placed[None])
        coefficients = bound.coarse(condition, radius[None], around)[0]
        log_density = decisions.position_log_density(
            bound, key, condition, radius, vector / radius, coefficients, around,
            num_draws,
        )  # fmt: skip
        return now.focus_species[0, focus, species[0]] - log_total + log_density

    return float(run(jax.random.key(0)))


def test_a_step_sums_over_every_atom_it_can_be_reached_from():
    positions = np.array([[0.0, 0.0, 0.0], [1.4, 0.0, 0.0], [0.7, 1.2, 0.2]])
    positions = positions.astype(np.float32)
    drawn = small.cut_of(positions, np.array([1, 1, 1]), 3)
    found = compiled_terms(2_048)(drawn, near_of(positions, 3), jax.random.key(5))
    terms = [density_by_independent_draws(drawn, 2, focus) for focus in (0, 1)]
    expected = np.logaddexp(*terms)
    np.testing.assert_allclose(found.placed[int(drawn.order[2])], expected, atol=0.1)
    assert expected - max(terms) > 0.1


def test_pairs_that_count_come_first_by_their_steps():
    log_reach = np.array([-1.0, -30.0, -2.0, -40.0, -3.0, -np.inf], np.float32)
    count = len(log_reach)
    every = places.Pairs(
        focus=np.array([0, 0, 1, 0, 1, 0]),
        new=np.array([2, 3, 3, 1, 2, 1]),
        log_reach=log_reach,
        radius=np.ones(count, np.float32),
        direction=np.ones((count, 3), np.float32),
        condition=np.zeros((count, 2), np.float32),
        number=np.arange(count),
    )
    every = jax.tree.map(jnp.asarray, every)
    kept, num_kept, has_gap = places.keep(every, jnp.ones(4, bool))
    # The only focus of atom 1 counts, however unlikely; that of atom 3 does not.
    assert int(num_kept) == 4
    assert kept.number[:4].tolist() == [3, 0, 4, 2]
    assert len(kept.number) == places.CHUNK
    assert np.isinf(kept.log_reach[4:]).all()
    assert not has_gap
    assert places.keep(every, jnp.ones(5, bool))[2]


@pytest.mark.parametrize("is_cut", [False, True])
def test_atoms_that_are_not_there_yet_need_not_be_looked_at(monkeypatch, is_cut):
    positions, species = small.chain(2, 12)
    drawn = small.cut_of(positions, species, 12)
    near, key = near_of(positions, 40), jax.random.key(0)
    if is_cut:
        # One atom has no focus: it is out of reach, and no other must suffer.
        alone = int(drawn.order[4])
        touches = (near.first == alone) | (near.second == alone)
        near = near._replace(pair_mask=near.pair_mask & ~touches)
    found = compiled_terms(4)(drawn, near, key)
    monkeypatch.setattr(places, "_sizes", lambda num_nodes: [num_nodes])
    every = compiled_terms.__wrapped__(4)(drawn, near, key)
    np.testing.assert_allclose(found.placed, every.placed, rtol=1e-4, atol=1e-3)
    assert np.isinf(found.placed).sum() >= is_cut


def test_spread_directions_have_the_mean_of_independent_ones_and_less_noise():
    keys = jax.random.split(jax.random.key(0), 4_000)
    points = np.asarray(jax.vmap(lambda key: places.spread(key, 6))(keys))
    values = np.exp(0.6 * points[..., 0] - 0.2 * points[..., 1] ** 2)
    expected = np.exp(0.18) / np.sqrt(1.4)
    np.testing.assert_allclose(values.mean(), expected, atol=0.01)
    np.testing.assert_allclose(points.reshape(-1, 2).std(0), 1.0, atol=0.02)
    independent = np.random.default_rng(0).normal(size=(4_000, 32, 2))
    alone = np.exp(0.6 * independent[..., 0] - 0.2 * independent[..., 1] ** 2)
    # Six are as good as two to three times as many, here.
    assert values.mean(axis=1).std() < alone[:, :12].mean(axis=1).std()


def test_a_tangent_frame_is_at_right_angles():
    for direction in ([0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.6, 0.0, -0.8]):
        frame = np.stack([direction, *places.tangent_frame(jnp.array(direction))])
        np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-6)


def padded(drawn, num_nodes):
    """Moves a cut to a larger bucket, with something where there are none."""
    missing = num_nodes - len(drawn.species)
    return drawn._replace(
        positions=jnp.pad(drawn.positions, ((0, missing), (0, 0)), constant_values=1.0),
        species=jnp.pad(drawn.species, (0, missing)),
        node_mask=jnp.pad(drawn.node_mask, (0, missing)),
        log_law=jnp.pad(drawn.log_law, (0, missing)),
        order=jnp.pad(drawn.order, (0, missing)),
    )


def test_padding_changes_nothing():
    positions, species = small.chain(3, 5)
    drawn = small.cut_of(positions, species, 5)
    run = compiled_terms(4)
    # Padded pairs share the keys of the real ones, which come first.
    near = near_of(positions, 12)
    key = jax.random.key(0)
    tight = run(drawn, near, key)
    wide = run(padded(drawn, 8), near, key)
    np.testing.assert_allclose(wide.placed[:5], tight.placed, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(wide.stop, tight.stop, atol=1e-4)
    np.testing.assert_allclose(wide.log_law, tight.log_law, atol=1e-5)
    assert not np.any(wide.placed[5:])


def test_rotation_translation_and_order_of_atoms_change_nothing():
    positions, species = small.chain(6, 4)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    shuffled = np.array([2, 0, 3, 1])
    options = {"num_orders": 128, "num_draws": 256}
    plain = score_one(positions, species, **options)
    moved = score_one(positions @ rotation.T + 30.0, species, **options)
    renamed = score_one(positions[shuffled], species[shuffled], **options)
    for other in (moved, renamed):
        error = np.hypot(plain.standard_error, other.standard_error)
        np.testing.assert_allclose(other.bound, plain.bound, atol=4 * error + 0.1)
    np.testing.assert_allclose(moved.per_atom, plain.per_atom, atol=0.5)
    # The same keys give the same orders, so only the drawn directions differ.
    np.testing.assert_allclose(moved.bound, plain.bound, atol=0.1)


def test_a_place_out_of_reach_has_no_likelihood():
    positions = np.array([[0.0, 0.0, 0.0], [3.5, 0.0, 0.0]], np.float32)
    found = score_one(positions, np.array([1, 1]))
    assert found.bound == -np.inf
    assert np.isfinite(found.stop)


def test_the_bound_weighs_orders_by_their_law():
    log_p = np.log([0.2, 0.6])
    terms = likelihood.OrderTerms(
        placed=log_p[:, None], stop=np.zeros(2), log_law=np.log([0.5, 0.5]),
        complete=np.ones(2, bool),
    )  # fmt: skip
    found = likelihood.summarise(terms, 1)
    np.testing.assert_allclose(found.bound, np.log(0.8))
    np.testing.assert_allclose(found.standard_error, 0.5)
    np.testing.assert_allclose(found.effective_orders, 1.6)
    np.testing.assert_allclose(found.mean_order, log_p.mean())


@pytest.fixture
def packaged(tmp_path):
    _, params = small.model_and_params()
    checkpoints.save_packaged(tmp_path / "small", params, small.make_config(), {})
    return tmp_path / "small"


def write_xyz(path, positions, symbols):
    rows = [f"{s} {x} {y} {z}" for s, (x, y, z) in zip(symbols, positions, strict=True)]
    path.write_text("\n".join([str(len(rows)), "", *rows, ""]))
    return path


def test_the_command_writes_a_row_a_molecule_and_a_row_an_atom(
    packaged, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(score, "FEW_ORDERS", 8.5)
    file = write_xyz(tmp_path / "in.xyz", PAIR, "CN")
    output = tmp_path / "scores.csv"
    arguments = [
        f"--checkpoint={packaged}", f"--molecules={file}", f"--output={output}",
        "--num_orders=8", "--num_direction_samples=8",
    ]  # fmt: skip
    assert score.main(arguments) == 0
    assert "score of 1 of 1 molecules: their standard errors" in caplog.text
    with output.open() as rows:
        (row,) = csv.DictReader(rows)
    assert (row["num_orders"], row["num_direction_samples"]) == ("8", "8")
    assert float(row["standard_error"]) >= 0.0
    with (tmp_path / "scores_atoms.csv").open() as rows:
        atoms = list(csv.DictReader(rows))
    assert [atom["element"] for atom in atoms] == ["C", "N"]
    total = sum(float(atom["mean_log_likelihood"]) for atom in atoms)
    np.testing.assert_allclose(
        total + float(row["mean_stop"]),
        float(row["mean_order_log_likelihood"]),
        atol=1e-3,
    )


@pytest.mark.parametrize(
    ("positions", "symbols", "told"),
    [
        ([[0, 0, 0], [np.nan, 0, 0]], "CC", "not finite"),
        ([[0, 0, 0], [0, 0, 0]], "CC", "apart"),
        ([[0, 0, 0], [1.5, 0, 0]], ["C", "Cl"], "element"),
    ],
)
def test_a_bad_molecule_is_an_error(packaged, tmp_path, positions, symbols, told):
    file = write_xyz(tmp_path / "in.xyz", positions, symbols)
    with pytest.raises(UsageError, match=told):
        score.main([f"--checkpoint={packaged}", f"--molecules={file}"])


def test_atoms_that_do_not_hang_together_are_an_error():
    far = np.array([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]], np.float32)
    with pytest.raises(UsageError, match="hang together"):
        score_one(far, np.array([1, 1]))


@pytest.mark.slow
@pytest.mark.skipif(
    not (weights.PRETRAINED / "qm9" / "weights.npz").is_file(),
    reason="needs the packaged weights",
)
def test_molecules_score_less_the_more_they_are_disturbed():
    trained = weights.load_weights("qm9")
    species = tuple(trained.config.data.species)
    found, _ = data.read_molecules("qm9-sample", species, 29, split="validation")
    found = data.choose_molecules(found, 20)
    noise = np.random.default_rng(0).normal(size=found.positions.shape)
    means = []
    for scale in (0.0, 0.05, 0.2):
        disturbed = found.positions + (scale * noise).astype(np.float32)
        scored = likelihood.score_molecules(
            trained, found._replace(positions=disturbed), 4, 16, 0
        )
        bounds = np.array([one.bound for _, one in scored])
        # A molecule out of reach is as unlikely as any number says.
        means.append(np.maximum(bounds, -1e4).mean())
    assert means[0] > means[1] > means[2], means


@pytest.mark.parametrize("output", ["mine.sdf", "mine.csv"])
def test_scores_do_not_replace_the_molecules(tmp_path, output, capsys):
    molecules = tmp_path / ("mine.sdf" if output == "mine.sdf" else "mine_atoms.csv")
    molecules.write_text("precious")
    given = [f"--molecules={molecules}", f"--output={tmp_path / output}"]
    assert cli.run("symphony score", score.main, given) == 2
    assert "not the input" in capsys.readouterr().err
    assert molecules.read_text() == "precious"


def test_more_orders_narrow_the_bound_and_raise_it():
    positions, species = small.chain(7, 5)
    bounds = {
        count: [
            score_one(positions, species, count, 8, seed=seed).bound
            for seed in range(12)
        ]
        for count in (2, 64)
    }
    assert np.std(bounds[64]) < np.std(bounds[2])
    assert np.mean(bounds[64]) > np.mean(bounds[2])


def made_score(bound, effective_orders=8.0, num_atoms=2):
    per_atom = np.linspace(-1.0, -2.0, num_atoms)
    return likelihood.Score(bound, 0.5, effective_orders, bound - 1.0, per_atom, -0.1)


def test_scores_are_written_by_molecule_and_by_atom(tmp_path):
    positions = np.eye(2, 3, dtype=np.float32)
    molecules = molecules_of((positions, [CARBON, 0]), (positions, [NITROGEN, 0]))
    path = tmp_path / "out" / "scores.csv"
    scores = {1: made_score(-3.0), 0: made_score(float("-inf"))}
    atoms_path = score.write_scores(path, molecules, scores, 16, 32)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["index"] for row in rows] == ["0", "1"]
    assert rows[0]["log_likelihood"] == "-inf"
    assert rows[1]["log_likelihood"] == "-3.0000"
    assert rows[1]["mean_order_log_likelihood"] == "-4.0000"
    assert rows[1]["num_direction_samples"] == "32"
    assert atoms_path.name == "scores_atoms.csv"
    with atoms_path.open() as file:
        atoms = list(csv.DictReader(file))
    assert [atom["element"] for atom in atoms] == ["C", "H", "N", "H"]
    assert [atom["mean_log_likelihood"] for atom in atoms[2:]] == ["-1.0000", "-2.0000"]


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ([-1.0, -3.0], "-2.00 nats"),
        ([-1.0, -np.inf], "-1.00 nats but for 1 of density zero"),
        ([-np.inf], "minus infinity but for 1 of density zero"),
    ],
)
def test_the_mean_leaves_out_molecules_of_density_zero(bounds, words):
    scores = {index: made_score(float(bound)) for index, bound in enumerate(bounds)}
    assert score._mean(scores) == words


def test_too_few_orders_are_told_unless_one_was_asked_for(caplog):
    scores = {0: made_score(-1.0, 1.2), 1: made_score(-1.0, 9.0)}
    score._warn_of_few(scores, 1)
    assert caplog.text == ""
    score._warn_of_few(scores, 16)
    assert "decide the score of 1 of 2 molecules" in caplog.text


def test_atoms_in_parts_are_named_before_any_is_scored():
    far = np.array([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]], np.float32)
    near = far / 9.0
    molecules = molecules_of((near, [CARBON, 0]), (far, [CARBON, 0]))
    with pytest.raises(UsageError, match=r"below 5\.0 Å, found molecule 1"):
        score.check_connected(molecules, 5.0, "two.sdf")
