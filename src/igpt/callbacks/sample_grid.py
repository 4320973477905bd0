"""Samples and completed images in TensorBoard after each validation."""

import math

import lightning.pytorch as pl
import torch
from torch import Tensor

from igpt.callbacks.monitors import writers
from igpt.callbacks.progress import ProgressLine
from igpt.data import ImageDataModule, enlarge, grid, spread
from igpt.model import SamplingOptions
from igpt.modules import GenerativeModule, RecipeModule
from igpt.system import UserError


class SampleGrid(pl.Callback):
    """Logs `samples` and `completions` to TensorBoard; the seed is fixed, so that pictures can be compared over time.

    AR and BERT draw the same parts of the same images. Other families draw samples alone, fine-tuning nothing.

    Args:
        num: images drawn from nothing; 0 draws none.
        completions: validation images whose lower half is drawn anew; 0 draws none.
        every_n_validations: draw at every n-th validation only, where drawing is slow.
        seed: of the drawing.

    Raises:
        UserError: a number is too small.
    """

    def __init__(self, num: int = 16, completions: int = 8, every_n_validations: int = 1, seed: int = 0) -> None:
        if num < 0 or completions < 0 or every_n_validations < 1:
            raise UserError("samples.num and completions must be at least 0, every_n_validations at least 1")
        self.num = num
        self.completions = completions
        self.every_n_validations = every_n_validations
        self.seed = seed
        self._validations = 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw and log, on the main process, while training (not in its sanity check, nor in `igpt validate`)."""
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        if not fitting or not isinstance(pl_module, RecipeModule) or type(pl_module).draw is RecipeModule.draw:
            return
        self._validations += 1
        if (self._validations - 1) % self.every_n_validations:
            return
        if not math.isfinite(trainer.callback_metrics.get("val/loss", 0.0)):
            return  # a network that computes NaN has no distribution to draw from
        for writer in writers(trainer):
            if isinstance(line := trainer.progress_bar_callback, ProgressLine):
                line.say("Drawing pictures; --samples.every_n_validations 5 draws less often")
            for name, picture in self._pictures(trainer, pl_module).items():
                writer.add_image(name, picture, trainer.global_step)

    def _pictures(self, trainer: pl.Trainer, module: RecipeModule) -> dict[str, Tensor]:
        pictures, options = {}, SamplingOptions(seed=self.seed)
        if (drawn := module.draw(self.num, self.seed)) is not None:
            pictures["samples"] = enlarge(grid(drawn.cpu(), max(1, round(self.num**0.5))))
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if self.completions and isinstance(module, GenerativeModule):
            val = data.images("val")
            originals = torch.stack([val[index][0] for index in spread(val.labels, self.completions)]).to(module.device)
            rows, _ = module.complete(originals, options=options)
            pictures["completions"] = enlarge(grid(rows.flatten(0, 1).cpu(), rows.shape[1]))
        return pictures
