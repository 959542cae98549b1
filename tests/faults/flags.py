"""Values of flags and of configs that no command can use."""

import functools

from hypothesis import strategies as st

from common.runs import config as configs
from tests.faults import molecules
from tests.faults.run import Case

NUMBERS = {
    ("symphony", "sample"): (
        "num_molecules", "seed", "temperature_focus", "temperature_position",
        "basin_temperature", "max_atoms", "num_slots", "max_heavy", "max_draws",
        "guidance", "candidates",
    ),
    ("symphony", "edit", "good.sdf", "--remove=0"): (
        "num_molecules", "seed", "num_slots", "max_heavy",
    ),
    ("symphony", "score", "--molecules=good.sdf"): (
        "num_orders", "num_direction_samples", "seed",
    ),
    ("symphony", "properties", "good.sdf", "--output=out.sdf"): (
        "num_molecules", "num_workers",
    ),
    ("symphony", "refine", "--molecules=good.sdf"): ("noise", "num_steps", "seed"),
    ("symphony", "evaluate", "--samples=good.sdf"): (
        "max_molecules", "num_perceived", "num_workers", "time_limit",
    ),
    ("equijump", "sample"): (
        "num_jumps", "replicas", "lag", "temperature", "num_steps", "seed", "every",
        "max_redraws", "chunk",
    ),
    ("equijump", "evaluate", "--trajectory=none.xtc"): (
        "lag", "spacing", "reference_spacing", "num_resamples", "seed",
    ),
    ("equijump", "simulate", "--sequence=AA"): (
        "temperature", "friction", "step", "spacing", "length", "replicas", "seed",
        "permittivity", "hydrogen_mass", "processes",
    ),
}  # fmt: skip
"""Flags that are numbers, by the command."""

NAMES = {
    ("symphony", "sample"): (
        "checkpoint", "start", "condition", "refiner", "formula", "num_atoms",
        "elements", "attach", "accept", "property", "shard",
    ),
    ("symphony", "edit", "good.sdf", "--remove=0"): (
        "checkpoint", "formula", "num_atoms", "elements",
    ),
    ("symphony", "complete", "good.sdf"): ("checkpoint", "formula", "elements"),
    ("symphony", "evaluate", "--samples=good.sdf"): ("conventions", "reference_split"),
    ("symphony", "properties", "good.sdf", "--output=out.sdf"): ("with",),
    ("symphony", "package", "--output=mine"): ("workdir", "which"),
    ("equijump", "sample"): (
        "checkpoint", "sequence", "system", "method", "condition", "format", "shard",
    ),
    ("equijump", "simulate"): ("sequence",),
    ("equijump", "simulate", "--sequence=AA"): (
        "force_field", "solvent", "platform", "start", "restrain", "model",
    ),
    ("equijump", "package", "--output=mine"): ("workdir", "which"),
    ("symphony", "train", "--workdir=run"): ("config",),
    ("equijump", "train", "--workdir=run"): ("config",),
}  # fmt: skip
"""Flags that are names, by the command."""

BAD_NUMBERS = ("-1", "nan", "inf", "-inf", "abc", "", "1e400", str(2**70), "1_0x", "٣x")
BAD_NAMES = ("", "none such", "x" * 300, "ä", "0", "../..", "a=b=c", "-", "$HOME", "'")
BAD_VALUES = ("abc", "None", "[1,", "nan", "-5", "()", "{}", "1e400", "'", "True")


def _files() -> dict[str, bytes]:
    return {"good.sdf": molecules.good()}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draws a command and one flag that it cannot use."""
    table, values = draw(st.sampled_from([(NUMBERS, BAD_NUMBERS), (NAMES, BAD_NAMES)]))
    command = draw(st.sampled_from(list(table)))
    name = draw(st.sampled_from([*table[command], "no_such_flag"]))
    value = draw(st.sampled_from(values))
    return Case(name, (*command, f"--{name}={value}"), _files())


@functools.cache
def _fields(program: str) -> dict[str, object]:
    return configs.flat(configs.find(program, "tiny").get_config())


def _fits(value: str, default: object) -> bool:
    """Returns whether a text might be a value of the field after all."""
    if isinstance(default, str):
        return True  # Names and paths are for `cases`.
    if isinstance(default, bool):
        return value == "True"
    if isinstance(default, tuple):
        return value in ("()", "{}", "-5", "True")
    return value in ("True",) or (value == "-5" and not isinstance(default, float))


@st.composite
def config_cases(draw: st.DrawFn) -> Case:
    """Draws a training command and one value of its config that is of another type."""
    program = draw(st.sampled_from(["symphony", "equijump"]))
    fields = _fields(program)
    value = draw(st.sampled_from(BAD_VALUES))
    names = [name for name, default in fields.items() if not _fits(value, default)]
    name = draw(st.sampled_from([*names, "model.no_such_field", "no_such_group.x"]))
    argv = (program, "train", "--config=tiny", "--workdir=run")
    return Case(name, (*argv, f"--config.{name}={value}"), _files())
