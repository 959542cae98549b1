"""Fixed-size batches from a few size buckets, each a function of (seed, step).

Padded atoms have mask False, position 0 and species 0. All on the host, in NumPy.
"""

import functools
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, Integer

from common.nn.conditions import Known
from symphony.data.molecules import Molecules, to_species


class Batch(NamedTuple):
    """Molecules padded to one size.

    Attributes:
        positions: positions of the atoms, in Å; 0 where padded.
        species: index into the species table; 0 where padded.
        node_mask: true where there is an atom. A row without any is padding too.
        conditions: numbers of the molecules by name; unknown ones are masked.
        targets: numbers that a network is to foresee of each molecule, likewise.
        vectors: three for each atom that it is to foresee; 0 where padded.
        conformers: of a bucket whose molecules have several, how many begin at a row,
            0 at those that follow; None where each row is a molecule.
    """

    positions: Float32[np.ndarray, "batch num_nodes 3"]
    species: Int32[np.ndarray, "batch num_nodes"]
    node_mask: Bool[np.ndarray, "batch num_nodes"]
    conditions: dict[str, Known]
    targets: dict[str, Known] = {}  # noqa: RUF012
    vectors: dict[str, Float32[np.ndarray, "batch num_nodes 3"]] = {}  # noqa: RUF012
    conformers: Int32[np.ndarray, " batch"] | None = None


def choose_buckets(
    num_atoms: Integer[np.ndarray, " num_molecules"], num_buckets: int = 5
) -> tuple[int, ...]:
    """Returns the bucket sizes that waste least on these molecules, in rising order.

    The cost of a molecule in a bucket of size $N$ is $N^2$, its pairs of atoms; the
    sum is minimised exactly, over the histogram of sizes. The largest bucket holds
    the largest molecule. Fewer sizes come back where fewer occur.

    >>> choose_buckets(np.array([3, 3, 3, 20, 21]), num_buckets=2)
    (3, 21)
    """
    sizes, counts = np.unique(num_atoms, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])
    # cost[j]: the least for the sizes up to j, with as many buckets as rounds so far.
    cost = below[1:] * sizes.astype(np.float64) ** 2
    chosen = [(int(size),) for size in sizes]
    for _ in range(num_buckets - 1):
        new_cost, new_chosen = cost.copy(), list(chosen)
        for last in range(1, len(sizes)):
            added = (below[last + 1] - below[1 : last + 1]) * float(sizes[last]) ** 2
            best = int(np.argmin(cost[:last] + added))
            if cost[best] + added[best] < new_cost[last]:
                new_cost[last] = cost[best] + added[best]
                new_chosen[last] = (*chosen[best], int(sizes[last]))
        cost, chosen = new_cost, new_chosen
    return chosen[-1]


def pack(
    molecules: Molecules, species_table: tuple[int, ...], buckets: tuple[int, ...]
) -> tuple[Batch, ...]:
    """Returns for each bucket all its molecules, padded; empty buckets are dropped.

    Raises:
        ValueError: A molecule is larger than every bucket or has an unknown element.
    """
    bucket_of = np.searchsorted(buckets, molecules.num_atoms)
    species = to_species(molecules.atomic_numbers, species_table)
    if np.any(bucket_of == len(buckets)) or np.any(species < 0):
        raise ValueError(
            f"expected molecules of at most {buckets[-1]} atoms with elements "
            f"{species_table}, found {molecules.num_atoms.max()} atoms and elements "
            f"{tuple(np.unique(molecules.atomic_numbers).tolist())}"
        )
    members = [np.flatnonzero(bucket_of == index) for index in range(len(buckets))]
    if molecules.molecule_id is not None:
        ids = molecules.molecule_id
        members = [rows[np.argsort(ids[rows], kind="stable")] for rows in members]
    return tuple(
        _pad(molecules, species, rows, size)
        for rows, size in zip(members, buckets, strict=True)
        if len(rows)
    )


def _pad(
    molecules: Molecules,
    species: Int32[np.ndarray, " total_atoms"],
    rows: Integer[np.ndarray, " num_rows"],
    size: int,
) -> Batch:
    """Returns the molecules at the rows, padded to one size."""
    column = np.arange(size)
    node_mask = column < molecules.num_atoms[rows][:, None]
    atoms = np.where(node_mask, molecules.offsets[rows][:, None] + column, 0)
    of_atoms = lambda values: np.where(
        node_mask[..., None], values[atoms], np.float32(0.0)
    ).astype(np.float32)
    return Batch(
        of_atoms(molecules.positions),
        np.where(node_mask, species[atoms], 0).astype(np.int32),
        node_mask,
        _known(molecules.properties, rows),
        _known(molecules.labels.of_molecules, rows),
        {name: of_atoms(values) for name, values in molecules.labels.of_atoms.items()},
        _conformers(molecules, rows),
    )


def _conformers(
    molecules: Molecules, rows: Integer[np.ndarray, " num_rows"]
) -> Int32[np.ndarray, " num_rows"] | None:
    """Returns how many conformers begin at each row; see `Batch`."""
    if molecules.molecule_id is None:
        return None
    ids, counts = np.unique(molecules.molecule_id[rows], return_counts=True)
    found = np.zeros(len(rows), np.int32)
    found[np.searchsorted(molecules.molecule_id[rows], ids)] = counts
    return found


def num_molecules(bucket: Batch) -> int:
    """Returns how many molecules a bucket has, conformers of one counted once."""
    if bucket.conformers is None:
        return len(bucket.species)
    return int(np.count_nonzero(bucket.conformers))


def _known(
    columns: Mapping[str, np.ndarray], rows: Integer[np.ndarray, " num_rows"]
) -> dict[str, Known]:
    found = {}
    for name, values in columns.items():
        own = values[rows].astype(np.float32)
        mask = np.isfinite(own)
        found[name] = Known(np.where(mask, own, np.float32(0.0)), mask)
    return found


def fill_ratio(packed: tuple[Batch, ...]) -> float:
    """Returns the share of the padded arrays' rows that hold an atom."""
    real = sum(int(bucket.node_mask.sum()) for bucket in packed)
    return real / sum(bucket.node_mask.size for bucket in packed)


def steps_per_epoch(packed: tuple[Batch, ...], batch_size: int) -> int:
    """Returns the number of batches, rounded up, that show each molecule once."""
    return -(-sum(map(num_molecules, packed)) // batch_size)


@functools.lru_cache(maxsize=64)
def _stream_block(
    num_molecules: int, batch_size: int, seed: int, bucket: int, block: int
) -> Int64[np.ndarray, " block_size"]:
    """Returns one block of a bucket's endless order of molecules.

    A block is a permutation of the bucket; of several copies of it where the bucket
    is smaller than a batch, so that a batch touches two blocks at most.
    """
    copies = -(-batch_size // num_molecules)
    rng = np.random.default_rng((seed, 1, bucket, block))
    return rng.permutation(num_molecules * copies) % num_molecules


@functools.lru_cache(maxsize=8)
def _schedule(
    sizes: tuple[int, ...], batch_size: int, seed: int, epoch: int
) -> Int64[np.ndarray, "num_steps 2"]:
    """Returns (bucket, batches that the bucket gave before) for each step of an epoch.

    After `epoch` epochs a bucket of $M$ molecules has given the whole part of
    $epoch M / batch_size$ batches, so that in the long run every molecule
    is shown equally often, whatever the size of its bucket.
    """
    rows = []
    for bucket, size in enumerate(sizes):
        given = np.arange(epoch * size // batch_size, (epoch + 1) * size // batch_size)
        rows.append(np.stack([np.full_like(given, bucket), given], axis=1))
    steps = np.concatenate(rows)
    rng = np.random.default_rng((seed, 0, epoch))
    return steps[rng.permutation(len(steps))]


def _steps_before(sizes: tuple[int, ...], batch_size: int, epoch: int) -> int:
    return sum(epoch * size // batch_size for size in sizes)


def _locate(
    sizes: tuple[int, ...], batch_size: int, seed: int, step: int
) -> tuple[int, int]:
    # Less than one batch a bucket is pending, which bounds the epoch from both sides.
    total = sum(sizes)
    epoch = step * batch_size // total
    last = (step + len(sizes) + 1) * batch_size // total + 1
    while last - epoch > 1:
        middle = (epoch + last) // 2
        if _steps_before(sizes, batch_size, middle) <= step:
            epoch = middle
        else:
            last = middle
    index = step - _steps_before(sizes, batch_size, epoch)
    bucket, given = _schedule(sizes, batch_size, seed, epoch)[index]
    return int(bucket), int(given)


def batch_at(
    molecules_by_bucket: tuple[Batch, ...],
    batch_size: int,
    seed: int,
    step: int,
    own: Int64[np.ndarray, " num_rows"] | None = None,
) -> Batch:
    """Returns the batch of a training step, all its molecules from one bucket.

    An epoch is every bucket's full batches in random order; a bucket's molecules
    come without replacement until all have been shown, and what an epoch leaves
    over opens the next. Of a molecule one conformer is drawn. Nothing but (seed, step)
    enters, so a run that resumes sees the batches that it would have seen.

    Args:
        molecules_by_bucket: molecules of each bucket, from `pack`.
        batch_size: rows of the whole batch.
        seed: seed of the whole run.
        step: step of training, from 0.
        own: numbers of the rows that are returned; all of them where None.
    """
    sizes = tuple(map(num_molecules, molecules_by_bucket))
    bucket, given = _locate(sizes, batch_size, seed, step)
    size = sizes[bucket]
    block_size = size * -(-batch_size // size)
    block, start = divmod(given * batch_size, block_size)
    rows = _stream_block(size, batch_size, seed, bucket, block)[start:]
    if len(rows) < batch_size:
        following = _stream_block(size, batch_size, seed, bucket, block + 1)
        rows = np.concatenate([rows, following])
    whole = molecules_by_bucket[bucket]
    rows = _draw_conformers(whole.conformers, rows[:batch_size], (seed, 2, step))
    rows = rows if own is None else rows[own]
    return jax.tree.map(lambda array: array[rows], whole._replace(conformers=None))


def _draw_conformers(
    conformers: Int32[np.ndarray, " num_rows"] | None,
    chosen: Int64[np.ndarray, " batch"],
    seed: tuple[int, ...],
) -> Int64[np.ndarray, " batch"]:
    """Returns the row of one conformer of each chosen molecule."""
    if conformers is None:
        return chosen
    first = np.flatnonzero(conformers)[chosen]
    return first + np.random.default_rng(seed).integers(conformers[first])


def batches_in_order(packed: tuple[Batch, ...], batch_size: int) -> Iterator[Batch]:
    """Yields every molecule once; the last batch of a bucket ends in empty rows."""

    def part_of(array: np.ndarray, begin: int) -> np.ndarray:
        part = array[begin : begin + batch_size]
        missing = batch_size - len(part)
        return np.pad(part, ((0, missing),) + ((0, 0),) * (array.ndim - 1))

    for bucket in packed:
        bucket = bucket._replace(conformers=None)
        for begin in range(0, len(bucket.species), batch_size):
            yield jax.tree.map(partial(part_of, begin=begin), bucket)
