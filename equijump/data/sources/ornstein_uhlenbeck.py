r"""A process whose every law is known, in the form of a trajectory.

The Ornstein-Uhlenbeck process, $x_{k+1} = a x_k + \sqrt{1 - a^2} s \xi$ with
$a = \exp(-\Delta / \tau)$: two residues of glycine, the vector between them and those
to their atoms, are each isotropic and normal with a standard deviation of their own.
"""

from collections.abc import Iterator

import ml_collections
import numpy as np

from common.errors import UsageError
from common.nn.conditions import ROOM_TEMPERATURE
from equijump.data.frames import Trajectory
from equijump.data.residues import CA_SLOT, NUM_SLOTS, TOKENS
from equijump.data.topology import System

CORRELATION_TIME, SPACING = 20.0, 1.0
"""ps."""

POSITION, VECTOR = 3.0, 1.5
"""Å, standard deviation an axis of a CA from the middle, and of an atom from its CA."""

NUM_FRAMES, NUM_TRAJECTORIES = 20_000, 4
_ATOMS = ("N", "CA", "C", "O")


def read(argument: str, data: ml_collections.ConfigDict) -> Iterator[Trajectory]:
    """Yields independent trajectories of two residues, the same at each call.

    Args:
        argument: number of trajectories; 4 where empty.
        data: group `data` of a config, not read.
    """
    del data
    if not (argument or "1").isdigit():
        raise UsageError(
            f"config.data.sources: expected ou or ou:<number>, found ou:{argument}"
        )
    yield from map(_trajectory, range(int(argument or NUM_TRAJECTORIES)))


def _trajectory(number: int) -> Trajectory:
    import scipy.signal

    rng = np.random.default_rng((number, 17))
    a = np.exp(-SPACING / CORRELATION_TIME)
    is_position = np.arange(len(_ATOMS))[:, None] == CA_SLOT
    scale = np.where(is_position, POSITION, VECTOR)
    kicks = scale * rng.normal(size=(NUM_FRAMES, 2, len(_ATOMS), 3))
    kicks[1:] *= np.sqrt(1.0 - a**2)
    vectors = scipy.signal.lfilter([1.0], [1.0, -a], kicks, axis=0)
    # Each CA lies where the first one's vector says, the other opposite.
    position = vectors[:, 0, CA_SLOT]
    positions = np.stack([position, -position], axis=1)[:, :, None]
    atoms = positions + np.where(is_position, 0.0, vectors)
    return Trajectory(
        name=f"ou_{number}",
        system=_system(),
        positions=atoms.reshape(NUM_FRAMES, -1, 3).astype(np.float32),
        spacing=SPACING,
        checksum=f"ornstein-uhlenbeck {number}",
        conditions={"temperature": ROOM_TEMPERATURE},
    )


def _system() -> System:
    slots = np.full((2, NUM_SLOTS), -1, np.int32)
    slots[:, : len(_ATOMS)] = np.arange(2 * len(_ATOMS)).reshape(2, -1)
    bonds = [[0, 1], [1, 2], [2, 3], [4, 5], [5, 6], [6, 7], [2, 4]]
    return System(
        tokens=np.full(2, TOKENS["GLY"], np.int32),
        chains=np.zeros(2, np.int32),
        numbers=np.arange(2, dtype=np.int32),
        slot_atoms=slots,
        bonds=np.array(bonds, np.int32),
        kept=np.arange(2 * len(_ATOMS), dtype=np.int32),
        residue_names=("GLY", "GLY"),
        atom_names=2 * _ATOMS,
    )
