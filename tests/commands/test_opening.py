"""What `igpt fit` says at its start and end: what is trained, and nothing about libraries."""

import logging

import pytest


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.fixture
def logged():
    """What Lightning's loggers let through."""
    handler, loggers = Kept(), [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    yield handler.lines
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_a_training_says_in_one_line_what_is_trained_and_the_libraries_say_nothing(
    digits_run, igpt, tmp_path, logged, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    short = ("--trainer.max_steps", 2, "--samples.num", 0, "--samples.completions", 0)
    code, out, err = igpt("fit", "--config", digits_run.config, *short, "--trainer.val_check_interval", 2)
    assert code == 0, err
    assert logged == []
    opening, *rest = out.splitlines()
    weights = (
        64 * 32 + 17 * 32 * 2 + 32 + 3 * (12 * 32 * 32 + 2 * 32) + 32
    )  # positions, colours and head, sos, blocks, norm
    assert opening == (
        f"training Autoregressive, {weights:,} parameters, on 1,294 images of Digits at 8x8: 2 steps of 32 images, "
        "32-true on cpu, to runs/mini"
    )
    assert rest == ["wrote runs/mini; look at it: tensorboard --logdir runs; next: igpt probe --ckpt runs/mini"]
    assert not err


def test_lightnings_table_of_modules_is_printed_where_it_is_asked_for(digits_run, igpt, tmp_path, logged):
    code, _, err = igpt("fit", "--config", digits_run.config, "--trainer.fast_dev_run", "true", "--runs_dir", tmp_path,
                        "--trainer.enable_model_summary", "true")  # fmt: skip
    assert code == 0, err
    assert any("Total params" in line for line in logged)


def test_a_training_that_ends_early_says_where(digits_run, igpt, tmp_path):
    code, out, err = igpt("fit", "--config", digits_run.config, "--runs_dir", tmp_path, "--trainer.max_epochs", 1,
                          "--trainer.max_steps", 500, "--trainer.limit_train_batches", 2,
                          "--trainer.log_every_n_steps", 1)  # fmt: skip
    assert code == 0, err
    assert f"wrote {tmp_path / 'mini'}, stopped at step 2 of 500; " in out


def test_a_training_that_goes_on_says_from_where(digits_run, igpt, tmp_path):
    code, out, err = igpt("fit", "--config", digits_run.config, "--runs_dir", tmp_path, "--ckpt", digits_run.folder,
                          "--trainer.max_steps", 31)  # fmt: skip
    assert code == 0, err
    assert "31 steps of 32 images, from step 30 on, 32-true on cpu" in out
