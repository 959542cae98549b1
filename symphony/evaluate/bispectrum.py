"""The bispectrum of an atom's neighbourhood: invariants of the neighbours' directions.

Directions only: neither the lengths of bonds nor the elements enter. Irreps in e3nn's
order; a direction stands for `e3nn_jax.s2_dirac`, orthonormal harmonics / sqrt(4 pi).
"""

import itertools
import math

import numpy as np
from jaxtyping import Float

from common.so3.clebsch_gordan import clebsch_gordan

MAX_DEGREE = 4


def harmonics(
    directions: Float[np.ndarray, "num_vectors 3"],
) -> list[Float[np.ndarray, "num_vectors _"]]:
    r"""Returns real harmonics of degrees 0 to 4, of norm $\sqrt{2l + 1} / 4\pi$.

    Each degree is the coupling of the direction itself with the degree below.

    Args:
        directions: vectors of any positive length.
    """
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    values = [np.full((len(units), 1), 1.0)]
    for degree in range(1, MAX_DEGREE + 1):
        raised = np.einsum(
            "na,nb,abc->nc", units, values[-1], clebsch_gordan(1, degree - 1, degree)
        )
        values.append(raised / np.linalg.norm(raised, axis=1, keepdims=True))
    return [
        math.sqrt(2 * degree + 1) / (4 * math.pi) * value
        for degree, value in enumerate(values)
    ]


def triples() -> list[tuple[int, int, int]]:
    """Returns the degrees of the 15 symmetric cubic invariants.

    An odd sum of degrees makes the coupling antisymmetric, and it vanishes unless
    all three differ: 2, 3, 4 is the only such one, and changes sign in a mirror.
    """
    symmetric = []
    degrees = range(MAX_DEGREE + 1)
    for l_1, l_2, l_3 in itertools.combinations_with_replacement(degrees, 3):
        odd = (l_1 + l_2 + l_3) % 2 == 1
        if l_3 <= l_1 + l_2 and not (odd and len({l_1, l_2, l_3}) < 3):
            symmetric.append((l_1, l_2, l_3))
    return symmetric


def bispectra(
    neighbours: Float[np.ndarray, "num_environments num_neighbours 3"],
) -> Float[np.ndarray, "num_environments 15"]:
    r"""Returns the invariants of several environments of as many neighbours each.

    With $a_{lm} = \sum_j Y_{lm}(\hat r_j)$ and unit-norm couplings $C$, each is
    $\sqrt{p} \sum_{m} C_{m_1 m_2 m_3} a_{l_1 m_1} a_{l_2 m_2} a_{l_3 m_3}$, where
    $p$ counts the orders of $(l_1, l_2, l_3)$: the components in an orthonormal basis
    of the symmetric invariants.

    Args:
        neighbours: vectors from the central atom to the bonded ones, in Å.
    """
    num_environments, num_neighbours, _ = neighbours.shape
    flat = np.asarray(neighbours, np.float64).reshape(-1, 3)
    density = [
        value.reshape(num_environments, num_neighbours, -1).sum(axis=1)
        for value in harmonics(flat)
    ]
    invariants = []
    for l_1, l_2, l_3 in triples():
        num_orders = {1: 1, 2: 3, 3: 6}[len({l_1, l_2, l_3})]
        contracted = np.einsum(
            "na,nb,nc,abc->n",
            density[l_1],
            density[l_2],
            density[l_3],
            clebsch_gordan(l_1, l_2, l_3),
            optimize=True,
        )
        invariants.append(math.sqrt(num_orders) * contracted)
    return np.stack(invariants, axis=-1)
