"""The line of progress: refreshed by time, and a line now and then where it goes to a file."""

import math

import lightning.pytorch as pl
import pytest
import torch

from igpt.callbacks.progress import ProgressLine, progress_text
from igpt.system.errors import UserError


class Steps(pl.LightningModule):
    """Steps that cost next to nothing."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        loss = self.weight * 0
        self.log("train/loss", loss.detach() + 2.5, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(line, steps=40):
    off = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_steps=steps, accelerator="cpu", callbacks=[line], **off)
    trainer.fit(Steps(), torch.utils.data.DataLoader(torch.zeros(64, 1), batch_size=2))


def test_the_line_says_place_pace_time_left_and_values():
    text = progress_text("Training", 40, 100, 2.0, {"train/loss": 2.3104, "v_num": 3})
    assert text == "Training: 40/100 (40 %), 2/s, 0:30 left, train/loss 2.31, v_num 3"
    assert progress_text("Training", 40, math.inf, 0.0, {}) == "Training: 40"


def test_in_a_file_quick_steps_are_one_line_at_the_end(capfd):
    trained(ProgressLine())
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("Training")]
    assert len(lines) == 1
    assert lines[0].startswith("Training: 40/40 (100 %)")
    assert lines[0].endswith("train/loss 2.5")


def test_the_line_is_refreshed_as_often_as_asked_for(capfd):
    trained(ProgressLine(file_every_s=0.0))
    assert capfd.readouterr().out.count("Training: ") == 40 + 1  # every step, and the end


def test_on_a_terminal_the_line_is_written_over_and_ended_once(capfd, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    trained(ProgressLine(every_s=0.0))
    out = capfd.readouterr().out
    assert out.count("\rTraining: ") == 40 + 1
    assert out.count("\n") == 1


def test_seconds_below_zero_are_refused():
    with pytest.raises(UserError, match="ProgressLine: every_s and file_every_s must be at least 0"):
        ProgressLine(every_s=-1.0)
