"""Data parallelism: a mesh with one axis, `data`; batches split, the state replicated.

The same code serves CPU, GPU and TPU. On a CPU, devices are virtual and divide the
cores between them; one for each core can beat one device with many threads, since a
small operation runs on a single thread anyway.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

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
    """Returns a mesh of the first `num_devices` devices, or of all of them.

    >>> dict(make_mesh(1).shape)
    {'data': 1}
    """
    devices = jax.devices()
    if num_devices is None:
        num_devices = len(devices)
    if not 1 <= num_devices <= len(devices):
        raise UsageError(
            f"number of devices: expected 1 to {len(devices)} "
            f"({devices[0].platform}), found {num_devices}"
        )
    return jax.make_mesh(
        (num_devices,),
        ("data",),
        axis_types=(AxisType.Auto,),
        devices=devices[:num_devices],
    )


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Returns the tree with every leaf whole on each device of the mesh, if any.

    >>> replicate({"bias": np.zeros(2)}, make_mesh(1))["bias"].is_fully_replicated
    True
    """
    return tree if mesh is None else _place(tree, mesh, PartitionSpec())


def split_batch(batch: Any, mesh: Mesh | None) -> Any:
    """Returns the batch on the devices, cut along its first axis.

    With several hosts each of them passes the whole batch and keeps its own part.

    >>> split_batch({"positions": np.zeros((4, 3))}, make_mesh(1))["positions"].shape
    (4, 3)
    """
    if mesh is None:
        return jax.device_put(batch)
    return _place(batch, mesh, PartitionSpec("data"))


def _place(tree: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    sharding = NamedSharding(mesh, spec)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def place(leaf: Any) -> jax.Array:
        value = np.asarray(leaf)
        return jax.make_array_from_callback(
            value.shape, sharding, lambda index: value[index]
        )

    return jax.tree.map(place, tree)
