r"""Relaxed weights: global parameters with a direction, to find preferred directions.

$$ z^{l_3} = \sum_{l_1 l_2} \sqrt{2 l_3 + 1}\, C^{l_1 l_2 l_3} (x^{l_1} \otimes
   \theta^{l_2}) $$
with $\theta^0 = 1$ and all else zero at the start (Hofgard et al. 2024,
arXiv:2407.20471). There the layer is the identity and the network around it
equivariant. Training then moves a part of $\theta$ away from zero only where the data
prefer a direction; on isotropic data it stays at the noise of the gradient,
$O(n^{-1/2})$ for n examples. It is a diagnostic: leave it out of a final model.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.features import Features
from common.nn.products.clebsch_gordan import path_product
from common.so3.irreps import SCALAR, VECTOR, Irrep, parse, product_paths

PREFIX = "theta_"
"""Start of the names of the parameters; the irrep follows."""


class Relaxed(nn.Module):
    """Multiplies features, or the harmonics of a graph, by learned global features.

    A block is relaxed through its graph, `graph._replace(harmonics=Relaxed()(...))`,
    with any product but "so2", which needs the harmonics of one direction.

    Attributes:
        irreps: irreps of theta, scalars among them. One channel serves all channels of
            the features; otherwise there are as many.
    """

    irreps: str = "1x0e+1x1o+1x2e"

    @nn.compact
    def __call__(self, x: Features) -> Features:
        theta = {}
        for irrep, channels in parse(self.irreps).items():
            init = nn.initializers.constant(1.0 if irrep == SCALAR else 0.0)
            shape = (irrep.dim, channels)
            theta[irrep] = self.param(f"{PREFIX}{irrep}", init, shape)
        return relax(x, theta)


def relax(x: Features, theta: Features) -> Features:
    r"""Returns the product with $\theta$ along all paths to the irreps of x.

    >>> x = {VECTOR: jnp.arange(3.0)[:, None]}
    >>> relax(x, {SCALAR: jnp.ones((1, 1))})[VECTOR].ravel().round(4).tolist()
    [0.0, 1.0, 2.0]

    Args:
        x: features.
        theta: global features without batch, of one channel or those of x; a scalar is
            among them.
    """
    total: Features = {}
    for path in product_paths(sorted(x), sorted(theta), sorted(x)):
        term, out = path_product(x, theta, path), path[2]
        total[out] = total[out] + term if out in total else term
    return total


def theta_of(parameters: Mapping[str, Array]) -> Features:
    """Returns the learned features among the parameters of one `Relaxed` layer.

    >>> parameters = {"theta_0e": jnp.ones((1, 1)), "theta_2e": jnp.zeros((5, 1))}
    >>> [str(irrep) for irrep in theta_of(parameters)]
    ['0e', '2e']
    """
    names = [name for name in sorted(parameters) if name.startswith(PREFIX)]
    read = lambda name: next(iter(parse(f"1x{name.removeprefix(PREFIX)}")))
    return {read(name): parameters[name] for name in names}


def anisotropy(theta: Features) -> dict[Irrep, Float[Array, ""]]:
    r"""Returns how much direction was learned: $\| \theta^l \| / \| \theta^0 \|$.

    >>> anisotropy({SCALAR: jnp.ones((1, 1)), VECTOR: jnp.zeros((3, 1))})[VECTOR]
    Array(0., dtype=float32)
    """
    size = jnp.linalg.norm(theta[SCALAR])
    return {i: jnp.linalg.norm(theta[i]) / size for i in sorted(theta) if i != SCALAR}


def vector_map(theta: Features) -> Float[Array, "3 3"]:
    r"""Returns the matrix by which $\theta$ multiplies a vector, mean over channels.

    The degrees 0, 1 (even) and 2 are its trace, its antisymmetric part and its
    symmetric traceless part; eigenvectors of the last are the preferred axes.

    >>> vector_map({SCALAR: 2.0 * jnp.ones((1, 1))}).round(4).tolist()
    [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]
    """
    # Rows of the identity are the batch: row k of the result is the image of axis k.
    images = relax({VECTOR: jnp.eye(3)[..., None]}, theta)[VECTOR]
    return jnp.mean(images, axis=-1).T
