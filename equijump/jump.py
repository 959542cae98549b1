"""One jump of one replica, and the arrays of the molecule that it is about."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from common.nn.conditions import Known, known
from common.programs import digest
from equijump import build, steering
from equijump.cloud import (
    Cloud,
    PerResidue,
    SlotMask,
    Tree,
    from_cloud,
    positions_of,
    recentred,
    roots_of,
    tree_of,
)
from equijump.data.residues import num_types_of
from equijump.data.topology import System
from equijump.model import EquiJump
from equijump.transport import paths


class Chain(NamedTuple):
    """Constants of a rollout.

    Attributes:
        tokens: residue types.
        slot_mask: true for atoms.
        chains: number of the chain of each residue.
        numbers: place of each residue in its chain.
        places: slot of each kept atom, slots of all residues counted through.
        conditions: numbers that the network is given; the lag, in ps, is unknown where
            frames do not depend on the one before.
        tree: tree of the clouds; None for vectors from CA.
        contacts: least distances, see `equijump.steering`; None for no steering.
    """

    tokens: PerResidue
    slot_mask: SlotMask
    chains: PerResidue
    numbers: PerResidue
    places: Int[Array, " num_atoms"]
    conditions: dict[str, Known]
    tree: Tree | None = None
    contacts: steering.Contacts | None = None


def chain_of(
    system: System, conditions: Mapping[str, float], cloud: str = "ca"
) -> Chain:
    """Returns the arrays of a system that the network reads.

    Args:
        system: molecule.
        conditions: numbers by the names of `common.nn.conditions.CONDITIONS`; without
            a lag, frames are drawn one by one.
        cloud: kind of cloud that the network sees, see `equijump.cloud`.
    """
    atoms = system.slot_atoms.ravel()
    places = np.flatnonzero(atoms >= 0)
    unknown = Known(jnp.ones(()), jnp.zeros((), bool))
    values = {name: jnp.float32(value) for name, value in conditions.items()}
    names = tuple(map(jnp.asarray, (system.tokens, system.chains, system.numbers)))
    tokens, chains, numbers = names
    return Chain(
        tokens=tokens,
        slot_mask=jnp.asarray(system.slot_atoms >= 0),
        chains=chains,
        numbers=numbers,
        places=jnp.asarray(places[np.argsort(atoms[places])]),
        conditions={"lag": unknown, **known(values)},
        tree=tree_of(cloud, num_types_of(system.slot_atoms.shape[1]), *names),
    )


def atoms_of(cloud: Cloud, chain: Chain) -> Float[Array, "num_atoms 3"]:
    """Returns the positions of the kept atoms of a tensor cloud, Å."""
    return from_cloud(cloud, chain.tree).reshape(-1, 3)[chain.places]


def make_jump(
    model: EquiJump,
    transport: Any,
    statistics: build.Statistics,
    noise_factor: float,
    num_steps: int,
    method: str = "",
    random_frames: bool = False,
    repulsion: float = 0.0,
) -> Callable[..., Cloud]:
    """Returns `(params, cloud, chain, key) -> cloud`, one jump of one replica.

    Without a lag the frame that it is given is not looked at. The function's `name` is
    a digest of all that decides it, see `common.programs.kept`.

    Args:
        model: network.
        transport: module of `equijump.transport`.
        statistics: spreads of the training data.
        noise_factor: noise over displacement, see `equijump.build.scales_at`.
        num_steps: evaluations of the network.
        method: one of the transport's `METHODS`; the first if empty.
        random_frames: true for random frames, see `equijump.build.has_random_frames`.
        repulsion: least distances of atoms in units of `equijump.steering.RADII`; 0 for
            none.
    """
    method = method or transport.METHODS[0]

    def jump(params: Any, x_0: Cloud, chain: Chain, key: Key[Array, ""]) -> Cloud:
        lag = chain.conditions["lag"]
        x_0 = jnp.where(lag.mask, x_0, 0.0)
        origin, lag = build.begin_path(x_0, lag, random_frames)
        tree = chain.tree
        scales = build.scales_of(statistics, lag, noise_factor, chain, tree)
        scene = build.scene_of(model, positions_of(x_0, tree), chain)
        predict = build.make_predict(
            model.bind(params), transport, scales, scene, x_0, origin,
            _steer(chain, scales, repulsion) if repulsion else None,
        )  # fmt: skip
        noise = partial(
            paths.draw_noise,
            slot_mask=chain.slot_mask,
            places=chain.places,
            roots=roots_of(chain.slot_mask, tree),
        )
        request = paths.Request(predict, noise, key, origin, scales, num_steps, method)
        x_1 = transport.jump(request)
        return recentred(x_1, chain.slot_mask, tree)

    jump.name = digest(
        model, transport.__name__, statistics, noise_factor, num_steps, method,
        random_frames, repulsion,
    )  # fmt: skip
    return jump


def _steer(
    chain: Chain, scales: paths.Scales, repulsion: float
) -> Callable[[Cloud, Array], Cloud]:
    """Returns what keeps the atoms of a chain apart, see `equijump.steering`."""
    contacts, positions = repulsion * chain.contacts, partial(atoms_of, chain=chain)
    return lambda end, std: steering.apart(end, std, scales.bonds, contacts, positions)
