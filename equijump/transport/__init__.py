"""Transports from one frame to a later one: one file a method.

Each has the same names:

* `HEADS`: what its network is asked for, see `equijump.transport.heads`.
* `METHODS`: names of its samplers, the default first.
* `path(t)`: the coefficients of source, target and noise at a time of [0, 1].
* `draw_time(key)`: a time of training.
* `jump(predict, draw_noise, key, x_0, scales, num_steps, method)`: draws the end of one
  jump. `predict` gives the heads in Å (the noise as it is) of a noised frame and a
  time; `draw_noise` standard normal numbers of a key, masked and centred; `x_0` is the
  source, `scales` the lengths of each slot, both in Å; `num_steps` counts evaluations
  of the network.

`foellmer` also has `remake`, which draws the late part of a jump anew.
"""
