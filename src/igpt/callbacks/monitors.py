"""What a training logs beside its losses: learning rate, gradient norm, speed; its config and palette; its outcome."""

import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from igpt.data import enlarge, grid
from igpt.model import forward_operations
from igpt.modules import PixelModule
from igpt.palette import Palette
from igpt.system import bf16_peak
from igpt.training import at_log_point


class LearningRate(LearningRateMonitor):
    """Logs the rate of each optimizer step that is logged, once, also where gradients are accumulated."""

    def __init__(self) -> None:
        super().__init__("step")

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """At the batch that ends the step."""
        if at_log_point(trainer):
            super().on_train_batch_start(trainer, *args, **kwargs)


class ImagesPerSecond(pl.Callback):
    """Logs `train/images_per_second` between log points: waiting for data counts, validation does not.

    On CUDA cards whose peak is known also `train/share_of_peak`: operations of the model, forward and backward without
    recompute, that a card does a second, of what its maker says it can in dense bfloat16.
    """

    def __init__(self) -> None:
        self._images, self._since, self._paused = 0, 0.0, 0.0
        self._fastest: float | None = None  # images a second on one card at its peak

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._images, self._since = 0, time.perf_counter()
        if isinstance(pl_module, PixelModule) and (peak := bf16_peak(device_name(pl_module.device))):
            core, config = pl_module.core, pl_module.core.transformer.config
            if config.attention is None:  # of patterns the operations are not counted
                self._fastest = peak / (3 * forward_operations(config, core.causal))

    def on_validation_start(self, *args: Any) -> None:
        """Stop the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, *args: Any) -> None:
        """Let the clock go on."""
        self._since += time.perf_counter() - self._paused

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log, when the device has done what was asked of it."""
        self._images += len(batch[0]) * trainer.world_size
        if at_log_point(trainer):
            if pl_module.device.type != "cpu":
                torch.accelerator.synchronize(pl_module.device)
            now = time.perf_counter()
            rate = self._images / (now - self._since)
            pl_module.log("train/images_per_second", rate, prog_bar=True)
            if self._fastest:
                pl_module.log("train/share_of_peak", rate / trainer.world_size / self._fastest)
            self._images, self._since = 0, now


def device_name(device: torch.device) -> str:
    """What the maker calls a CUDA card; empty for another device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


class GradientNorm(pl.Callback):
    """Logs `train/gradient_norm`, the L2 norm over all parameters before any clipping, at log points."""

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        """Nothing is read from the device at other steps."""
        if at_log_point(trainer):
            norm: Any = torch.nn.utils.get_total_norm([p.grad for p in pl_module.parameters() if p.grad is not None])
            pl_module.log("train/gradient_norm", norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


class RunSummary(pl.Callback):
    """In TensorBoard: the config as text and the palette at the start, options beside the last losses at the end.

    Args:
        config: the whole config, as YAML.
        options: what the table of runs shows, plain numbers and words by name.
    """

    def __init__(self, config: str, options: dict[str, Any]) -> None:
        self.config = config
        self.options = options

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write config and palette once."""
        for writer in writers(trainer):
            writer.add_text("config", f"```yaml\n{self.config}\n```", trainer.global_step)
            palette = getattr(pl_module.core, "palette", None) if isinstance(pl_module, PixelModule) else None
            if isinstance(palette, Palette):  # VQ codes have no colours of their own
                writer.add_image("palette", palette_picture(palette.rgb().cpu()), trainer.global_step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the line of this run in TensorBoard's table of hyperparameters."""
        from torch.utils.tensorboard.summary import hparams

        found = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        for writer in writers(trainer) if found else ():
            for summary in hparams(self.options, found):
                writer.file_writer.add_summary(summary)


def writers(trainer: pl.Trainer) -> list[Any]:
    """TensorBoard's writers, in the main process."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return [logger.experiment for logger in loggers] if trainer.is_global_zero else []


def palette_picture(rgb: Tensor) -> Tensor:
    """Colours uint8 `(k, 3)` as squares, uint8 `(3, H, W)`, from dark to light."""
    order = (rgb.float() @ torch.tensor([0.299, 0.587, 0.114])).argsort()
    squares = rgb[order][:, :, None, None].expand(-1, -1, 4, 4)
    return enlarge(grid(squares, columns=min(32, len(rgb))))
