import pytest

from igpt.callbacks import StepCheckpoint
from igpt.system.errors import UserError
from tests.obstacles import obstacles
from tests.stopping import stop


def names(folder):
    return sorted(path.name for path in (folder / "mini" / "checkpoints").glob("*.ckpt"))


def fit(igpt, run, folder, *options):
    code, _, err = igpt("fit", "--config", run.config, "--runs_dir", folder, "--samples.num", 0,
                        "--samples.completions", 0, "--trainer.limit_val_batches", 0, *options)  # fmt: skip
    assert code == 0, err
    return folder / "mini" / "checkpoints"


def test_named_steps_are_saved_beside_the_interval_and_kept(digits_run, igpt, tmp_path):
    folder = fit(igpt, digits_run, tmp_path, "--trainer.max_steps", 12, "--checkpoint.every_n_train_steps", 5,
                 "--checkpoint.at_steps", "[2,5,7,99]")  # fmt: skip
    steps = [f"step={step:07d}.ckpt" for step in (2, 5, 7, 10, 12)]
    assert names(tmp_path) == ["last.ckpt", *steps]
    assert (folder / "last.ckpt").resolve().name == steps[-1]


def test_named_steps_alone_are_saved_where_the_interval_is_off(digits_run, igpt, tmp_path):
    import torch

    folder = fit(igpt, digits_run, tmp_path, "--trainer.max_steps", 6, "--checkpoint.every_n_train_steps", 0,
                 "--checkpoint.at_steps", "[3]", "--trainer.accumulate_grad_batches", 2)  # fmt: skip
    assert names(tmp_path) == ["last.ckpt", "step=0000003.ckpt", "step=0000006.ckpt"]
    assert torch.load(folder / "step=0000003.ckpt", weights_only=True)["global_step"] == 3


def test_where_last_cannot_be_linked_the_run_goes_on_and_names_what_is_whole(digits_run, igpt, tmp_path):
    code, _, err = igpt("fit", "--config", digits_run.config, "--runs_dir", tmp_path, "--samples.num", 0,
                        "--samples.completions", 0, "--checkpoint.every_n_train_steps", 5, "--checkpoint.keep", 1,
                        *obstacles({5: "link"}), *stop(11))  # fmt: skip
    lines = [line for line in err.splitlines() if line.startswith("igpt")]
    assert code == 75, err
    assert len(lines) == 4, err
    for line, step in zip(lines, (5, 10, 12, 12), strict=True):
        assert f"step={step:07d}.ckpt" in line
    assert lines[-1].endswith("step=0000012.ckpt")
    assert [name for name in names(tmp_path) if name.startswith("step")] == [
        f"step={step:07d}.ckpt" for step in (5, 10, 12)
    ]  # none was removed


def test_a_step_below_one_is_refused():
    with pytest.raises(UserError, match="at_steps 0"):
        StepCheckpoint(at_steps=[0, 5])
