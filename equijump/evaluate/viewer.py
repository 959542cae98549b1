"""A trajectory as a page can show it without a network: frames, bonds and scripts.

3Dmol.js draws a cartoon of a protein and sticks of a peptide; where a browser has no
WebGL, a plain drawing of sticks takes its place.
"""

import html
import json
from pathlib import Path
from typing import Any

from common.pages import embed
from equijump.data.topology import System
from equijump.evaluate import geometry, structure
from equijump.evaluate.sides import NAMES, Prepared

NUM_FRAMES = 200
_STYLE = """
figure.viewer { display: inline-block; margin: 0 1em 1em 0; width: 420px; }
figure.viewer canvas { border: 1px solid #ddd; display: block; cursor: grab; }
figure.viewer div { position: relative; width: 420px; height: 340px; }
figure.viewer input { width: 240px; vertical-align: middle; }
"""
SCRIPT = Path(__file__).with_name("viewer.js")
"""Script that draws frames; `embed.SHARED` comes before it."""


def make_scenes(prepared: Prepared) -> dict[str, Any]:
    """Returns frames of the first trajectory of each side; see `make_scene`."""
    scenes = {}
    for name in NAMES:
        side = prepared.sides[name]
        positions = side.positions[0][:: side.every]
        every = -(-len(positions) // NUM_FRAMES)
        frames, spacing = positions[::every], every * prepared.spacing
        scenes[name] = make_scene(frames, prepared.system, spacing)
    return scenes


def make_scene(
    frames: geometry.Positions, system: System, spacing: float
) -> dict[str, Any]:
    """Returns frames of a trajectory as the page draws them, superposed on the first.

    Args:
        frames: positions in Å, atoms in the order of slots; `embed.pack` packs them.
        system: system of the atoms.
        spacing: time between the frames, in ps.
    """
    centred = frames[0] - frames[0].mean(axis=0)
    return {
        **describe_system(system),
        "secondary": structure.secondary_of(frames, system),
        "num_frames": len(frames),
        "spacing": spacing,
        "positions": embed.pack(geometry.superposed(frames, centred)),
    }


def describe_system(system: System) -> dict[str, Any]:
    """Returns names, elements and bonds of the atoms of a scene."""
    topology = structure.named_topology(system)
    return {
        "is_protein": geometry.is_protein(system),
        "atoms": [
            [a.name, a.residue.name, a.residue.resSeq, a.residue.chain.index]
            for a in topology.atoms
        ],
        "elements": [atom[0] for atom in system.atom_names],
        "bonds": system.bonds.tolist(),
    }


def to_html(scenes: dict[str, Any]) -> str:
    """Returns a viewer for each side, and the script of both."""
    parts = [
        f'<figure class="viewer" data-scene="{html.escape(json.dumps(scene))}">'
        f"<figcaption>{html.escape(name)}</figcaption></figure>"
        for name, scene in scenes.items()
    ]
    style = f"<style>{_STYLE}</style>"
    scripts = embed.library(), embed.script(embed.SHARED), embed.script(SCRIPT)
    return "\n".join(["<h2>Trajectories</h2>", style, *parts, *scripts])
