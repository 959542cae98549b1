"""Data parallelism: a mesh with one axis, `data`, over the devices of all processes.

Batches are split. The state is whole on each device, or each holds a part of every
large array. The same code serves CPU, GPU and TPU. On a CPU, devices are virtual and
divide the cores between them; one for each core can beat one device with many threads,
since a small operation runs on a single thread anyway.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from common.errors import UsageError


def set_num_cpu_devices(num_devices: int) -> None:
    """Divides the CPU into virtual devices, before JAX has touched any device.

    >>> _ = jax.devices()  # JAX has started: too late.
    >>> set_num_cpu_devices(2)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    common.errors.UsageError: 2 CPU devices: expected to be asked before the first array
    """
    try:
        jax.config.update("jax_num_cpu_devices", num_devices)
    except RuntimeError as error:
        raise UsageError(
            f"{num_devices} CPU devices: expected to be asked before the first array "
            "is made, found JAX already started"
        ) from error


def make_mesh(num_devices: int | None = None) -> Mesh:
    """Returns a mesh of the first devices of each process, those of one in a row.

    >>> dict(make_mesh(1).shape)
    {'data': 1}

    Args:
        num_devices: number of devices of each process; all of them where None.
    """
    own = jax.local_devices()
    if num_devices is None:
        num_devices = len(own)
    if not 1 <= num_devices <= len(own):
        raise UsageError(
            f"number of devices: expected 1 to {len(own)} "
            f"({own[0].platform}), found {num_devices}"
        )
    of_process: dict[int, list[jax.Device]] = {}
    for device in sorted(jax.devices(), key=lambda d: (d.process_index, d.id)):
        of_process.setdefault(device.process_index, []).append(device)
    chosen = [devices[:num_devices] for devices in of_process.values()]
    return Mesh(np.ravel(chosen), ("data",), axis_types=(AxisType.Auto,))


def mesh_of_run(num_devices: int) -> Mesh | None:
    """Returns the mesh of a run, None where it has a single device.

    >>> mesh_of_run(1)

    Args:
        num_devices: number of devices of each process.
    """
    return make_mesh(num_devices) if num_devices * jax.process_count() > 1 else None


def own_rows(batch_size: int) -> Int[np.ndarray, " num_rows"]:
    """Returns the rows of a batch that this process feeds to its devices.

    >>> own_rows(3)
    array([0, 1, 2])
    """
    count = jax.process_count()
    if batch_size % count:
        raise UsageError(
            f"batch size: expected a multiple of the {count} processes, found "
            f"{batch_size}"
        )
    return np.arange(batch_size).reshape(count, -1)[jax.process_index()]


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Returns the tree with every leaf whole on each device of the mesh, if any.

    >>> replicate({"bias": np.zeros(2)}, make_mesh(1))["bias"].is_fully_replicated
    True
    """
    if mesh is None:
        return tree
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: place(leaf, whole), tree)


def shard(tree: Any, mesh: Mesh | None) -> Any:
    """Returns the tree with a part of every leaf on each device of the mesh, if any.

    Leaves are cut as `cut_axis` says; those that cannot be are whole on each device.

    >>> shard({"bias": np.zeros(2)}, make_mesh(1))["bias"].shape
    (2,)
    """
    if mesh is None:
        return tree
    return jax.tree.map(place, tree, shardings_of(tree, mesh))


def shardings_of(tree: Any, mesh: Mesh) -> Any:
    """Returns where the parts of every leaf lie, see `shard`.

    >>> shardings_of({"bias": np.zeros((3, 2))}, make_mesh(1))["bias"].spec
    P('data', None)
    """
    size = mesh.shape["data"]
    spec_of = lambda leaf: spec(np.ndim(leaf), cut_axis(np.shape(leaf), size))
    return jax.tree.map(lambda leaf: NamedSharding(mesh, spec_of(leaf)), tree)


def cut_axis(shape: tuple[int, ...], num_devices: int) -> int:
    """Returns the largest axis that the devices divide, -1 where they divide none.

    >>> cut_axis((3, 8, 4), 4), cut_axis((3,), 4)
    (1, -1)
    """
    sizes = [0 if size % num_devices else size for size in shape]
    return sizes.index(max(sizes)) if any(sizes) else -1


def spec(num_axes: int, axis: int) -> PartitionSpec:
    """Returns the layout of an array that is cut along one axis, or whole for -1.

    >>> spec(2, 1), spec(2, -1)
    (P(None, 'data'), P())
    """
    if axis < 0:
        return PartitionSpec()
    return PartitionSpec(
        *("data" if other == axis else None for other in range(num_axes))
    )


def gather(tree: Any, axes: Any) -> Any:
    """Returns whole leaves of their parts, inside of `jax.shard_map` over the mesh.

    Args:
        tree: parts on this device.
        axes: axis along which each leaf is cut, see `cut_axis`.
    """
    return jax.tree.map(
        lambda leaf, axis: (
            leaf
            if axis < 0
            else jax.lax.all_gather(leaf, "data", axis=axis, tiled=True)
        ),
        tree,
        axes,
    )


def mean_parts(tree: Any, axes: Any) -> Any:
    """Returns parts of the mean over devices, inside of `jax.shard_map` over the mesh.

    Args:
        tree: whole leaves of this device.
        axes: axis along which each mean is cut, see `cut_axis`.
    """
    size = jax.lax.axis_size("data")

    def mean(leaf: jax.Array, axis: int) -> jax.Array:
        if axis < 0:
            return jax.lax.pmean(leaf, "data")
        return (
            jax.lax.psum_scatter(leaf, "data", scatter_dimension=axis, tiled=True)
            / size
        )

    return jax.tree.map(mean, tree, axes)


def whole(tree: Any, mesh: Mesh | None) -> Any:
    """Returns a tree of `shard` with every leaf whole on each device.

    >>> mesh = make_mesh(1)
    >>> whole(shard({"bias": np.zeros(2)}, mesh), mesh)["bias"].is_fully_replicated
    True
    """
    if mesh is None:
        return tree
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(lambda tree: tree, out_shardings=everywhere)(tree)


def split_batch(batch: Any, mesh: Mesh | None) -> Any:
    """Returns the batch on the devices, cut along its first axis.

    With several processes each of them passes the rows that `own_rows` says.

    >>> split_batch({"positions": np.zeros((4, 3))}, make_mesh(1))["positions"].shape
    (4, 3)
    """
    if mesh is None:
        return jax.device_put(batch)
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    if sharding.is_fully_addressable:
        return jax.device_put(batch, sharding)

    def split(leaf: Any) -> jax.Array:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(split(jax.random.key_data(leaf)))
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))

    return jax.tree.map(split, batch)


def place(value: Any, sharding: NamedSharding) -> jax.Array:
    """Returns an array on devices; with several processes each places its own part.

    >>> whole = NamedSharding(make_mesh(1), PartitionSpec())
    >>> place(np.zeros(2), whole).shape
    (2,)
    """
    if sharding.is_fully_addressable:
        return jax.device_put(value, sharding)
    host = np.asarray(value)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
