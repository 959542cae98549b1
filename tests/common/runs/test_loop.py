"""The loop of a run: resuming, what a resumed run may change, and what is written."""

import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from common.errors import RunError, UsageError
from common.runs import loop, metrics

TRAIN = {
    "optimizer": "adam",
    "learning_rate": 0.1,
    "warmup_steps": 0,
    "final_factor": 1.0,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
    "adam_b2": 0.99,
    "ema_decay": 0.5,
    "num_microbatches": 1,
    "batch_size": 4,
    "shard_parameters": False,
    "num_steps": 4,
    "log_every": 2,
    "eval_every": 4,
    "checkpoint_every": 2,
    "loggers": (),
}


def config_of(**changes):
    return ml_collections.ConfigDict(
        {"train": TRAIN | changes, "model": {"width": 1}, "seed": 0}
    )


def loss_fn(params, batch, keys):
    noise = jax.vmap(jax.random.normal)(keys)
    loss = jnp.mean((params["bias"] - batch - 0.1 * noise) ** 2)
    return loss, {"error": loss}


def parts_of(batch_at=lambda step, rows: np.full(4, step, np.float32)[rows], fixed=()):
    return loop.Parts(
        loss_fn=loss_fn,
        batch_at=batch_at,
        validate=lambda params: {"validation_error": float(params["bias"][0])},
        average=loop.average,
        loss_name="error",
        unit="Å",
        steps_per_epoch=2,
        fixed=fixed,
    )


def run(workdir, config, parts=None, **meta):
    workdir.mkdir(exist_ok=True)
    params, key = {"bias": jnp.zeros(1)}, jax.random.key(0)
    return loop.train(config, workdir, params, parts or parts_of(), meta, key, None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, run(workdir, config_of(), data_checksum="0" * 64)


def test_a_run_in_two_halves_ends_as_the_whole(whole, tmp_path):
    run(tmp_path, config_of(num_steps=2), data_checksum="0" * 64)
    state = run(tmp_path, config_of(), data_checksum="0" * 64)
    assert int(state.step) == 4
    np.testing.assert_array_equal(state.params["bias"], whole[1].params["bias"])
    np.testing.assert_array_equal(state.ema_params["bias"], whole[1].ema_params["bias"])


def test_a_finished_run_is_left_as_it_is(whole, caplog, capsys):
    workdir, state = whole
    before = (workdir / metrics.FILE_NAME).read_text()
    again = run(workdir, config_of(), data_checksum="0" * 64)
    assert "all 4 steps are done, config.train.num_steps asks for 4" in caplog.text
    assert "training: 4/4 steps" in capsys.readouterr().out
    np.testing.assert_array_equal(again.params["bias"], state.params["bias"])
    assert (workdir / metrics.FILE_NAME).read_text() == before


def test_records_and_the_config_lie_in_the_folder(whole):
    workdir, _ = whole
    records = metrics.read_metrics(workdir)
    assert [record["step"] for record in records] == [2, 4, 4]
    assert {"loss", "error", "grad_norm", "wall_seconds"} <= records[0].keys()
    assert "validation_error" in records[-1]
    written = json.loads((workdir / "config.json").read_text())
    assert written["train"]["num_steps"] == 4


def test_other_data_is_refused(whole):
    with pytest.raises(UsageError, match=r"expected the data .*000.*found other data"):
        run(whole[0], config_of(), data_checksum="1" * 64)


def test_a_checksum_with_a_name_is_told_by_it(tmp_path):
    short = config_of(num_steps=1)
    run(tmp_path, short, held_out_checksum="0" * 64)
    with pytest.raises(UsageError, match="expected the held_out data"):
        run(tmp_path, short, held_out_checksum="1" * 64)


def test_what_is_fixed_may_not_change(whole):
    config = config_of()
    config.model.width = 2
    parts = parts_of(fixed=("config.model.",))
    with pytest.raises(UsageError, match=r"config\.model\.width = 1, .*found 2"):
        run(whole[0], config, parts, data_checksum="0" * 64)


def test_what_may_change_is_noted_with_its_step(tmp_path):
    run(tmp_path, config_of(num_steps=2))
    meta = {}
    config = config_of(learning_rate=0.05)
    params, key = {"bias": jnp.zeros(1)}, jax.random.key(0)
    loop.train(config, tmp_path, params, parts_of(), meta, key, None)
    (change,) = meta["changes"]
    assert change["step"] == 2
    assert change["config.train.learning_rate"] == [0.1, 0.05]
    assert change["config.train.num_steps"] == [2, 4]


def test_a_loss_that_is_not_finite_ends_the_run_at_the_next_line(tmp_path):
    spoilt = lambda step, rows: np.full(4, np.nan if step == 2 else 0.0, np.float32)
    with pytest.raises(RunError, match="non-finite at step 3"):
        run(tmp_path, config_of(), parts_of(spoilt))


def test_progress_has_the_loss_and_its_unit(tmp_path, capsys):
    run(tmp_path, config_of(num_steps=1))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("training: 1/1 steps")
    assert last.endswith(" Å")


def test_a_validation_that_rises_is_told_the_same_by_a_resumed_run(
    tmp_path, monkeypatch
):
    """The bias goes to 1 and is the validation loss."""
    told = []
    monkeypatch.setattr(
        loop.logging, "warning", lambda line, *rest: told.append(line % rest)
    )
    parts = parts_of(lambda step, rows: np.ones(4, np.float32))
    each = {"log_every": 1, "eval_every": 1, "checkpoint_every": 1}
    run(tmp_path / "whole", config_of(num_steps=7, **each), parts)
    whole = list(told)
    assert [line.split(":")[0] for line in whole] == ["step 4", "step 7"]
    assert "the checkpoint of step 1 is kept, and used for sampling" in whole[0]
    told.clear()
    run(tmp_path / "halves", config_of(num_steps=5, **each), parts)
    run(tmp_path / "halves", config_of(num_steps=7, **each), parts)
    assert [line for line in told if "validation" in line] == whole


def test_means_are_over_steps_and_names_stay():
    records = [{"a": jnp.float32(v), "b": jnp.float32(2 * v)} for v in (1, 2, 6)]
    assert loop.average(records) == {"a": 3.0, "b": 6.0}


def test_a_line_of_metrics_drops_the_word_validation():
    assert loop.describe({}) == ""
    assert loop.describe({"validation_error": 0.1234}) == "error 0.123"
