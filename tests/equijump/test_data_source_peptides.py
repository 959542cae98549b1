"""Tests of packed sets of peptides, on files as they are published."""

import mdtraj
import numpy as np
import pytest

from common.errors import UsageError
from equijump.data import sources
from equijump.data.sources import peptides
from tests.equijump.test_data_sources import settings

pytestmark = pytest.mark.usefixtures("fresh_cache")


def make(topology, folder, form="packed", lanes=3, frames=5, change=None, **more):
    """Writes A.npz and A.pdb, and returns the positions in whole units of 1e-4 nm."""
    heavy = mdtraj.load(str(topology))
    heavy = heavy.atom_slice(heavy.topology.select("element != H"))
    folder.mkdir(parents=True, exist_ok=True)
    heavy.save(str(folder / "A.pdb"))
    rng = np.random.default_rng(3)
    shape = (lanes, frames, heavy.n_atoms, 3)
    unit = 5e-4 if form == "packed" else 1e-4
    places = np.round((heavy.xyz[0] + 0.004 * rng.normal(size=shape)) / unit)
    places = places.astype(np.int16)
    arrays = {"spacing_ps": 5.0, "temperature_K": 300.0, "seed": 7}
    if form == "packed":
        steps = np.diff(places, axis=2, prepend=np.int16(0)).astype(np.int16)
        arrays |= {"high": (steps >> 8).astype(np.int8), "unit_nm": unit}
        arrays |= {"low": (steps & 255).astype(np.uint8)}
    else:
        arrays["positions"] = places
    arrays |= more
    for name in change or ():
        del arrays[name]
    np.savez_compressed(folder / "A.npz", **arrays)
    return places * unit


@pytest.mark.parametrize("form", ["packed", "plain"])
@pytest.mark.parametrize("pattern", ["set/*.npz", "set/A.npz", "set"])
def test_each_lane_is_a_trajectory(tmp_path, topology, form, pattern):
    places = make(topology, tmp_path / "set", form)
    found = list(sources.read(settings((f"peptides:{tmp_path / pattern}",))))
    assert [t.name for t in found] == ["A_00", "A_01", "A_02"]
    assert len({t.checksum for t in found}) == 3
    for lane, one in enumerate(found):
        assert one.spacing == 5.0
        assert one.times is None
        assert one.conditions == {"temperature": 300.0}
        expected = 10.0 * places[lane][:, one.system.kept]
        np.testing.assert_allclose(one.positions[:], expected, atol=1e-4)
        assert one.system.residue_names == ("ACE", "ALA", "NME")


@pytest.mark.parametrize(
    ("change", "more", "told"),
    [
        (["low"], {}, r"A\.npz: expected a packed set .* found no 'low'"),
        (["spacing_ps"], {}, "found no 'spacing_ps'"),
        (["temperature_K"], {}, "found no 'temperature_K'"),
        ([], {"spacing_ps": 0.0}, "found a spacing of 0 ps"),
        ([], {"high": np.zeros((2, 3), np.int8)}, "found high of shape"),
        ([], {"unit_nm": 1e-3}, "expected the heavy atoms .* times as long"),
    ],
)
def test_what_is_no_packed_set_is_told(tmp_path, topology, change, more, told):
    make(topology, tmp_path, change=change, **more)
    with pytest.raises(UsageError, match=told):
        list(peptides.read(f"{tmp_path}/*.npz", settings(())))


def test_a_topology_of_other_atoms_is_refused(tmp_path, topology):
    make(topology, tmp_path)
    lines = (tmp_path / "A.pdb").read_text().splitlines(keepends=True)
    atoms = [line for line in lines if line.startswith(("ATOM", "HETATM"))]
    (tmp_path / "A.pdb").write_text("".join(atoms[:-1]))
    with pytest.raises(UsageError, match=r"expected the 9 atoms of A\.pdb, found 10"):
        list(peptides.read(f"{tmp_path}/*.npz", settings(())))
    (tmp_path / "A.pdb").unlink()
    with pytest.raises(UsageError, match="expected its topology beside it"):
        list(peptides.read(f"{tmp_path}/*.npz", settings(())))
