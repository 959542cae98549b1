"""A small network with weights of ordinary size, and molecules to show it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.conditions import known
from configs.symphony import tiny
from symphony import build, densities, loss, manifest
from symphony.chemistry import bonds
from symphony.orders import Law, cut, draw_cut_noise

IS_HEAVY = np.array([False, True, True, True, True])
NUM_NODES = 6

# Moves coarse directions off the true ones, in place of random numbers.
NOISE = np.random.default_rng(5).normal(size=(16, 3)).astype(np.float32)

NO_NOISE = known({"noise_std": jnp.zeros(())})
"""Conditions of a network without properties."""


def make_config():
    config = tiny.get_config()
    config.model.update(num_layers=2, max_degree=2, head_max_degree=3)
    return config


@functools.cache
def model_and_params():
    """Biases and the nearly zero outputs of a fresh network are moved away from it."""
    config = make_config()
    params = build.init_params(make_config(), jax.random.key(0))
    rng = np.random.default_rng(0)

    def moved(path, leaf):
        # A fine stage wider than the blur would need more draws than tests have.
        name = jax.tree_util.keystr(path)
        std = 0.03 if "vectors" in name or "fine_outputs" in name else 0.2
        return leaf + std * rng.normal(size=leaf.shape).astype(np.float32)

    return build.make_model(config), jax.tree_util.tree_map_with_path(moved, params)


def chain(seed, num_atoms):
    """Atoms 1.1 to 1.5 Å from an earlier one, and none closer than 1 Å to another."""
    rng = np.random.default_rng(seed)
    positions = np.zeros((1, 3))
    while len(positions) < num_atoms:
        step = rng.normal(size=3)
        step *= rng.uniform(1.1, 1.5) / np.linalg.norm(step)
        new = positions[rng.integers(len(positions))] + step
        if np.linalg.norm(positions - new, axis=1).min() > 1.0:
            positions = np.concatenate([positions, new[None]])
    return positions.astype(np.float32), rng.integers(0, 5, num_atoms)


@functools.partial(jax.jit, static_argnames="num_nodes")
def _cut(seed, positions, species, node_mask, num_nodes):
    noise = draw_cut_noise(jax.random.key(seed), num_nodes)
    heavy = jnp.asarray(IS_HEAVY)
    return cut(noise, positions, species, node_mask, Law(heavy, 0.125, 5.0, False))


def cut_of(positions, species, num_nodes, seed=0):
    """Cuts a molecule after padding it."""
    missing = num_nodes - len(species)
    return _cut(
        seed,
        np.pad(positions, [(0, missing), (0, 0)]).astype(np.float32),
        np.pad(species, (0, missing)),
        np.arange(num_nodes) < len(species),
        num_nodes,
    )


def pad_cut(drawn, num_nodes, filler=0.0):
    """Moves a cut to a larger bucket, with anything where there is no atom."""
    missing = num_nodes - drawn.species.shape[0]
    axes = dict.fromkeys(drawn._fields, 1)
    axes |= {"labels": 2, "log_first": 0, "complete": 0}

    def pad(name, leaf):
        if axes[name] == 0:
            return leaf
        widths = [(0, missing if axis < axes[name] else 0) for axis in range(leaf.ndim)]
        value = filler if name == "positions" else 0
        return jnp.pad(leaf, widths, constant_values=value)

    leaves = {name: pad(name, leaf) for name, leaf in drawn._asdict().items()}
    return type(drawn)(**leaves)


def step_terms(model, params, drawn, rotation=None, noise_std=0.0):
    """Evaluates every step.

    Coarse directions are displaced by `NOISE` instead of at random.

    Args:
        model: the network.
        params: its parameters.
        drawn: a cut.
        rotation: rotation of the noise on coordinates and on coarse directions.
        noise_std: noise on coordinates, in Å.
    """
    num_nodes = drawn.species.shape[0]
    rotation = jnp.eye(3) if rotation is None else rotation
    noise = jnp.asarray(NOISE) @ rotation.T
    bound = model.bind(params)
    arguments = (
        known({"noise_std": jnp.asarray(noise_std)}),
        noise[:num_nodes],
        jax.random.key(0),
    )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss, "blur", functools.partial(_blur_by, noise))
        return loss.step_terms(bound, drawn, *arguments)


def value_and_gradients(model):
    """Returns a compiled function: terms, gradients by weights and positions."""

    def total(params, positions, drawn):
        drawn = drawn._replace(positions=positions)
        terms = step_terms(model, params, drawn)
        return loss.totals(terms)["nll"], terms

    function = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
    return jax.jit(lambda params, drawn: function(params, drawn.positions, drawn))


def _blur_by(noise, key, direction, scale):
    tangent = densities.tangent_part(direction, noise[: direction.shape[0]])
    return densities.exponential_map(direction, scale * tangent)


def with_bonds(samples, preset=manifest.BOND_PRESET):
    """Stands for `manifest.with_bonds`: perceives in this process."""
    for one in samples:
        task = manifest._bond_task(one, preset)
        words = task["preset"], task["name"], task["properties"]
        yield one, *bonds.to_sdf(one.atomic_numbers, one.positions, *words)
