"""Transports from one frame to a later one: one file and one row of the table each.

Every transport has the same names:

* `HEADS`: what its network is asked for, see `equijump.transport.heads`.
* `METHODS`: names of its samplers, the default first.
* `path(t)`: coefficients of source, target and noise at a time of [0, 1].
* `draw_time(key)`: a time of training.
* `jump(request)`: end of one jump, drawn as `equijump.transport.paths.Request` says.

`foellmer` also has `remake`, which draws the late part of a jump anew.
"""

from equijump.transport import (
    ddpm,
    flow_matching,
    foellmer,
    noised_linear,
    one_sided,
    two_sided,
)

TRANSPORTS = {
    "foellmer": foellmer,
    "two_sided": two_sided,
    "noised_linear": noised_linear,
    "one_sided": one_sided,
    "flow_matching": flow_matching,
    "ddpm": ddpm,
}
