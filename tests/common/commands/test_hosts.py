"""Which process of how many the environment tells of; runs are in test_processes."""

import pytest

from common.commands import hosts
from common.errors import UsageError

SLURM = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[01-02]", "SLURM_NTASKS": "8",
    "SLURM_PROCID": "3", "SLURM_LOCALID": "3",
}  # fmt: skip
OPEN_MPI_4 = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}  # fmt: skip
OPEN_MPI_5 = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
PLAIN = {
    "JAX_COORDINATOR_ADDRESS": "node01:1234", "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "1",
}  # fmt: skip
ADDRESS = {"JAX_COORDINATOR_ADDRESS": "node01:1234"}


def place_in(environment, monkeypatch):
    for name in {**SLURM, **OPEN_MPI_4, **PLAIN, "JOB_COMPLETION_INDEX": ""}:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return hosts.find()


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, None),
        (PLAIN, ("node01:1234", 2, 1)),
        (PLAIN | {"JAX_NUM_PROCESSES": "1"}, None),
        (SLURM, (None, 8, None)),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        (SLURM | {"JAX_NUM_PROCESSES": "1"}, None),
        (OPEN_MPI_4, (None, 2, None)),
        (OPEN_MPI_5 | ADDRESS, ("node01:1234", 2, 1)),
        (OPEN_MPI_5 | {"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
    ],
)
def test_launchers_and_variables_tell_the_place(environment, place, monkeypatch):
    assert place_in(environment, monkeypatch) == place


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (ADDRESS, "found no JAX_NUM_PROCESSES, JAX_PROCESS_ID"),
        (OPEN_MPI_5, "found no JAX_COORDINATOR_ADDRESS"),
        (PLAIN | {"JAX_PROCESS_ID": "one"}, "JAX_PROCESS_ID: expected a whole number"),
        (SLURM | {"SLURM_NTASKS": "many"}, "a launcher that tells of its processes"),
    ],
)
def test_half_of_a_place_is_refused(environment, message, monkeypatch):
    with pytest.raises(UsageError, match=message):
        place_in(environment, monkeypatch)
