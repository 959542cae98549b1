"""The cutting law in plain loops over atoms, to hold the compiled one against.

It decides from the same Gumbel variables, in single precision where distances are
compared, and knows nothing of padding: arrays end with the last atom.
"""

from typing import NamedTuple

import numpy as np


class Law(NamedTuple):
    """How molecules are cut: Å, Å, and whether heavy atoms come first."""

    tolerance: float
    cutoff: float
    heavy_first: bool


class Sequence(NamedTuple):
    """One order of placement; `focus`, `labels` and `log_law` have a row per step."""

    order: list
    focus: list
    labels: np.ndarray
    log_law: list
    log_first: float
    complete: bool


def first_atoms(heavy, law):
    """Lists the atoms that may come first."""
    if law.heavy_first and any(heavy):
        return [atom for atom, is_heavy in enumerate(heavy) if is_heavy]
    return list(range(len(heavy)))


def candidate_edges(positions, heavy, placed, law):
    """Lists the edges (focus, next atom) from which a step draws one."""
    edges = {}
    for a in placed:
        for b in range(len(positions)):
            distance = np.linalg.norm(np.float32(positions[a] - positions[b]))
            if b not in placed and distance < law.cutoff:
                edges[a, b] = distance
    if law.heavy_first:
        among_heavy = {e: d for e, d in edges.items() if heavy[e[0]] and heavy[e[1]]}
        edges = among_heavy or edges
    if not edges:
        return []
    longest = np.float32(min(edges.values())) + np.float32(law.tolerance)
    return [edge for edge, distance in edges.items() if distance < longest]


def cut(first_gumbel, edge_gumbel, positions, species, is_heavy, law):
    """Draws one order; `edge_gumbel[step, a, b]` decides among the edges of a step."""
    heavy = [bool(is_heavy[s]) for s in species]
    starts = first_atoms(heavy, law)
    placed = [max(starts, key=lambda atom: first_gumbel[atom])]
    labels = np.zeros((len(species), len(species), len(is_heavy)))
    focus, log_law = [0] * len(species), [0.0] * len(species)
    for step in range(len(species) - 1):
        edges = candidate_edges(positions, heavy, placed, law)
        if not edges:
            break
        for a, b in edges:
            labels[step, placed.index(a), species[b]] += 1.0 / len(edges)
        a, b = max(edges, key=lambda edge: edge_gumbel[(step, *edge)])
        to_b = [edge for edge in edges if edge[1] == b]
        focus[step] = placed.index(a)
        log_law[step] = np.log(len(to_b) / len(edges))
        placed.append(b)
    complete = len(placed) == len(species)
    return Sequence(placed, focus, labels, log_law, -np.log(len(starts)), complete)


def law_of_first_two_steps(positions, heavy, law):
    """Enumerates (first atom, first edge, second edge) with its probability."""
    probabilities = {}
    starts = first_atoms(heavy, law)
    for first in starts:
        edges = candidate_edges(positions, heavy, [first], law)
        for edge in edges:
            seconds = candidate_edges(positions, heavy, [first, edge[1]], law)
            for second in seconds:
                path = (first, edge, second)
                share = len(starts) * len(edges) * len(seconds)
                probabilities[path] = 1.0 / share
    return probabilities


def log_law_of_order(order, positions, heavy, law):
    """Returns the log-probability that the law places the atoms in this order."""
    log_probability = -np.log(len(first_atoms(heavy, law)))
    for count in range(1, len(order)):
        edges = candidate_edges(positions, heavy, list(order[:count]), law)
        share = sum(edge[1] == order[count] for edge in edges) / max(len(edges), 1)
        log_probability += np.log(share) if share > 0 else -np.inf
    return log_probability
