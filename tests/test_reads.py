"""Between two log points a training step asks the device for nothing: no value is read, so nothing waits."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

EVERY = 6


def model_of(kind, palette):
    core = {
        "class_path": f"igpt.modules.{'Autoregressive' if kind == 'AR' else 'BERT'}",
        "init_args": {
            "transformer": {"n_layers": 1, "d_model": 16, "n_heads": 2, "n_positions": 64, "vocab_size": 17}
            | {"sos": kind == "AR"},
            "palette": str(palette),
        },
    }
    if kind != "joint":
        return core
    return {"class_path": "igpt.modules.Joint", "init_args": {"num_classes": 10, "generative": core}}


@pytest.fixture
def fitted(digits_run, igpt, tmp_path):
    """`fitted(kind, options...)`: what `CountReads` found in a run of 25 steps, and the steps of each logged value.

    All within an epoch, at whose beginning PyTorch's loader reads a random number that lies on the CPU.
    """

    def fit(kind, *options):
        counted = {"out": str(tmp_path / "reads.json"), "every": EVERY}
        counting = {"class_path": "tests.reads.CountReads", "init_args": counted}
        guard = {"class_path": "igpt.callbacks.LossGuard"}
        code, out, err = igpt(
            "fit", "--model", json.dumps(model_of(kind, digits_run.palette)), "--data", "Digits",
            "--data.init_args.batch_size", 16, "--trainer.callbacks", json.dumps([counting, guard]),
            "--trainer.max_steps", 25, "--trainer.log_every_n_steps", EVERY, "--trainer.limit_val_batches", 0,
            "--trainer.accelerator", "cpu", "--checkpoint.every_n_train_steps", EVERY,
            "--runs_dir", tmp_path, "--name", "run", *options,
        )  # fmt: skip
        assert code == 0, err
        events = EventAccumulator(str(tmp_path / "run"))
        events.Reload()
        logged = {name: [event.step for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
        return json.loads((tmp_path / "reads.json").read_text()), logged, out

    return fit


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kind", ["AR", "BERT", "joint"])
def test_between_log_points_a_step_reads_nothing_with_all_callbacks_guard_and_progress(fitted, kind, accumulate):
    found, logged, out = fitted(kind, "--trainer.accumulate_grad_batches", accumulate)
    assert found["steps"] == [step for step in range(7, 26) if step % EVERY]
    assert found["reads"] == {}
    assert found["calls"] > 100 * len(found["steps"])  # the counter saw the steps
    assert found["at"]["aten::_local_scalar_dense"] > 0  # and sees reads where there are some
    points = [5, 11, 17, 23]
    expected = {"train/loss", "train/images_per_second", "lr-Adam"}
    expected |= {"train/accuracy", "train/class_loss"} if kind == "joint" else {"train/bits_per_pixel"}
    assert expected <= set(logged)
    assert all(sorted(set(logged[name])) == points for name in expected), logged
    assert "Training: 25/25 (100 %), " in out
    assert "train/loss" in out
