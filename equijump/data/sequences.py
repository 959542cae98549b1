"""Sequences of systems: which are the same, or alike enough to be held out together.

A sequence is that of one chain, caps left out, so that a capped peptide and one with
free ends are the same. The identity of two is the share of equal residues of the longer
one at the best shift, without gaps.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from equijump.data.residues import CAPS, RESIDUES
from equijump.data.topology import System

SHORT = 30
"""Residues up to which sequences are compared with all of similar length; longer ones
with those that share two words of `_WORD` residues at one shift."""

_WORD, _AT_ONCE = 3, 64

Tokens = Int[np.ndarray, " length"]


def chains_of(system: System) -> list[bytes]:
    """Returns the sequence of each chain as tokens; of nothing but caps, these."""
    found = []
    for chain in np.unique(system.chains).tolist():
        tokens = system.tokens[system.chains == chain].astype(np.int16)
        names = [RESIDUES[token - 1].name for token in tokens.tolist()]
        inside = tokens[[name not in CAPS for name in names]]
        found.append((inside if len(inside) else tokens).tobytes())
    return found


def name_of(system: System) -> str:
    """Returns the sequence of a system by names of residues, chains apart by /."""
    names = lambda tokens: "-".join(RESIDUES[token - 1].name for token in tokens)
    chains = [np.frombuffer(chain, np.int16) for chain in chains_of(system)]
    return "/".join(sorted(names(chain.tolist()) for chain in chains))


def groups_of(
    systems: Sequence[System], identity: float = 1.0
) -> Int[np.ndarray, " num_systems"]:
    """Returns the number of the group of each system.

    Systems of two groups have no chain of the same sequence, nor two whose identity is
    `identity` or more.

    Args:
        systems: systems, any number of which may have one sequence.
        identity: identity from which two sequences are alike; at 1 only the same are.
    """
    import scipy.sparse
    from scipy.sparse import csgraph

    chains: dict[bytes, int] = {}
    edges = [
        (row, chains.setdefault(chain, len(chains)))
        for row, system in enumerate(systems)
        for chain in dict.fromkeys(chains_of(system))
    ]
    rows, columns = np.array(edges).T
    columns = columns + len(systems)
    if identity < 1.0:
        alike = len(systems) + pairs_alike(list(chains), identity)
        rows, columns = np.append(rows, alike[:, 0]), np.append(columns, alike[:, 1])
    count = len(systems) + len(chains)
    graph = scipy.sparse.coo_array(
        (np.ones(len(rows)), (rows, columns)), (count, count)
    )
    return csgraph.connected_components(graph, directed=False)[1][: len(systems)]


def order_of(systems: Sequence[System], groups: Int[np.ndarray, " _"]) -> list[int]:
    """Returns the groups in an order that their sequences decide, as good as random."""
    first: dict[int, str] = {}
    for system, group in zip(systems, groups.tolist(), strict=True):
        name = hashlib.sha256(name_of(system).encode()).hexdigest()
        first[group] = min(name, first.get(group, name))
    return sorted(first, key=first.__getitem__)


def pairs_alike(
    chains: Sequence[bytes], identity: float
) -> Int[np.ndarray, "num_pairs 2"]:
    """Returns pairs of sequences with some identity or more.

    >>> made = [np.array(x, np.int16).tobytes() for x in ([1, 2, 3], [2, 3], [5, 6])]
    >>> pairs_alike(made, 0.5).tolist()
    [[0, 1]]

    Args:
        chains: sequences, as `chains_of` has them.
        identity: least identity.
    """
    read = [np.frombuffer(chain, np.int16) for chain in chains]
    order = np.argsort([len(tokens) for tokens in read], kind="stable")
    table = _Table([read[index] for index in order])
    found = [np.zeros((0, 2), int)]
    for row in range(len(read)):
        alike = table.alike(row, identity)
        found.append(np.stack([np.full(len(alike), row), alike], axis=1))
    return np.sort(order[np.concatenate(found)], axis=1)


class _Table:
    """Sequences by rising length, and where each word of them is."""

    def __init__(self, sequences: Sequence[np.ndarray]) -> None:
        self._sequences = sequences
        self._lengths = np.array([len(tokens) for tokens in sequences])
        most = int(self._lengths.max(initial=1))
        self._padded = np.zeros((len(sequences), 3 * most), np.int8)
        for row, tokens in enumerate(sequences):
            self._padded[row, most : most + len(tokens)] = tokens
        self._most, self._span = most, 2 * most + 1
        words = [_words(tokens) for tokens in sequences]
        every = np.concatenate([*words, np.zeros(0, int)])
        order = np.argsort(every, kind="stable")
        self._words, self._own = every[order], words
        counts = [len(own) for own in words]
        self._rows = np.repeat(np.arange(len(words)), counts)[order]
        places = [np.arange(count) for count in counts]
        self._places = np.concatenate([*places, np.zeros(0, int)])[order]

    def alike(self, row: int, identity: float) -> Int[np.ndarray, " num_found"]:
        """Returns later sequences, which are no shorter, of some identity or more."""
        length, own = self._lengths[row], self._sequences[row].astype(np.int8)
        longest = length / identity + 1e-9
        stop = int(np.searchsorted(self._lengths, longest, side="right"))
        if length <= SHORT:
            others = np.arange(row + 1, stop)
            equal = self._equal_at_best(own, others)
        else:
            others, shifts = self._sharing_words(row, stop)
            places = self._most + shifts[:, None] + np.arange(length)
            equal = np.count_nonzero(self._padded[others[:, None], places] == own, 1)
        is_alike = equal / self._lengths[others] >= identity - 1e-9
        return np.unique(others[is_alike])

    def _sharing_words(
        self, row: int, stop: int
    ) -> tuple[Int[np.ndarray, " num_found"], Int[np.ndarray, " num_found"]]:
        """Returns sequences up to `stop` that share words, and at which shift."""
        own = self._own[row]
        first = np.searchsorted(self._words, own)
        counts = np.searchsorted(self._words, own, side="right") - first
        begins = np.repeat(first - np.append(0, np.cumsum(counts)[:-1]), counts)
        found = begins + np.arange(len(begins))
        found_at = np.repeat(np.arange(len(own)), counts)
        later = (self._rows[found] > row) & (self._rows[found] < stop)
        found, found_at = found[later], found_at[later]
        shifts = self._places[found] - found_at + self._most
        keys = np.sort(self._rows[found] * self._span + shifts)
        keys = np.unique(keys[1:][keys[1:] == keys[:-1]])
        return keys // self._span, keys % self._span - self._most

    def _equal_at_best(
        self, own: Int[np.ndarray, " length"], others: Int[np.ndarray, " num_others"]
    ) -> Int[np.ndarray, " num_others"]:
        """Returns the number of equal residues at the best of all shifts."""
        best = [np.zeros(0, int)]
        for start in range(0, len(others), _AT_ONCE):
            chosen = others[start : start + _AT_ONCE]
            stop = self._most + int(self._lengths[chosen].max()) + len(own)
            padded = self._padded[chosen, self._most - len(own) : stop]
            windows = np.lib.stride_tricks.sliding_window_view(padded, len(own), axis=1)
            best.append(np.count_nonzero(windows == own, axis=2).max(axis=1))
        return np.concatenate(best)


def _words(tokens: Tokens) -> Int[np.ndarray, " num_words"]:
    """Returns the words of a sequence as numbers."""
    base = len(RESIDUES) + 1
    powers = base ** np.arange(_WORD)
    count = max(0, len(tokens) - _WORD + 1)
    return sum(tokens[k : k + count].astype(int) * powers[k] for k in range(_WORD))
