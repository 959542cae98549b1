"""Tests of sequences: which are the same, and which are alike."""

import numpy as np
import pytest

from equijump.data import sequences
from equijump.data.residues import TOKENS
from tests.equijump.test_data_pairs import make_trajectory

LETTERS = {
    "A": "ALA", "R": "ARG", "N": "ASN", "D": "ASP", "C": "CYS", "Q": "GLN", "E": "GLU",
    "G": "GLY", "H": "HIS", "I": "ILE", "L": "LEU", "K": "LYS", "M": "MET", "F": "PHE",
    "P": "PRO", "S": "SER", "T": "THR", "W": "TRP", "Y": "TYR", "V": "VAL",
}  # fmt: skip


def system_of(text, caps=False):
    """A system of a sequence; chains are apart by a slash."""
    chains = [[LETTERS[letter] for letter in chain] for chain in text.split("/")]
    chains = [["ACE", *chain, "NME"] if caps else chain for chain in chains]
    names = tuple(name for chain in chains for name in chain)
    made = make_trajectory(2).system
    slots = np.full((len(names), 14), -1, np.int32)
    slots[:, 1] = np.arange(len(names))
    return made._replace(
        tokens=np.array([TOKENS[name] for name in names], np.int32),
        chains=np.repeat(np.arange(len(chains)), [*map(len, chains)]).astype(np.int32),
        numbers=np.concatenate([np.arange(len(c), dtype=np.int32) for c in chains]),
        slot_atoms=slots,
        residue_names=names,
    )


def random_text(rng, length):
    return "".join(rng.choice(list(LETTERS), length))


def changed(rng, text, share):
    """The same sequence with a share of its residues replaced by others."""
    letters = list(text)
    for place in rng.permutation(len(text))[: round(share * len(text))]:
        letters[place] = rng.choice([x for x in LETTERS if x != letters[place]])
    return "".join(letters)


def groups(*texts, identity=1.0):
    return sequences.groups_of([system_of(text) for text in texts], identity).tolist()


def identity_by_hand(first, second):
    """Equal residues at the best shift over the length of the longer one."""
    short, long = sorted([first, second], key=len)
    best = 0
    for shift in range(-len(short), len(long) + 1):
        both = [(i, i + shift) for i in range(len(short)) if 0 <= i + shift < len(long)]
        best = max(best, sum(short[i] == long[j] for i, j in both))
    return best / len(long)


def test_a_capped_peptide_and_a_free_one_have_one_sequence():
    systems = [system_of("GYD"), system_of("GYD", caps=True), system_of("GYE")]
    assert sequences.groups_of(systems).tolist() == [0, 0, 1]
    assert sequences.name_of(systems[1]) == "GLY-TYR-ASP"


def test_complexes_that_share_a_chain_are_one_group():
    assert groups("AAAG/KKKR", "KKKR/WWWF", "WWWF", "FFFF") == [0, 0, 0, 1]
    assert groups("AAAG/KKKR", "KKKR/AAAG") == [0, 0]
    assert sequences.name_of(system_of("GG/AA")) == "ALA-ALA/GLY-GLY"


def test_the_order_of_groups_does_not_depend_on_that_of_systems():
    systems = [system_of(text) for text in ("AG", "GA", "KR", "WW", "YV")]
    groups = sequences.groups_of(systems)
    named = {sequences.name_of(systems[k]) for k in range(5)}
    names = [
        sequences.name_of(systems[groups.tolist().index(group)])
        for group in sequences.order_of(systems, groups)
    ]
    turned = systems[::-1]
    groups = sequences.groups_of(turned)
    again = [
        sequences.name_of(turned[groups.tolist().index(group)])
        for group in sequences.order_of(turned, groups)
    ]
    assert names == again
    assert set(names) == named


@pytest.mark.parametrize("identity", [0.3, 0.5, 0.75])
def test_identities_of_short_sequences_are_those_found_one_by_one(identity):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("AGKW"), n)) for n in rng.integers(2, 9, 60)]
    texts = list(dict.fromkeys(texts))
    chains = [sequences.chains_of(system_of(text))[0] for text in texts]
    found = {tuple(pair) for pair in sequences.pairs_alike(chains, identity).tolist()}
    expected = {
        (i, j)
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if identity_by_hand(texts[i], texts[j]) >= identity - 1e-9
    }
    assert found == expected
    assert 0 < len(found) < len(texts) * (len(texts) - 1) / 2


def test_families_of_long_sequences_are_found_whole():
    rng = np.random.default_rng(1)
    texts, family = [], []
    for number in range(40):
        parent = random_text(rng, int(rng.integers(90, 140)))
        for share in (0.0, 0.3, 0.45):
            cut = changed(rng, parent, share)[int(rng.integers(0, 6)) :]
            texts.append(cut)
            family.append(number)
    found = groups(*texts, identity=0.4)
    assert len(set(found)) == 40
    assert len(set(zip(found, family, strict=True))) == 40
