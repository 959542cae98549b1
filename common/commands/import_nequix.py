r"""Makes weights of ours from a file of the published Nequix.

    python -m common.commands.import_nequix nequix-mp-1.nqx --output=workdir/nequix_mp_1

A file `.nqx` is a line of JSON, the settings, and then arrays in NumPy's form, in the
order of the published code (https://github.com/atomicarchitects/nequix, MIT licence).
What differs between the two networks are factors, which go into the matrices: the root
of the number of inputs of each linear map, the norm of the Bessel functions, and how
much a channel of each degree counts in the norm. Å, eV.
"""

import itertools
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import ml_collections
import numpy as np
from jaxtyping import Float

from common.commands import cli, reading
from common.errors import UsageError
from common.nn.activations import root_second_moment
from common.runs import checkpoints
from common.runs import config as configs
from common.so3.irreps import SCALAR, format_irreps, parse

SILU = 0.5964577
"""Root of the second moment of silu of a standard normal number, as e3nn-jax has it."""

ABOVE_EPSILON = 100.0
"""Factor of what is normed, which leaves no weight to the number under the root."""

EXPECTED = {
    "index_weights": False,
    "layer_norm": True,
    "radial_mlp_layers": 2,
    "radial_polynomial_p": 6.0,
}
"""Settings that every published network has, and no other value is served."""

Array = Float[np.ndarray, "..."]


class Layer(NamedTuple):
    """Arrays of a published layer, in their order; matrices of each degree from 0.

    Attributes:
        radial: matrices of the radial network.
        mixing: matrices before the messages.
        messages: matrices of the sums of messages.
        own: matrices of the input.
        scale: scales in the norm.
    """

    radial: list[Array]
    mixing: list[Array]
    messages: list[Array]
    own: list[Array]
    scale: list[Array]


class Published(NamedTuple):
    """A published network.

    Attributes:
        settings: settings of the file.
        energies: energy of a lone atom of each species, in eV.
        layers: arrays of the layers.
        readout: matrix of the readout.
    """

    settings: Mapping[str, Any]
    energies: Array
    layers: list[Layer]
    readout: Array


def read(path: Path) -> Published:
    """Reads a file of the published code.

    Raises:
        UsageError: It is none, or of a network that is not known here.
    """
    if not path.is_file():
        raise UsageError(f"{path}: expected a file .nqx, found none")
    with (
        reading.refusing(path, "settings and arrays of Nequix"),
        path.open("rb") as file,
    ):
        settings = json.loads(file.readline())
        for name, wanted in EXPECTED.items():
            if settings[name] != wanted:
                raise UsageError(
                    f"{path}: expected {name} = {wanted}, found {settings[name]}"
                )
        take = lambda count: [_array(file) for _ in range(count)]
        (energies,) = take(1)
        num_degrees = len(parse(settings["hidden_irreps"]))
        ends = [1] + [num_degrees] * (settings["n_layers"] - 1) + [1]
        layers = [
            Layer(*map(take, (3, before, after, min(before, after), after)))
            for before, after in itertools.pairwise(ends)
        ]
        (readout,) = take(1)
    return Published(settings, energies, layers, readout)


def _array(file: IO[bytes]) -> Array:
    return np.lib.format.read_array(file, allow_pickle=False)


def to_config(published: Published) -> ml_collections.ConfigDict:
    """Returns the config of the same network here."""
    settings = published.settings
    config = configs.default_of("energy")
    config.data.species = tuple(settings["atomic_numbers"])
    config.data.atom_energies = tuple((published.energies + settings["shift"]).tolist())
    config.model.irreps = format_irreps(parse(settings["hidden_irreps"]))
    config.model.update(
        num_layers=settings["n_layers"],
        max_degree=settings["lmax"],
        cutoff=settings["cutoff"],
        num_radial_basis=settings["radial_basis_size"],
        num_hidden=settings["radial_mlp_size"],
        avg_num_neighbors=settings["avg_n_neighbors"],
        energy_scale=settings["scale"],
        block="nequix",
        product="clebsch_gordan",
    )
    return config


def to_params(published: Published) -> dict[str, Any]:
    """Returns the parameters of `common.nn.energy.EnergyModel`."""
    settings, num_species = published.settings, len(published.energies)
    width = parse(settings["hidden_irreps"])[SCALAR]
    # The published network takes species as one-hot numbers: here the first channels
    # of the embedding, as wide as all layers. The others stay zero.
    embedding = np.eye(num_species, width, dtype=np.float32)
    params = {"Embed_0": {"embedding": embedding}}
    gain = root_second_moment("swish") / SILU
    for index, layer in enumerate(published.layers):
        found = _layer(layer, settings["cutoff"], gain if index else 1.0)
        params[f"layers_{index}"] = found if index else _filled(found, width)
    readout = gain * published.readout / math.sqrt(width)
    return {"params": {**params, "readout": {"kernel": readout}}}


def _layer(layer: Layer, cutoff: float, gain: float) -> dict[str, Any]:
    """Returns the parameters of a layer.

    Args:
        layer: published arrays.
        cutoff: cutoff in Å.
        gain: factor of the published features over ours.
    """
    moment = root_second_moment("swish")
    first, second, kernel = layer.radial
    # The published norm adds channels up and divides those of degree l by (2l + 1)^2;
    # ours takes means over channels and components. The difference goes into what is
    # normed, and out again in the scale.
    weights = [
        ABOVE_EPSILON * math.sqrt(len(scale) / (2 * l + 1))
        for l, scale in enumerate(layer.scale)
    ]
    rows = np.ones((len(weights), max(map(len, layer.scale))), np.float32)
    for row, scale, weight in zip(rows, layer.scale, weights, strict=True):
        row[: len(scale)] = scale * ABOVE_EPSILON / weight
    return {
        "Linear_0": _kernels(layer.mixing, itertools.repeat(gain)),
        "Linear_1": _kernels(layer.own, [gain * weight for weight in weights]),
        "Linear_2": _kernels(layer.messages, weights),
        "MLP_0": {
            "Dense_0": {"kernel": first * math.sqrt(2.0 / cutoff)},
            "Dense_1": {"kernel": second * moment},
        },
        "RMSNorm_0": {"scale": rows},
        "kernel": kernel * moment,
    }


def _kernels(matrices: Sequence[Array], factors: Iterable[float]) -> dict[str, Array]:
    """Returns the matrices of each degree, over the root of their number of inputs."""
    pairs = enumerate(zip(matrices, factors, strict=False))
    return {f"kernel_{l}": m * factor / math.sqrt(len(m)) for l, (m, factor) in pairs}


def _filled(params: dict[str, Any], width: int) -> dict[str, Any]:
    """Returns the first layer for more scalars than it has, which have no effect."""
    mixing, kernel = params["Linear_0"]["kernel_0"], params["kernel"]
    missing = width - len(mixing)
    if missing < 0:
        raise ValueError(f"{len(mixing)} species, more than the {width} scalars")
    rows = lambda matrix: np.pad(matrix, ((0, missing), (0, 0)))
    by_path = kernel.reshape(len(kernel), -1, len(mixing))
    by_path = np.pad(by_path, ((0, 0), (0, 0), (0, missing)))
    return {
        **params,
        "Linear_0": {"kernel_0": np.pad(mixing, (0, missing))},
        "Linear_1": {name: rows(m) for name, m in params["Linear_1"].items()},
        "Linear_2": {name: rows(m) for name, m in params["Linear_2"].items()},
        "kernel": by_path.reshape(len(kernel), -1),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = cli.argument_parser("import_nequix", __doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="file .nqx of the published code")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder")
    flags = parser.parse_args(argv)
    published = read(flags.file)
    meta = {"source": flags.file.name}
    checkpoints.save_packaged(
        flags.output, to_params(published), to_config(published), meta
    )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("common.commands.import_nequix", main))
