"""Long sampling, whose memory must not grow; half an hour, slow."""

import pytest

from tests.soak import watch


@pytest.mark.slow
def test_sampling_of_20000_molecules_does_not_grow(tmp_path):
    memory = watch(
        "symphony", "sample", "--checkpoint=qm9_cpu", "--num_molecules=20000",
        f"--output={tmp_path / 'many.sdf'}",
    )  # fmt: skip
    assert memory.slope < 0.01
