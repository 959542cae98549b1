"""What both models use: equivariant layers, training, checkpoints, command lines.

Knows neither model. Positions are in Å; features map each irrep to an array
`[num_nodes, 2l + 1, num_channels]` in e3nn's order and axis convention.
"""

__version__ = "0.1.0"
