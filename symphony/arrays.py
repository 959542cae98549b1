"""Types of the arrays that many functions share.

A name in a shape, as `num_nodes`, stands for one number within a call.
"""

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

Flag = Bool[Array, ""]
Index = Int[Array, ""]
Scalar = Float[Array, ""]
RandomKey = Key[Array, ""]
Vector = Float[Array, " 3"]

Positions = Float[Array, "num_nodes 3"]
Species = Int[Array, " num_nodes"]
NodeIndices = Int[Array, " num_nodes"]
Scores = Float[Array, " num_properties"]
NodeMask = Bool[Array, " num_nodes"]
NodeScalars = Float[Array, " num_nodes"]
PairMask = Bool[Array, "num_nodes num_nodes"]
AtomicNumbers = UInt8[np.ndarray, " num_atoms"]
HostPositions = Float[np.ndarray, "num_atoms 3"]

StepIndices = Int[Array, " num_steps"]
StepScalars = Float[Array, " num_steps"]
StepFeats = Float[Array, "num_steps num_channels"]
StepMask = Bool[Array, " num_steps"]
PlacedMask = Bool[Array, "num_steps num_nodes"]

BatchScalars = Float[Array, "*batch"]
Directions = Float[Array, "*batch 3"]
Signals = Float[Array, "*batch components channels"]
