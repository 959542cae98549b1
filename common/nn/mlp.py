"""A multilayer perceptron on invariant numbers."""

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float


class MLP(nn.Module):
    """Dense layers with an activation between them, none after the last.

    Attributes:
        features: widths of the layers, the output included.
        activation: function between layers.
        use_bias: true for layers with biases. Without them zero maps to zero, and so
            does whatever a smooth envelope multiplied at the input.
    """

    features: tuple[int, ...]
    activation: Callable[[Array], Array] = nn.silu
    use_bias: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch channels"]
    ) -> Float[Array, "*batch features"]:
        for index, width in enumerate(self.features):
            if index > 0:
                x = self.activation(x)
            x = nn.Dense(width, use_bias=self.use_bias)(x)
        return x
