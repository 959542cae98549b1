"""Compilations of a training, one after the other; `benchmarks.waits` calls this.

    python benchmarks/waits_worker.py qm9_cpu 2 12

Prints CPU-seconds as JSON: of the initial parameters, of the first step of so many
buckets, and of so many steps after. It uses what every version since 0.3.0 has, so that
it measures another checkout where that is first in PYTHONPATH.
"""

import json
import sys
import time
from typing import Any

import jax

from common.runs import config as configs
from common.runs import training
from symphony import build, data
from symphony import train as command


def main(name: str, num_buckets: int, num_steps: int) -> None:
    """Measures the training of a config on the packaged molecules."""
    config = configs.find("symphony", name).get_config()
    config.data.path, config.train.num_validation = "qm9-sample", 64
    since = time.process_time()
    params = build.init_params(config, jax.random.key(0))
    init = time.process_time() - since

    packed, _, meta = command.load_data(config)
    loss = build.make_loss(config, build.kind_of(config).mean_steps(meta))
    optimizer = training.make_optimizer(config.train)
    state, settings = training.make_state(params, optimizer), config.train
    step = training.make_train_step(
        loss, optimizer, settings.ema_decay, None, settings.num_microbatches
    )

    def take(batch: Any) -> float:
        nonlocal state
        since = time.process_time()
        state, metrics = step(state, batch, jax.random.key(1))
        jax.block_until_ready((state, metrics))
        return time.process_time() - since

    first: dict[int, float] = {}
    number = 0
    while len(first) < num_buckets:
        batch = data.batch_at(packed, settings.batch_size, 0, number)
        number += 1
        size = batch.node_mask.shape[1]
        if size not in first:
            first[size] = take(batch)
    steps = sorted(take(batch) for _ in range(num_steps))
    times = {"init": init, "buckets": [*first.values()]}
    sys.stdout.write(json.dumps(times | {"step": steps[len(steps) // 2]}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:4]))
