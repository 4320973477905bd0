"""Between two log points a training step asks the device for nothing: no value is read, so nothing waits."""

import pytest

from tests.reads import EVERY, watched_run


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kind", ["AR", "BERT", "joint"])
def test_between_log_points_a_step_reads_nothing_with_all_callbacks_guard_and_progress(
    digits_run, igpt, tmp_path, kind, accumulate
):
    found, logged, out = watched_run(
        igpt, digits_run.palette, tmp_path, kind, "--trainer.accumulate_grad_batches", accumulate
    )
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
