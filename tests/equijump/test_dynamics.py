"""Tests of the dynamics that are told of a run's trajectories."""

import json

import ml_collections
import pytest

from equijump import dynamics

FLAGS = {"force_field": "ff14SB", "solvent": "obc2", "temperature": 300.0}


def config_of(tmp_path, *simulations):
    """A config of trajectories in folders, each with the flags that made it."""
    sources = []
    for number, flags in enumerate(simulations):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "run.xtc").touch()
        if flags is not None:
            (folder / "simulate.json").write_text(json.dumps({"flags": flags}))
        sources.append(str(folder / "*.xtc"))
    return ml_collections.ConfigDict({"data": {"sources": tuple(sources)}})


@pytest.mark.parametrize(
    ("simulations", "told"),
    [
        ([FLAGS | {"friction": 1.0}], "ff14SB, OBC2, 300 K, friction 1/ps, not water"),
        (
            [FLAGS | {"friction": 2.5, "solvent": "none"}] * 2,
            "ff14SB, no solvent, 300 K, friction 2.5/ps, not water",
        ),
        ([FLAGS | {"friction": 1.0}, FLAGS | {"friction": 2.0}], ""),
        ([FLAGS | {"friction": 1.0}, None], ""),
        ([FLAGS], ""),
        ([], ""),
    ],
)
def test_the_dynamics_of_simulations_are_told_where_they_agree(
    simulations, told, tmp_path
):
    assert dynamics.of_config(config_of(tmp_path, *simulations)) == told
