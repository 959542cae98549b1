"""Published networks as judges: energies, forces, stress, curvature, cells, parity."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.commands import import_nequix
from common.errors import UsageError
from common.nn.energy import EnergyModel, Neighbours, hessian, make_structure, predict
from common.runs.weights import load

FOLDER = Path(__file__).with_name("nequix")
NAMES = ["nequix-mp-1", "nequix-mp-1-pft"]
SIZE, SENDERS = 9, 88
"""Atoms and neighbours to which all structures are padded: one program for all."""


@functools.cache
def network(name):
    published = import_nequix.read(FOLDER / f"{name}.nqx")
    config = import_nequix.to_config(published)
    params = jax.tree.map(jnp.asarray, import_nequix.to_params(published))
    fields = tuple(config.data.species), tuple(config.data.atom_energies)
    return EnergyModel(*fields, **config.model), params


def structure_of(row, species, cutoff):
    numbers = [species.index(number) for number in row["numbers"]]
    # A molecule is one of a crystal whose cells do not see each other.
    cell = np.array(row["cell"]) if row["pbc"] else 100.0 * np.eye(3)
    positions = np.array(row["positions"])
    found = make_structure(positions, np.array(numbers), cutoff, cell, SENDERS)
    pad = lambda a: jnp.pad(a, [(0, SIZE - len(a))] + [(0, 0)] * (a.ndim - 1))
    near = Neighbours(*map(pad, found.neighbours))
    rest = {name: pad(getattr(found, name)) for name in ("positions", "species")}
    return found._replace(node_mask=pad(found.node_mask), neighbours=near, **rest)


@functools.partial(jax.jit, static_argnums=0)
def answer(model, params, structure):
    return predict(lambda s: model.apply(params, s).energy.sum(), structure)


@functools.partial(jax.jit, static_argnums=0)
def curvature(model, params, structure):
    return hessian(lambda s: model.apply(params, s).energy.sum(), structure)


def relative(found, wanted):
    wanted = np.array(wanted)
    return np.abs(np.asarray(found) - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("name", NAMES)
def test_published_energies_forces_and_stresses_are_ours(name):
    model, params = network(name)
    for row in json.loads((FOLDER / f"{name}.json").read_text()).values():
        structure = structure_of(row, model.atomic_numbers, model.cutoff)
        found, count = answer(model, params, structure), len(row["numbers"])
        assert abs(float(found.energy) - row["energy"]) < 1e-5 * count
        assert relative(found.forces[:count], row["forces"]) < 1e-4
        assert not np.any(found.forces[count:])
        if row["pbc"]:
            assert relative(found.stress, row["stress"]) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_published_curvature_is_ours(name):
    model, params = network(name)
    row = json.loads((FOLDER / f"{name}.json").read_text())["silicon_2"]
    numbers = np.array([model.atomic_numbers.index(n) for n in row["numbers"]])
    place = np.array(row["positions"]), numbers, model.cutoff, np.array(row["cell"])
    found = curvature(model, params, make_structure(*place))
    assert relative(found.reshape(6, 6), row["hessian"]) < 1e-3


def test_the_command_makes_weights_that_load(tmp_path):
    output = tmp_path / "mine"
    import_nequix.main([str(FOLDER / "nequix-mp-1.nqx"), f"--output={output}"])
    trained = load(output, tmp_path, kinds=["energy"])
    _, params = network("nequix-mp-1")
    for a, b in zip(
        jax.tree.leaves(trained.params), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert trained.config.model.cutoff == 6.0


def test_other_files_and_networks_are_refused(tmp_path):
    head, rest = (FOLDER / "nequix-mp-1.nqx").read_bytes().split(b"\n", 1)
    settings = json.loads(head) | {"layer_norm": False}
    other, short = tmp_path / "other.nqx", tmp_path / "short.nqx"
    other.write_bytes(json.dumps(settings).encode() + b"\n" + rest)
    short.write_bytes(head + b"\n" + rest[:1000])
    with pytest.raises(UsageError, match="expected layer_norm = True, found False"):
        import_nequix.read(other)
    with pytest.raises(UsageError, match="settings and arrays of Nequix"):
        import_nequix.read(short)
    with pytest.raises(UsageError, match=r"expected a file \.nqx, found none"):
        import_nequix.read(tmp_path / "none.nqx")
