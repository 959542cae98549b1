"""The group `train` of a config, whose fields all kinds of model share."""

import ml_collections


def train_group(**values: object) -> ml_collections.ConfigDict:
    """Returns the group, with some of its values replaced.

    >>> train_group(num_steps=600).num_steps
    600

    Args:
        values: values by their names.
    """
    group = ml_collections.ConfigDict()
    group.update(num_steps=60_000, batch_size=16)
    group.num_microbatches = 1  # Pieces of a batch that are evaluated in turn.
    group.num_devices = 1  # Of each process of the run.
    group.shard_parameters = False  # Whether each device holds a part of them.
    group.optimizer = "muon"  # A key of `common.runs.training.OPTIMIZERS`.
    group.update(learning_rate=2e-3, warmup_steps=200)
    group.final_factor = 0.01  # Of the learning rate, at the last step.
    group.update(weight_decay=0.0, adam_b2=0.99)
    group.clip_norm = 5.0  # Largest norm of the gradient; 0 for any.
    group.ema_decay = 0.999  # Of the mean of the weights that is kept.
    group.update(log_every=100, eval_every=1_000, checkpoint_every=500)  # Steps.
    group.loggers = ()  # Beside metrics.jsonl: keys of `common.runs.loggers.LOGGERS`.
    group.num_validation = 1_000  # Molecules or pairs.
    group.update(values)
    return group
