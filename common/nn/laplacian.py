r"""Encodings of the nodes of a graph by the eigenvectors of its Laplacian.

An eigenvector is known up to its sign, and those of one eigenvalue up to a rotation
(rings have many). Two encodings do not see the choice (Lim et al. 2022,
arXiv:2202.13013):

* SignNet, $\rho([\phi(v_k, \lambda_k) + \phi(-v_k, \lambda_k)]_k)$, not the sign;
* BasisNet, $\rho([\phi(V_k V_k^\top, \lambda_k)]_k)$, not the rotation either: only the
  projector on an eigenspace enters.

Bonds are data, not functions of positions: no gradient flows into the modes.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from common.nn.mlp import MLP

TOLERANCE = 1e-3
"""Eigenvalues nearer than this, of 0 to 2, count as one."""


class Modes(NamedTuple):
    """Eigenvectors of a Laplacian, by rising eigenvalue.

    Attributes:
        values: eigenvalues, from 0 to 2; larger where the mode is not real.
        vectors: eigenvectors, one a column; zero at padding where the mode is real.
        mask: true for as many modes as there are real nodes.
    """

    values: Float[Array, " num_nodes"]
    vectors: Float[Array, "num_nodes num_nodes"]
    mask: Bool[Array, " num_nodes"]


def laplacian_modes(
    adjacency: Float[Array, "num_nodes num_nodes"],
    node_mask: Bool[Array, " num_nodes"],
) -> Modes:
    r"""Returns the eigenvectors of $1 - D^{-1/2} A D^{-1/2}$.

    >>> bond = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    >>> laplacian_modes(bond, jnp.ones(2, bool)).values.round(3).tolist()
    [0.0, 2.0]

    Args:
        adjacency: weights of the bonds, symmetric, without loops.
        node_mask: true where real.
    """
    both = node_mask[:, None] & node_mask
    weights = jax.lax.stop_gradient(jnp.where(both, adjacency, 0.0))
    degree = jnp.sum(weights, axis=1)
    # An isolated node has the eigenvalue 1, padding 4: beyond all real ones.
    inverse = jnp.where(degree > 0.0, jnp.where(degree > 0.0, degree, 1.0) ** -0.5, 0.0)
    scaled = inverse[:, None] * weights * inverse
    matrix = jnp.diag(jnp.where(node_mask, 1.0, 4.0)) - scaled
    values, vectors = jnp.linalg.eigh(matrix)
    return Modes(values, vectors, jnp.arange(len(node_mask)) < jnp.sum(node_mask))


def projectors(modes: Modes) -> Float[Array, "num_nodes num_nodes num_nodes"]:
    r"""Returns for each mode the projector $V V^\top$ on its whole eigenspace.

    >>> ring = jnp.roll(jnp.eye(6), 1, axis=0) + jnp.roll(jnp.eye(6), -1, axis=0)
    >>> found = projectors(laplacian_modes(ring, jnp.ones(6, bool)))
    >>> jnp.trace(found, axis1=1, axis2=2).round().tolist()
    [1.0, 2.0, 2.0, 2.0, 2.0, 1.0]
    """
    near = jnp.abs(modes.values[:, None] - modes.values) < TOLERANCE
    same = (near & modes.mask & modes.mask[:, None]).astype(modes.vectors.dtype)
    return jnp.einsum(
        "kl,il,jl->kij",
        same,
        modes.vectors,
        modes.vectors,
        precision=jax.lax.Precision.HIGHEST,
    )


class SignNet(nn.Module):
    """Encoding that does not see the signs of eigenvectors.

    Attributes:
        features: width of the encoding.
        num_modes: number of modes that are used, those of the smallest eigenvalues.
        num_hidden: width of the hidden layers.
    """

    features: int
    num_modes: int
    num_hidden: int = 16

    @nn.compact
    def __call__(
        self, modes: Modes, node_mask: Bool[Array, " num_nodes"]
    ) -> Float[Array, "num_nodes features"]:
        """Returns invariant numbers of the nodes, zero at padding."""
        phi = MLP((self.num_hidden, self.num_hidden), name="phi")
        values = jnp.broadcast_to(modes.values, modes.vectors.shape)
        signed = [
            phi(jnp.stack([sign * modes.vectors, values], axis=-1))
            for sign in (1.0, -1.0)
        ]
        return _join(self, jnp.swapaxes(sum(signed), 0, 1), modes, node_mask)


class BasisNet(nn.Module):
    r"""Encoding that sees eigenspaces alone, not the eigenvectors that span them.

    $\phi$ is a sum over pairs, $\sum_j f(P_{ij}, P_{ii}, P_{jj}, \lambda)$.

    Attributes:
        features: width of the encoding.
        num_modes: number of modes that are used, those of the smallest eigenvalues; an
            eigenspace fills as many as its dimension, also where the last of them falls
            away.
        num_hidden: width of the hidden layers.
    """

    features: int
    num_modes: int
    num_hidden: int = 16

    @nn.compact
    def __call__(
        self, modes: Modes, node_mask: Bool[Array, " num_nodes"]
    ) -> Float[Array, "num_nodes features"]:
        """Returns invariant numbers of the nodes, zero at padding."""
        pairs = projectors(modes)[: self.num_modes]
        own = jnp.diagonal(pairs, axis1=1, axis2=2)
        values = modes.values[: self.num_modes, None, None]
        given = (pairs, own[:, :, None], own[:, None], values)
        rows = jnp.stack([jnp.broadcast_to(a, pairs.shape) for a in given], axis=-1)
        phi = MLP((self.num_hidden, self.num_hidden), name="phi")(rows)
        phi = jnp.sum(jnp.where(node_mask[:, None], phi, 0.0), axis=2)
        return _join(self, phi, modes, node_mask)


def _join(
    module: SignNet | BasisNet,
    encoded: Float[Array, "_modes num_nodes hidden"],
    modes: Modes,
    node_mask: Bool[Array, " num_nodes"],
) -> Float[Array, "num_nodes features"]:
    """Applies the last network to all modes of a node, side by side."""
    missing = max(module.num_modes - len(encoded), 0)
    used = jnp.where(modes.mask[: len(encoded), None, None], encoded, 0.0)
    used = jnp.pad(used[: module.num_modes], ((0, missing), (0, 0), (0, 0)))
    rows = jnp.swapaxes(used, 0, 1).reshape(len(node_mask), -1)
    out = MLP((module.num_hidden, module.features), name="rho")(rows)
    return jnp.where(node_mask[:, None], out, 0.0)
