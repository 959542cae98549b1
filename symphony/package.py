"""Packages the averaged weights of a run for others: `symphony package`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from common import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `symphony package`."""
    parser = cli.argument_parser(
        "symphony package",
        "Writes weights.npz and config.json, all that sampling needs of a run.",
    )
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder to write, made if missing"
    )
    parser.add_argument(
        "--which",
        choices=("best", "latest"),
        default="best",
        help="checkpoint: of least validation loss, or the last one",
    )
    parser.add_argument(
        "--half", action="store_true", help="store 16-bit floats, half the size"
    )
    flags = parser.parse_args(argv)

    from common import checkpoints

    if (flags.output / "checkpoints").exists():
        raise cli.UsageError(
            f"--output: expected a folder of its own, found the one of a run: "
            f"{flags.output}"
        )
    config, params, meta = checkpoints.load_params(flags.workdir, flags.which)
    checkpoints.save_packaged(flags.output, params, config, meta, flags.half)
    size = (flags.output / "weights.npz").stat().st_size
    sys.stdout.write(
        f"{flags.output}: step {meta['step']}, {size / 1e6:.2g} MB of weights\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("symphony package", main))
