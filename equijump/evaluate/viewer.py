"""A trajectory as a page can show it without a network: frames, bonds and scripts.

3Dmol.js draws a cartoon of a protein and sticks of a peptide; where a browser has no
WebGL, a plain drawing of sticks takes its place.
"""

import base64
import gzip
import html
import json
from pathlib import Path
from typing import Any

import numpy as np

from equijump.evaluate import geometry, structure
from equijump.evaluate.sides import NAMES, Prepared

NUM_FRAMES = 200
_RESOLUTION = 0.01  # Å
_STYLE = """
figure.viewer { display: inline-block; margin: 0 1em 1em 0; width: 420px; }
figure.viewer canvas { border: 1px solid #ddd; display: block; cursor: grab; }
figure.viewer div { position: relative; width: 420px; height: 340px; }
figure.viewer input { width: 240px; vertical-align: middle; }
"""
_SCRIPT = Path(__file__).with_name("viewer.js")
_LIBRARY = Path(__file__).parent / "3dmol" / "3Dmol-min.js"
"""3Dmol.js 2.5.5, BSD-3-Clause; its licence lies beside it."""


def make_scenes(prepared: Prepared) -> dict[str, Any]:
    """Returns frames of the first trajectory of each side, superposed on its first.

    Positions are base64 of little-endian int16 in 0.01 Å, frame by frame.
    """
    return {name: _make_scene(prepared, name) for name in NAMES}


def _make_scene(prepared: Prepared, name: str) -> dict[str, Any]:
    side = prepared.sides[name]
    positions = side.positions[0][:: side.every]
    every = -(-len(positions) // NUM_FRAMES)
    frames = positions[::every]
    centred = frames[0] - frames[0].mean(axis=0)
    moved = np.round(geometry.superposed(frames, centred) / _RESOLUTION)
    limits = np.iinfo(np.int16)
    packed = np.clip(moved, limits.min, limits.max).astype("<i2")
    system = prepared.system
    topology = structure.named_topology(system)
    return {
        "is_protein": geometry.is_protein(system),
        "atoms": [
            [a.name, a.residue.name, a.residue.resSeq, a.residue.chain.index]
            for a in topology.atoms
        ],
        "secondary": structure.secondary_of(frames, system),
        "elements": [atom[0] for atom in prepared.system.atom_names],
        "bonds": prepared.system.bonds.tolist(),
        "num_frames": len(frames),
        "spacing": every * prepared.spacing,
        "positions": base64.b64encode(packed.tobytes()).decode("ascii"),
    }


def to_html(scenes: dict[str, Any]) -> str:
    """Returns a viewer for each side, and the script of both."""
    parts = [
        f'<figure class="viewer" data-scene="{html.escape(json.dumps(scene))}">'
        f"<figcaption>{html.escape(name)}</figcaption></figure>"
        for name, scene in scenes.items()
    ]
    style = f"<style>{_STYLE}</style>"
    script = f"<script>{_SCRIPT.read_text('utf-8')}</script>"
    packed = base64.b64encode(gzip.compress(_LIBRARY.read_bytes(), mtime=0))
    kept = '<script type="text/plain" id="molecule-library">'
    library = f"{kept}{packed.decode('ascii')}</script>"
    return "\n".join(["<h2>Trajectories</h2>", style, *parts, library, script])
