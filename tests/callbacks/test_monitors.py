"""What a training logs beside its losses."""

import csv
import shutil

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from igpt.callbacks import GradientNorm, ImagesPerSecond, monitors
from igpt.modules import Autoregressive
from igpt.system import bf16_peak
from igpt_datamodules import Digits


class Norms(pl.Callback):
    """Remembers the norm of all gradients of each step, element by element."""

    def __init__(self):
        self.found = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.found.append(sum(float((p.grad.double() ** 2).sum()) for p in pl_module.parameters()) ** 0.5)


def test_the_gradient_norm_is_that_over_all_parameters_before_clipping(digits_run, tiny, tmp_path):
    torch.manual_seed(0)
    shape = {"n_layers": 2, "d_model": 16, "n_heads": 2, "n_positions": 64, "vocab_size": 17}
    norms = Norms()
    trainer = pl.Trainer(max_steps=6, accelerator="cpu", log_every_n_steps=2, gradient_clip_val=0.1,
                         logger=CSVLogger(tmp_path), callbacks=[norms, GradientNorm()], enable_progress_bar=False,
                         enable_checkpointing=False, limit_val_batches=0, enable_model_summary=False)  # fmt: skip
    trainer.fit(Autoregressive(shape, str(digits_run.palette), learning_rate=0.01), Digits(batch_size=8))
    with open(f"{trainer.logger.log_dir}/metrics.csv") as file:
        logged = [(int(row["step"]), float(row["train/gradient_norm"])) for row in csv.DictReader(file)]
    assert [step for step, _ in logged] == [1, 3, 5]
    assert [value for _, value in logged] == pytest.approx([norms.found[step] for step, _ in logged], rel=1e-4)
    assert max(norms.found) > 0.1


@pytest.mark.parametrize(
    ("card", "peak"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA H200", 989e12), ("NVIDIA L40", None),
     ("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA GeForce RTX 4090", 165e12), ("NVIDIA GeForce RTX 4090 D", None),
     ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None), ("NVIDIA GeForce RTX 4090 Laptop GPU", None), ("", None)],
)  # fmt: skip
def test_a_card_is_known_by_its_name(card, peak):
    assert bf16_peak(card) == peak


@pytest.mark.parametrize("known", [True, False])
def test_the_share_of_the_peak_is_the_models_operations_a_second_where_a_card_is_known(
    digits_run, tmp_path, monkeypatch, known
):
    if known:
        monkeypatch.setattr(monitors, "device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    shape = {"n_layers": 2, "d_model": 16, "n_heads": 2, "n_positions": 64, "vocab_size": 17}
    trainer = pl.Trainer(max_steps=4, accelerator="cpu", log_every_n_steps=2, logger=CSVLogger(tmp_path),
                         callbacks=[ImagesPerSecond()], enable_progress_bar=False, enable_checkpointing=False,
                         limit_val_batches=0, enable_model_summary=False)  # fmt: skip
    trainer.fit(Autoregressive(shape, str(digits_run.palette), learning_rate=0.01), Digits(batch_size=8))
    with open(f"{trainer.logger.log_dir}/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    products = 2 * (2 * (4 * 16 * 16 + 2 * 4 * 16 * 16) * 64 + 16 * 17 * 64)  # of weights; two operations each
    attention = 2 * 2 * (2 * 64 * 64 * 16) // 2  # scores and mixing in two blocks, half of it seen
    for row in rows if known else ():
        share = float(row["train/images_per_second"]) * 3 * (products + attention) / 312e12
        assert float(row["train/share_of_peak"]) == pytest.approx(share, rel=1e-5)
    assert ("train/share_of_peak" in rows[0]) is known


@pytest.fixture(scope="module")
def events(digits_run):
    found = EventAccumulator(str(digits_run.folder))
    found.Reload()
    return found


def test_tensorboard_has_the_config_the_palette_and_the_options_of_the_run(events):
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "max_steps: 30" in text
    palette = events.Images("palette")[0]
    assert palette.step == 0
    assert palette.width > palette.height > 0  # 17 squares beside each other
    assert any(name.startswith("_hparams_") for name in events.summary_metadata)


def test_the_value_of_a_test_stands_at_the_step_of_its_checkpoint(digits_run, igpt, tmp_path):
    shutil.copytree(digits_run.folder, tmp_path / "mini")
    code, _, err = igpt("test", "--config", digits_run.config, "--runs_dir", tmp_path, "--ckpt", tmp_path / "mini")
    assert code == 0, err
    events = EventAccumulator(str(tmp_path / "mini"))
    events.Reload()
    assert {event.step for event in events.Scalars("test/loss")} == {29}  # 30 steps, the last of which is number 29


def test_another_logger_gets_what_is_logged_and_the_run_its_folder(digits_run, igpt, tmp_path):
    options = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", tmp_path / "logs"]
    code, out, err = igpt("fit", "--config", digits_run.config, "--runs_dir", tmp_path, *options, "--trainer.max_steps",
                          6, "--trainer.val_check_interval", 3)  # fmt: skip
    assert code == 0, err
    (table,) = (tmp_path / "logs").rglob("metrics.csv")
    header = table.read_text().splitlines()[0]
    assert {"train/loss", "val/loss", "train/gradient_norm", "train/images_per_second"} <= set(header.split(","))
    assert (tmp_path / "mini" / "checkpoints" / "last.ckpt").exists()
    assert f"next: igpt probe --ckpt {tmp_path / 'mini'}" in out


def test_a_confusion_matrix_shows_the_names_of_its_classes_and_shares_of_each_true_class_in_per_cent():
    from igpt.data import confusion_figure

    names = ["cat", "$d_{og \u6570\n"]
    figure = confusion_figure(torch.tensor([[3, 1], [0, 2]]), names)
    figure.canvas.draw()  # names are no formulas
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "$d_{og ?\\n"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "$d_{og ?\\n"]
    assert {text.get_position(): text.get_text() for text in axes.texts} == {(0, 0): "75", (1, 0): "25", (1, 1): "100"}
