"""Tests of the loop that builds molecules, and of what a step draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from symphony import build, decisions, likelihood
from symphony.generate import generate, in_full_precision
from symphony.model import Surroundings
from symphony.orders import Cut
from symphony.slots import Fragment, Placement, Settings, Start, first_or_next
from tests.symphony import small

CAPACITY = 12  # Of the batched loop.
WIDE = 32  # Of the loop in Python, which therefore shows that padding does nothing.
DECODER = build.KINDS["symphony"].decoder


def settings(max_atoms=9):
    ones = (jnp.float32(1.0),) * 3
    return Settings(*ones, small.NO_NOISE, jnp.int32(max_atoms))


def nothing(index):
    return Start(np.zeros((0, 3), np.float32), np.zeros(0, np.int32))


def run(count, steps_per_call=4, start=nothing, max_atoms=9):
    model, params = small.model_and_params()
    finished = generate(
        DECODER,
        model,
        params,
        iter(range(count)),
        3,
        settings(max_atoms),
        start,
        "exact",
        num_slots=4,
        capacity=CAPACITY,
        steps_per_call=steps_per_call,
    )
    return sorted(finished, key=lambda molecule: molecule.index)


@functools.cache
def compiled_parts(num_neighbors=0):
    """The three functions of a decoder, each compiled alone, for one molecule."""
    model, params = small.model_and_params()
    model = model.clone(num_neighbors=num_neighbors)
    asked = settings()

    @jax.jit
    def decide(cache, fragment, key):
        bound = model.bind(params)
        return decisions.decide(bound, cache, fragment, key, asked, "exact")

    @jax.jit
    def extend(cache, fragment):
        bound = model.bind(params)
        return decisions.extend_cache(bound, cache, fragment, asked.conditions)

    return decide, extend, lambda: decisions.empty_cache(model, WIDE)


def fragment_of(positions, species):
    missing = WIDE - len(species)
    return Fragment(
        jnp.asarray(np.pad(positions, [(0, missing), (0, 0)]), jnp.float32),
        jnp.asarray(np.pad(species, (0, missing)), jnp.int32),
        jnp.int32(len(species)),
    )


def build_slowly(index, max_atoms=9):
    """Builds a molecule by a loop in Python, one call a decision."""
    decide, extend, empty = compiled_parts()
    key = jax.random.fold_in(jax.random.key(3), index)
    positions, species = np.zeros((0, 3), np.float32), np.zeros(0, np.int32)
    cache, log_likelihood = empty(), 0.0
    while True:
        fragment = fragment_of(positions, species)
        step = decide(cache, fragment, jax.random.fold_in(key, len(species)))
        if len(species) == max_atoms and not bool(step.stop):
            return positions, species, False, log_likelihood
        log_likelihood += float(step.log_likelihood)
        if bool(step.stop):
            return positions, species, True, log_likelihood
        positions = np.concatenate([positions, np.asarray(step.position)[None]])
        species = np.append(species, np.int32(step.species))
        cache = extend(cache, fragment_of(positions, species))


@pytest.fixture(scope="module")
def molecules():
    return run(10)


def test_the_batched_loop_equals_a_slow_one_in_python(molecules):
    for molecule in molecules:
        positions, species, stopped, log_likelihood = build_slowly(molecule.index)
        np.testing.assert_array_equal(molecule.species, species)
        np.testing.assert_allclose(molecule.positions, positions, atol=1e-4)
        assert molecule.stopped == stopped
        np.testing.assert_allclose(
            molecule.log_likelihood, log_likelihood, rtol=1e-3, atol=1e-2
        )


def test_a_molecule_is_the_same_however_many_are_asked_for(molecules):
    # Fewer molecules, and more steps between the looks at what has finished.
    for few, many in zip(run(5, steps_per_call=7), molecules, strict=False):
        assert few.index == many.index
        np.testing.assert_array_equal(few.species, many.species)
        np.testing.assert_allclose(few.positions, many.positions, atol=1e-4)


def test_accelerators_are_asked_for_all_digits():
    product = in_full_precision(lambda x: x @ x)
    assert "Precision.HIGHEST" in str(jax.make_jaxpr(product)(jnp.eye(2)))


def compiled_by(call, caplog):
    """Names of the programs that a call compiles."""
    caplog.clear()
    with jax.log_compiles(), caplog.at_level("WARNING", "jax"):
        call()
    return [m.split()[1] for m in caplog.messages if m.startswith("Compiling ")]


def test_the_loop_is_compiled_once(molecules, caplog):
    @jax.jit
    def fresh(x):
        return x + 1.0

    assert "jit(fresh)" in compiled_by(lambda: fresh(jnp.ones(3)), caplog)
    assert "jit(run)" not in compiled_by(lambda: run(7, steps_per_call=5), caplog)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_only_the_first_atom_sits_at_the_origin(count):
    three = jnp.array(3, jnp.int32)
    drawn = Placement(jnp.array(False), three, jnp.ones(3), jnp.array(-1.0))
    fragment = Fragment(
        jnp.zeros((4, 3)), jnp.zeros(4, jnp.int32), jnp.array(count, jnp.int32)
    )
    logits = jnp.array([-jnp.inf, -jnp.inf, 0.0, -jnp.inf])
    placed = first_or_next(jax.random.key(0), logits, settings(), fragment, drawn)
    assert placed.species == (2 if count == 0 else 3)
    np.testing.assert_array_equal(placed.position, np.full(3, float(count > 0)))
    assert float(placed.log_likelihood) == (0.0 if count == 0 else -1.0)


def test_a_slot_smaller_than_a_molecule_is_an_error():
    with pytest.raises(ValueError, match="at least max_atoms, 13, found 12"):
        run(1, max_atoms=CAPACITY + 1)


def test_every_molecule_is_built_once(molecules):
    assert [molecule.index for molecule in molecules] == list(range(10))
    assert len({len(molecule.species) for molecule in molecules}) > 1


def test_a_molecule_may_stop_at_the_largest_size_and_not_grow_beyond_it(molecules):
    largest = sorted(len(m.species) for m in molecules if m.stopped)[-2]
    limited = run(10, max_atoms=largest)
    assert any(m.stopped and len(m.species) == largest for m in limited)
    assert any(not m.stopped for m in limited)
    for short, free in zip(limited, molecules, strict=True):
        assert len(short.species) == min(len(free.species), largest)
        assert short.stopped == (free.stopped and len(free.species) <= largest)


def test_given_atoms_come_first_and_never_move():
    positions, species = small.chain(1, 3)
    order = np.array([2, 0, 1])
    starts = [
        Start(positions, species.astype(np.int32)),
        Start(positions[order], species[order].astype(np.int32)),
    ]
    grown = run(6, start=lambda index: starts[index % 2])
    for molecule in grown:
        given = starts[molecule.index % 2]
        np.testing.assert_array_equal(molecule.positions[:3], given.positions)
        np.testing.assert_array_equal(molecule.species[:3], given.species)
    assert max(len(molecule.species) for molecule in grown) > 3


def grow_cache(positions, species, num_neighbors=0):
    _, extend, empty = compiled_parts(num_neighbors)
    caches = [empty()]
    for count in range(1, len(species) + 1):
        part = fragment_of(positions[:count], species[:count])
        caches.append(extend(caches[-1], part))
    return caches[1:]


def in_given_order(positions, species):
    """A cut that places the atoms as they come; of its targets only what is used."""
    missing = WIDE - len(species)
    zeros = jnp.zeros(WIDE)
    return Cut(
        positions=jnp.asarray(np.pad(positions, [(0, missing), (0, 0)])),
        species=jnp.asarray(np.pad(species, (0, missing)), jnp.int32),
        node_mask=jnp.arange(WIDE) < len(species),
        focus=jnp.zeros(WIDE, jnp.int32),
        labels=jnp.zeros((WIDE, WIDE, 5)),
        log_law=zeros,
        log_first=zeros[0],
        order=jnp.arange(WIDE, dtype=jnp.int32),
        complete=jnp.array(True),
    )


@pytest.mark.parametrize("num_neighbors", [0, 2])
def test_kept_features_equal_one_pass_over_the_whole_molecule(num_neighbors):
    model, params = small.model_and_params()
    model = model.clone(num_neighbors=num_neighbors)
    positions, species = small.chain(2, 6)
    caches = grow_cache(positions, species, num_neighbors)

    @jax.jit
    def whole(drawn):
        return likelihood.step_features(model.bind(params), drawn, small.NO_NOISE)

    @jax.jit
    def from_cache(cache, fragment):
        bound = model.bind(params)
        return decisions.embed_fragment(bound, cache, fragment, small.NO_NOISE)

    node_feats, next_atom = whole(in_given_order(positions, species))
    for step, cache in enumerate(caches):
        count = step + 1
        part = fragment_of(positions[:count], species[:count])
        feats, now = from_cache(cache, part)
        for irrep, rows in feats.items():
            expected = node_feats[irrep][:count]
            np.testing.assert_allclose(rows[:count], expected, atol=1e-5)
        np.testing.assert_allclose(now.stop[0], next_atom.stop[step], atol=1e-5)
        np.testing.assert_allclose(
            now.focus_species[0, :count],
            next_atom.focus_species[step, :count],
            atol=1e-5,
        )


def test_a_shortened_cache_is_that_of_the_atoms_that_stay():
    model, params = small.model_and_params()
    positions, species = small.chain(2, 6)
    caches = grow_cache(positions, species)
    part = fragment_of(positions[:3], species[:3])

    @jax.jit
    def embed(cache, shortens):
        bound = model.bind(params)
        short = decisions.shorten_cache(bound, cache, part)
        cache = jax.tree.map(lambda a, b: jnp.where(shortens, a, b), short, cache)
        return decisions.embed_fragment(bound, cache, part, small.NO_NOISE)[1]

    expected, found = embed(caches[2], False), embed(caches[-1], True)
    np.testing.assert_allclose(found.stop, expected.stop, atol=1e-5)
    logits = [one.focus_species[0, :3] for one in (found, expected)]
    np.testing.assert_allclose(*logits, atol=1e-5)
    # Without it, what later atoms sent would stay.
    kept = embed(caches[-1], False).focus_species[0, :3]
    assert np.abs(kept - logits[1]).max() > 1e-3


def test_no_pair_is_dropped_in_a_crowded_molecule():
    model, _ = small.model_and_params()
    lattice = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)
    positions = (1.3 * lattice[:29] + 0.01).astype(np.float32)
    cache = grow_cache(positions, np.zeros(29, np.int32))[-1]
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
    near = (distances < model.cutoff) & ~np.eye(29, dtype=bool)
    assert near.sum() > 574
    seen = np.abs(np.asarray(cache.pair_feats)).max(axis=-1) > 0
    np.testing.assert_array_equal(seen[:29, :29], near)
    assert not seen[29:].any()
    assert not seen[:, 29:].any()


def with_a_narrow_fine_stage(params):
    """Keeps the fine stage within the blur, from which its density is estimated."""
    layers = dict(params["params"])
    for name in ("fine_probe", "approaches_0"):
        vectors = jax.tree.map(lambda x: 0.1 * x, layers[name]["vectors"])
        layers[name] = layers[name] | {"vectors": vectors}
    outputs = jax.tree.map(lambda x: 0.1 * x, layers["fine_outputs"])
    half = outputs["bias"].shape[0] // 2
    outputs["bias"] = outputs["bias"].at[half:].set(-0.5)
    return {"params": layers | {"fine_outputs": outputs}}


def in_chunks(function, inputs):
    """`vmap` in pieces, which takes less memory."""
    return jax.lax.map(function, inputs, batch_size=500)


@functools.cache
def position_head():
    """Draws from one focus and species of a fragment, and their density there."""
    model, params = small.model_and_params()
    params = with_a_narrow_fine_stage(params)
    positions, species = small.chain(4, 4)
    drawn = in_given_order(positions, species)
    focus, target, step = 1, 2, 3

    def surroundings(bound):
        node_feats, next_atom = likelihood.step_features(bound, drawn, small.NO_NOISE)
        now = jax.tree.map(lambda x: x[step][None], next_atom)
        logits = jnp.full_like(now.focus_species, -jnp.inf).at[0, focus, target].set(0)
        now = now._replace(focus_species=logits, stop=jnp.full(1, -jnp.inf))
        return node_feats, now, jnp.arange(WIDE) <= step

    @jax.jit
    def draw(keys):
        bound = model.bind(params)
        feats, now, placed = surroundings(bound)

        def one(key):
            placement = decisions.draw_next(
                bound, key, settings(), "exact", drawn.positions, placed, feats, now
            )
            return placement.position - drawn.positions[focus]

        return in_chunks(one, keys)

    @jax.jit
    def log_density(keys, radii, directions):
        bound = model.bind(params)
        feats, now, placed = surroundings(bound)
        at = jnp.array([focus])
        condition = bound.position_condition(feats, now, at, jnp.array([target]))
        around = Surroundings(feats, drawn.positions, at, placed[None])

        def one(key, radius, direction):
            coefficients = bound.coarse(condition, radius[None], around)[0]
            return decisions.position_log_density(
                bound, key, condition, radius, direction, coefficients, around, 64
            )

        return in_chunks(lambda given: one(*given), (keys, radii, directions))

    return draw, log_density, (model.min_radius, model.max_radius)


def cells_of(vectors):
    """Numbers 24 cells: octants, and thirds of the radius."""
    radii = np.linalg.norm(vectors, axis=-1)
    octant = (vectors > 0) @ np.array([1, 2, 4])
    return octant * 3 + np.digitize(radii, [1.2, 1.9])


def test_positions_are_drawn_from_the_density_that_is_scored():
    draw, log_density, (low, high) = position_head()
    count, num_points = 10_000, 40_000
    vectors = np.asarray(draw(jax.random.split(jax.random.key(0), count)))
    observed = np.bincount(cells_of(vectors), minlength=24) / count

    # The estimate of the density is unbiased, so uniform points integrate it.
    rng = np.random.default_rng(0)
    radii = np.cbrt(rng.uniform(low**3, high**3, num_points)).astype(np.float32)
    directions = rng.normal(size=(num_points, 3)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    keys = jax.random.split(jax.random.key(1), num_points)
    volume = 4.0 / 3.0 * np.pi * (high**3 - low**3)
    masses = volume * np.exp(np.asarray(log_density(keys, radii, directions)))
    np.testing.assert_allclose(masses.mean(), 1.0, atol=0.05)
    in_cell = np.eye(24)[cells_of(radii[:, None] * directions)] * masses[:, None]
    expected = in_cell.mean(axis=0)
    variance = in_cell.var(axis=0) / num_points + observed * (1.0 - observed) / count
    chi_square = np.sum((observed - expected) ** 2 / (variance + 1e-9))
    assert chi_square < 51.2, f"{chi_square} with 24 cells, p < 0.001"
    # The density is none that a mistake in direction or radius would leave alone.
    assert expected.max() > 2.0 * expected.min()


def test_directions_and_radii_do_not_repeat():
    draw, _, _ = position_head()
    vectors = np.asarray(draw(jax.random.split(jax.random.key(0), 10_000)))
    radii = np.linalg.norm(vectors, axis=-1)
    directions = np.round(vectors / radii[:, None], 6)
    assert len(np.unique(directions, axis=0)) > 9_990
    assert len(np.unique(radii)) > 9_900


@functools.cache
def compiled_draws(mode):
    """Many draws of one step of a fragment, which may be rotated."""
    model, params = small.model_and_params()
    positions, species = small.chain(6, 4)
    fragment = fragment_of(positions, species)

    @jax.jit
    def draw(keys, rotation, asked):
        bound = model.bind(params)
        turned = fragment._replace(positions=fragment.positions @ rotation.T)
        cache = decisions.empty_cache(model, WIDE)
        for count in range(1, len(species) + 1):
            part = turned._replace(num_atoms=jnp.int32(count))
            cache = decisions.extend_cache(bound, cache, part, asked.conditions)
        decide = functools.partial(decisions.decide, bound, cache, turned)
        return in_chunks(lambda key: decide(key, asked, mode), keys)

    return draw


def energy_distance(distances, is_first):
    """Of two samples, from all distances between their union's points."""
    first = is_first / is_first.sum()
    second = ~is_first / (~is_first).sum()
    return -(first - second) @ distances @ (first - second)


def test_a_turned_fragment_gives_the_turned_distribution():
    draw = compiled_draws("exact")
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    rotation = rotation.astype(np.float32)
    halves = []
    for seed, turn in ((0, np.eye(3, dtype=np.float32)), (1, rotation)):
        drawn = draw(jax.random.split(jax.random.key(seed), 1_500), turn, settings())
        placed = ~np.asarray(drawn.stop)
        # Species are one more coordinate, far apart.
        species = 3.0 * np.asarray(drawn.species)[placed, None]
        halves.append(np.concatenate([drawn.position[placed] @ turn, species], axis=1))
    points = np.concatenate(halves)
    is_first = np.arange(len(points)) < len(halves[0])
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    found = energy_distance(distances, is_first)
    rng = np.random.default_rng(2)
    permuted = [
        energy_distance(distances, rng.permutation(is_first)) for _ in range(400)
    ]
    assert np.mean(np.array(permuted) >= found) > 0.005
    # The same test sees that the fragment was turned.
    unturned = np.concatenate([halves[0], halves[1]])
    unturned[~is_first, :3] = unturned[~is_first, :3] @ rotation.T
    distances = np.linalg.norm(unturned[:, None] - unturned, axis=-1)
    assert energy_distance(distances, is_first) > max(permuted)


def test_near_temperature_zero_only_the_likeliest_is_drawn():
    draw = compiled_draws("tempered")
    keys = jax.random.split(jax.random.key(0), 64)
    zero = jnp.float32(1e-3)
    one = np.eye(3, dtype=np.float32)
    frozen = draw(keys, one, settings()._replace(focus_temperature=zero))
    choices = np.stack([frozen.stop, frozen.species], axis=1)
    assert len(np.unique(choices, axis=0)) == 1
    free = draw(keys, one, settings())
    assert len(np.unique(np.asarray(free.species))) > 1
    cold = settings()._replace(focus_temperature=zero, position_temperature=zero)
    spread = lambda drawn: np.linalg.norm(np.std(drawn.position, axis=0))
    assert spread(draw(keys, one, cold)) < 0.2 * spread(frozen)
