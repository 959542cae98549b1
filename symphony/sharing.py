"""What all orders of a molecule share in the network: its edges and their weights.

Distances do not know the order in which atoms are placed; the mask of the causal trunk
does. So nodes stay as the molecule was given until the features of its steps are known.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.blocks.messages import edge_feats
from common.nn.conditions import Conditions
from common.nn.features import Features, scalars_of, take
from common.nn.graph import Graph, keep_nearest, mask_edges, take_senders
from symphony.arrays import NodeIndices, NodeMask, Positions, Species
from symphony.model import NextAtom, Symphony


class Shared(NamedTuple):
    """Edges of a molecule as it was given.

    Attributes:
        graph: edges between all its atoms.
        layers: weights of the messages of each layer of the trunk; None of a block
            that makes its own.
        focus: weights of the messages to candidates for the focus.
        exchange: weights of the messages of the present step.
        positions: positions of the atoms, in Å.
    """

    graph: Graph
    layers: tuple[Float[Array, "num_nodes num_nodes _"] | None, ...]
    focus: Float[Array, "num_nodes num_nodes twice_channels"]
    exchange: Float[Array, "num_nodes num_nodes num_channels"]
    positions: Positions


def share(model: Symphony, positions: Positions, node_mask: NodeMask) -> Shared:
    """Returns what the orders of a molecule share.

    Args:
        model: network bound to its parameters.
        positions: positions of the atoms, in Å.
        node_mask: true for real atoms.
    """
    others = node_mask[:, None] & node_mask & ~jnp.eye(len(node_mask), dtype=bool)
    graph = model.graph(positions, positions, others)
    feats = edge_feats(graph)
    layers = [
        layer.edge_weights(graph) if hasattr(layer, "edge_weights") else None
        for layer in model.layers
    ]
    focus, exchange = model.focus_weights(feats), model.exchange_weights(feats)
    return Shared(graph, tuple(layers), focus, exchange, positions)


def embed_order(
    model: Symphony,
    shared: Shared,
    species: Species,
    node_mask: NodeMask,
    rank: NodeIndices,
    conditions: Conditions,
) -> tuple[Features, NextAtom]:
    """Returns what `Symphony.embed_steps` does for an order, its atoms in the order.

    Args:
        model: network bound to its parameters.
        shared: edges of the molecule.
        species: indices into the species table, as the molecule was given.
        node_mask: true for real atoms.
        rank: place in the order of each atom.
        conditions: conditions of the molecule.
    """
    num_nodes = len(species)
    # Padding is never placed, and last.
    rank = jnp.where(node_mask, rank, num_nodes)
    past = rank < rank[:, None]
    placed = rank <= jnp.arange(num_nodes)[:, None]
    graph = keep_nearest(mask_edges(shared.graph, past), model.num_neighbors)
    node_feats = model.embed(species, conditions)
    for layer, weights in zip(model.layers, shared.layers, strict=True):
        known = {}
        if weights is not None:
            weights = take_senders(weights * past[..., None], graph.senders)
            known = {"weights": weights}
        node_feats = layer(node_feats, graph, **known)
    node_feats = model.trunk_norm(node_feats)
    sent = shared.focus * model.focus_senders(scalars_of(node_feats))
    messages = jnp.einsum("tj,ijc->tic", placed.astype(sent.dtype), sent)
    found = model.next_atom(
        species,
        shared.positions,
        node_feats,
        messages,
        placed,
        shared.exchange,
        conditions,
    )
    order = jnp.argsort(rank)
    found = found._replace(
        focus_species=found.focus_species[:, order], hidden=found.hidden[:, order]
    )
    return take(node_feats, order), found
