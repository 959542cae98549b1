"""Measures how sharp the learned density of directions is, on held-out molecules.

    python -m benchmarks.sharpness --checkpoint=qm9 --data=qm9-sample

For every step of held-out molecules, teacher-forced and without coordinate noise, a
coarse direction is drawn around the true one as in training, then a fine direction
given it. Printed in degrees, for steps that place hydrogen and heavy atoms: the widths
of the heaviest fine component along its narrow and its wide axis, the angle between the
direction drawn and the true one, and the width of the radius in Å.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from benchmarks import report
from common.nn.conditions import known
from symphony import build, data, densities
from symphony.likelihood import step_features
from symphony.model import Surroundings, Symphony
from symphony.orders import Cut
from symphony.weights import load_weights


def widths(
    model: Symphony, cut: Cut, key: Key[Array, ""]
) -> dict[str, Float[Array, " num_steps"]]:
    """Returns the widths and errors of every step of one molecule, unmasked."""
    key_blur, key_fine = jax.random.split(jax.random.fold_in(key, 1))
    num_nodes = cut.species.shape[0]
    steps = jnp.arange(num_nodes)
    placed = (steps <= steps[:, None]) & cut.node_mask
    node_feats, next_atom = step_features(
        model, cut, known({"noise_std": jnp.zeros(())})
    )
    target = jnp.minimum(steps + 1, num_nodes - 1)
    vectors = cut.positions[target] - cut.positions[cut.focus]
    radius, direction = densities.polar(vectors, model.min_radius, model.max_radius)
    condition = model.position_condition(
        node_feats, next_atom, cut.focus, cut.species[target]
    )
    coarse = densities.blur(key_blur, direction, model.blur)
    around = Surroundings(node_feats, cut.positions, cut.focus, placed)
    fine = model.fine(condition, radius, coarse, around)
    keys = jax.random.split(key_fine, num_nodes)
    drawn = jax.vmap(densities.sample_fine)(keys, fine)
    heaviest = jnp.argmax(fine.logits, axis=-1)[:, None]
    wide = jnp.take_along_axis(fine.scales, heaviest, axis=1)[:, 0]
    squeeze = jnp.take_along_axis(fine.squeezes, heaviest[..., None], axis=1)[:, 0]
    narrow = wide * jax.lax.rsqrt(1.0 + jnp.sum(jnp.square(squeeze), axis=-1))
    error = jnp.arccos(jnp.clip(jnp.sum(drawn * direction, axis=-1), -1.0, 1.0))
    radial = model.radial(condition)
    heaviest = jnp.argmax(radial.logits, axis=-1)[:, None]
    radial_scale = jnp.take_along_axis(radial.scales, heaviest, axis=1)[:, 0]
    return {
        "narrow": jnp.degrees(narrow),
        "wide": jnp.degrees(wide),
        "angle": jnp.degrees(error),
        "radial": radial_scale * (np.pi / np.sqrt(3.0)),
        "target": cut.species[target],
        "mask": steps < jnp.sum(cut.node_mask) - 1,
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", default="qm9", help="name or folder")
    parser.add_argument("--data", default="qm9-sample", help="file or name")
    parser.add_argument("--num_molecules", type=int, default=480)
    flags = parser.parse_args()
    weights = load_weights(flags.checkpoint)
    config = weights.config
    species = tuple(config.data.species)
    molecules, _ = data.read_molecules(
        flags.data, species, config.data.max_atoms, split="validation"
    )
    count = min(flags.num_molecules, len(molecules.num_atoms))
    molecules = data.select(molecules, np.arange(count))
    packed = data.pack(molecules, species, (int(molecules.num_atoms.max()),))
    bound = weights.model.bind(weights.params)

    @jax.jit
    def measure(batch: data.Batch, keys: Key[Array, " batch"]) -> dict[str, Array]:
        cuts = jax.vmap(partial(build.draw_cut, config))(keys, *batch[:3])
        return jax.vmap(partial(widths, bound))(cuts, keys)

    found: dict[str, list[np.ndarray]] = {}
    for index, batch in enumerate(data.batches_in_order(packed, 16)):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), index), 16)
        for name, value in measure(batch, keys).items():
            found.setdefault(name, []).append(np.asarray(value).ravel())
    values = {name: np.concatenate(parts) for name, parts in found.items()}
    heads = ("narrow", "wide", "angle to the truth", "radial sd, Å")
    heavy = np.array(species)[values["target"]] > 1
    rows = []
    for name, kind in (("hydrogen", ~heavy), ("a heavy atom", heavy)):
        chosen = values["mask"] & kind
        quartiles = (
            np.percentile(values[key][chosen], (25, 50, 75))
            for key in ("narrow", "wide", "angle", "radial")
        )
        rows.append((name, *(" / ".join(f"{q:.3f}" for q in qs) for qs in quartiles)))
    report.show(
        f"{flags.checkpoint}, {count} molecules of {flags.data}",
        ("steps that place", *(f"{head}: 25 / 50 / 75 %" for head in heads)),
        rows,
        left=("steps that place",),
    )


if __name__ == "__main__":
    main()
