"""What both models use: equivariant layers, training, checkpoints, command lines.

Knows neither model. Positions are in Å; features are
`[num_nodes, (max_degree + 1)**2, num_channels]` in e3nn's order and axis convention.
"""

__version__ = "0.1.0"
