"""What the tests of training, rollouts and packaged weights share: one short run."""

import pytest

from configs.equijump import tiny
from equijump import package, train, weights
from equijump.data import splits
from tests.equijump.test_data_topology import ALANINE_DIPEPTIDE


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", autouse=True)
def own_cache(cache):
    """One cache of packed data for all tests, but those of `fresh_cache`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        yield


@pytest.fixture
def topology(tmp_path):
    """A PDB file of alanine dipeptide."""
    path = tmp_path / "ala2.pdb"
    path.write_text(ALANINE_DIPEPTIDE)
    return path


@pytest.fixture(scope="session")
def finished(cache, tmp_path_factory):
    """The folder of a run of six steps, and its last state."""
    workdir = tmp_path_factory.mktemp("run")
    config = tiny.get_config()
    config.sample.num_steps = 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return workdir, train.train(config, workdir)


@pytest.fixture(scope="session")
def segments(cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return splits.load_segments(tiny.get_config())


@pytest.fixture(scope="session")
def packaged(finished, cache, tmp_path_factory):
    """The weights of that run, packaged, with starts."""
    folder = tmp_path_factory.mktemp("weights") / "small"
    given = [f"--workdir={finished[0]}", f"--output={folder}", "--name=ala2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        assert package.main(given) == 0
    return folder


@pytest.fixture(scope="session")
def loaded(packaged):
    return weights.load_weights(packaged)


@pytest.fixture(scope="session")
def jump(loaded):
    """Of that run, with three inner steps: compiled once for all tests."""
    return weights.make_jump(loaded, 3)
