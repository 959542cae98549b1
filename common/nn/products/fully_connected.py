r"""The Clebsch-Gordan product of all channels with all channels.

$$ z_{l_3 d} = \sum_{l_1 l_2} \sum_{b c} \frac{w_{l_1 l_2 l_3 b c d}}{\sqrt{B C}}
   \sqrt{2 l_3 + 1}\, C^{l_1 l_2 l_3} (x_{l_1 b} \otimes y_{l_2 c}) $$
with B and C channels in the factors, and as many in the product as in x. Couplings are
written out term by term, or where they are many multiplied by dense tables.
"""

import functools
import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.features import Features
from common.nn.products import clebsch_gordan as channelwise
from common.nn.products import multilinear, self_product
from common.nn.products.spec import Spec, added_up, equal_channels, split_weights
from common.so3.irreps import Path

paths = self_product.paths
irreps_out = functools.partial(added_up, paths)


def num_weights(spec: Spec) -> int:
    """Returns one weight a path and triple of channels.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> num_weights(make_spec(uniform(1, 8), uniform(1, 2), uniform(1, 8)))
    512
    """
    return math.prod(_channels(spec)) * len(paths(spec))


def product(
    x: Features,
    y: Features,
    weights: Float[Array, "*batch num_weights"],
    spec: Spec,
    max_terms: int = self_product.MAX_TERMS,
) -> Features:
    """Returns the products.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import SCALAR
    >>> spec = make_spec({SCALAR: 2}, {SCALAR: 2}, [SCALAR])
    >>> x = {SCALAR: jnp.ones((1, 2))}
    >>> product(x, x, jnp.ones(8), spec)[SCALAR].tolist()
    [[2.0, 2.0]]

    Args:
        x: features of the first factor.
        y: features of the second one, of any number of channels.
        weights: weights by path, then by channel of x, of y and of the product.
        spec: irreps.
        max_terms: couplings up to which the product is written out term by term.
    """
    first, second, _ = _channels(spec)
    shape = (first, second)
    pair = lambda a, axis: jnp.broadcast_to(
        jnp.expand_dims(a, axis), (*a.shape[:-1], *shape)
    ).reshape(*a.shape[:-1], -1)
    x = {i: pair(part, -1) for i, part in x.items()}
    y = {j: pair(part, -2) for j, part in y.items()}
    of_path = _by_terms if _num_terms(spec) <= max_terms else _by_tables
    mixed: Features = {}
    for (path, part), w in zip(
        of_path(x, y, spec).items(), path_weights(weights, spec).values(), strict=True
    ):
        w = w.reshape(*w.shape[:-3], -1, w.shape[-1])
        term = jnp.einsum("...kc,...cd->...kd", part, w)
        mixed[path[2]] = mixed[path[2]] + term if path[2] in mixed else term
    return mixed


def path_weights(
    weights: Float[Array, "*batch num_weights"], spec: Spec
) -> dict[Path, Float[Array, "*batch channels_x channels_y channels"]]:
    """Returns the weights of Clebsch-Gordan products of all pairs of channels.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import SCALAR
    >>> spec = make_spec({SCALAR: 2}, {SCALAR: 2}, [SCALAR])
    >>> [w.shape for w in path_weights(jnp.ones(8), spec).values()]
    [(2, 2, 2)]
    """
    every, shape = paths(spec), _channels(spec)
    parts = split_weights(weights, (math.prod(shape),) * len(every))
    scale = 1.0 / math.sqrt(shape[0] * shape[1])
    return {
        path: scale * part.reshape(*part.shape[:-1], *shape)
        for path, part in zip(every, parts, strict=True)
    }


def _channels(spec: Spec) -> tuple[int, int, int]:
    """Returns the channels of x, of y and of the product."""
    swapped = spec._replace(x=spec.y, y=spec.x)
    return equal_channels(spec), equal_channels(swapped), equal_channels(spec)


def _num_terms(spec: Spec) -> int:
    return len(self_product.form(spec).terms)


@functools.cache
def _form(spec: Spec) -> tuple[multilinear.Form, dict[Path, slice]]:
    """Returns the couplings of paths that are not added up, all of weight one."""
    added, rows = self_product.form(spec), self_product.rows
    own, start = {}, 0
    for path in paths(spec):
        own[path] = slice(start, start + path[2].dim)
        start += path[2].dim
    within = rows(tuple(irreps_out(spec)))
    every, terms = paths(spec), []
    for (p, i, j, k), value in added.terms:
        shift = own[every[p]].start - within[every[p][2]].start
        terms.append(multilinear.Term((0, i, j, k + shift), value))
    return multilinear.Form(tuple(terms), (1, *added.sizes[1:3], start)), own


def _by_terms(x: Features, y: Features, spec: Spec) -> dict[Path, Array]:
    form, own = _form(spec)
    stack = lambda part: jnp.concatenate([part[i] for i in sorted(part)], axis=-2)
    z = multilinear.apply(form, jnp.ones((1, 1)), stack(x), stack(y))
    return {path: z[..., rows, :] for path, rows in own.items()}


def _by_tables(x: Features, y: Features, spec: Spec) -> dict[Path, Array]:
    return {path: channelwise.path_product(x, y, path) for path in paths(spec)}
