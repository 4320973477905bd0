"""What every way of training shares: the recipe (optimizer, schedule), features, the checkpoint's content."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from igpt.checkpoints import CHECKPOINT_KEY
from igpt.data import ImageDataModule, WholeBatches, rng_of
from igpt.model import FeatureOptions
from igpt.modules.core import PixelModel
from igpt.system import UserError
from igpt.training import Recipe, at_log_point, forget_logged, make_optimizer, schedule_of, trainer_of

Batch = tuple[Tensor, Tensor]
TRAIN, EVALUATE, FEATURES = 0, 1, 2  # keys of randomness: training draws anew at every step, the others always the same


class RecipeModule(pl.LightningModule, ABC):
    """What `igpt fit` trains, of any family: a recipe, its optimizer and schedule, and checkpoints of plain data."""

    decays = True  # whether the rate falls to zero at max_steps, as the recipe's schedule says
    schedule_start = 0  # the step at which the schedule began, where a resumed run begins one anew

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe

    @property
    def core(self) -> Any:
        """What knows the images' size, the palette and where the weights began: itself, or what it holds."""
        return self

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Class path and arguments as plain data; colours and weights travel in the state dict, not by file name."""

    def draw(self, num: int, seed: int) -> Tensor | None:
        """New images uint8 `(num, 3, R, R)`, for TensorBoard; None where there are none to draw."""
        return None

    @property
    def logs_now(self) -> bool:
        """Whether this batch's values are logged: of training only at log points, so that a step waits for nothing."""
        return not self.trainer.training or at_log_point(self.trainer)

    def log_means(self, values: dict[str, Tensor], images: int) -> None:
        """Log means over a batch of so many images, averaged over the processes; only where `logs_now`."""
        count: Any = float(images)  # Lightning 2.6 halves and rounds a whole number of images over two processes
        self.log_dict(values, batch_size=count, prog_bar=True, sync_dist=True)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Leave the last log point behind."""
        forget_logged(self.trainer)

    def on_fit_start(self) -> None:
        """Look whether data and model have one palette, now that a checkpoint's is there."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, ImageDataModule):
            self.core.check_colors(data)

    on_validation_start = on_test_start = on_predict_start = on_fit_start

    def configure_optimizers(self) -> Any:
        """The recipe's: the paper's is Adam with warm-up over one epoch, then a cosine to zero (section 3.4).

        Raises:
            UserError: no number of steps is set.
        """
        trainer = self.trainer
        if trainer.max_steps < 1:
            raise UserError("trainer.max_steps is not set; the schedule ends there, so give a number of steps")
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        warmup = self.recipe.warmup_steps
        if warmup is None:
            warmup = data.steps_per_epoch(trainer.world_size, trainer.accumulate_grad_batches)
        # Lightning does not clip what a fused optimizer may have scaled
        optimizer = self.optimizer_for(str(trainer.precision), fused=not trainer.gradient_clip_val)
        share = self.rate_share(warmup, trainer.max_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def optimizer_for(self, precision: str, fused: bool = True) -> torch.optim.Optimizer:
        """The recipe's optimizer for all that is trained; in bf16-mixed, Muon makes matrices orthogonal in bfloat16."""
        dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float32
        return make_optimizer(self.recipe, self.parameters(), getattr(self.core, "transformer", None), fused, dtype)

    def rate_share(self, warmup_steps: int, max_steps: int) -> Callable[[int], float]:
        """The multiplier of the peak rate by step, by the recipe's schedule."""
        name = self.recipe.schedule if self.decays else "constant"
        return schedule_of(name, warmup_steps, max_steps, self.schedule_start)

    def evaluation_rng(self, batch_idx: int) -> torch.Generator:
        """Randomness of a batch of an evaluation: the same every time, and for each image that of one process."""
        dealt = self._dealt()
        return rng_of(EVALUATE, 0, batch_idx if dealt is None else dealt.number(batch_idx))

    def counted(self, batch_idx: int, images: int) -> int:
        """How many images of an evaluation's batch count: none of one that is there twice, so that processes meet."""
        dealt = self._dealt()
        return images if dealt is None or dealt.counts(batch_idx) else 0

    def _dealt(self) -> WholeBatches | None:
        """How several processes share the split that is evaluated; None where this one has all of it."""
        trainer = self.trainer
        loader = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
        sampler = getattr(loader, "sampler", None)
        return sampler if isinstance(sampler, WholeBatches) else None

    def on_train_start(self) -> None:
        """Begin with the rate of the schedule, also where a resumed optimizer brings that of another one."""
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(scheduler := config.scheduler, torch.optim.lr_scheduler.LambdaLR):
                parts = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
                for group, peak, share in parts:
                    group["lr"] = peak * share(scheduler.last_epoch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `igpt.load` needs: this module and its data, as plain data."""
        trainer = trainer_of(self)
        data = getattr(trainer, "datamodule", None)
        recipe = None
        if isinstance(data, ImageDataModule):
            recipe = recipe_of(self.trainer, data) | {"schedule_start": self.schedule_start}
        checkpoint[CHECKPOINT_KEY] = {
            "format": 1,
            "model": self.spec(),
            "data": data.spec() if isinstance(data, ImageDataModule) else None,
            "class_names": list(map(str, data.class_names)) if isinstance(data, ImageDataModule) else [],
            "identity": data.identity() if isinstance(data, ImageDataModule) else None,
            "precision": str(trainer.precision) if trainer else None,
            "recipe": recipe,
            "began": self.core.began,
        }


class PixelModule(RecipeModule):
    """A training recipe around a `PixelModel`, its `core`, which owns the transformer and the palette."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.feature_layers: list[int] | None = None
        self.feature_options = FeatureOptions()

    @property
    @abstractmethod
    def core(self) -> PixelModel:
        """The model that is trained: itself, or the one it holds."""

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Features `(L + 1, B, D)` and labels `(B,)`; the LayerFeatures callback asks for some, and in its own way."""
        images, labels = batch
        layers = self.feature_layers or list(range(self.core.n_layers + 1))
        rng = rng_of(FEATURES, dataloader_idx, batch_idx)
        features = self.core.features(self.core.encode(images), layers, self.feature_options, rng)
        return {"features": features, "labels": labels}


def step_of(content: dict[str, Any]) -> int:
    """Optimizer steps at which a checkpoint was saved; 0 where it does not say so."""
    step = content.get("global_step")
    return step if isinstance(step, int) else 0


def recipe_of(trainer: pl.Trainer, data: ImageDataModule) -> dict[str, int]:
    """How long a run trains, and how many images a step sees."""
    images = data.batch_size * trainer.world_size * trainer.accumulate_grad_batches
    return {"max_steps": trainer.max_steps, "images_a_step": images}
