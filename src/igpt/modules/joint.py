"""Fine-tuning on classes, with the generative objective beside it: L_GEN + L_CLF (paper, section 2.3)."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassConfusionMatrix

from igpt.checkpoints import CHECKPOINT_KEY, build, check_finite, read_checkpoint, spec_of
from igpt.data import confusion_figure
from igpt.model import majority_vote
from igpt.modules.base import Batch, PixelModule, step_of
from igpt.modules.generative import GenerativeModule, keyed_dropout, step_rng
from igpt.system import UserError, last_line
from igpt.training import Recipe, apply_fsdp

Evaluation = Literal["mode", "mean", "unmasked"]


class Joint(PixelModule):
    """Holds an AR or BERT module and adds a linear class head on the mean-pooled final norm.

    The rate warms up and then stays: the paper fine-tunes without the cosine, until validation accuracy is best.

    Args:
        num_classes: of the data; a config may leave it out.
        pretrained: checkpoint of an AR or BERT run: architecture, weights, palette and pixel order are taken from it.
        generative: a new AR or BERT module instead, to train from scratch.
        generative_weight: of L_GEN beside L_CLF; 1 in the paper, 0 is L_CLF alone.
        learning_rate: of Adam.
        betas: of Adam.
        weight_decay: of Adam.
        warmup_steps: optimizer steps of linear warm-up; None is one epoch.
        compile: compile each block with `torch.compile`.
        recompute: keep only the input of each block for the backward pass, as in `GenerativeModule`.
        evaluation: how BERT's classes are found at evaluation: the "mode" of the predictions under `eval_masks` masks
            (the paper's), the class of their "mean" logits, or "unmasked". AR masks nothing and has one prediction.
        eval_masks: masks an image at evaluation; 5 in the paper.

    Raises:
        UserError: both or neither of `pretrained` and `generative` are given, or the checkpoint is no AR or BERT run.
    """

    decays = False

    def __init__(
        self,
        num_classes: int = 0,
        pretrained: str | None = None,
        generative: GenerativeModule | None = None,
        generative_weight: float = 1.0,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        warmup_steps: int | None = None,
        compile: bool = False,
        recompute: bool = False,
        evaluation: Evaluation = "mode",
        eval_masks: int = 5,
    ) -> None:
        super().__init__(Recipe(learning_rate, (betas[0], betas[1]), weight_decay, warmup_steps))
        if (pretrained is None) == (generative is None):
            raise UserError("model.init_args: give either pretrained (a checkpoint) or generative (a new module)")
        if num_classes < 2 or generative_weight < 0 or eval_masks < 1:
            raise UserError("model.init_args: num_classes >= 2, generative_weight >= 0 and eval_masks >= 1 are needed")
        self.num_classes = num_classes
        self.generative = held_module(pretrained, generative)
        self.generative_weight = generative_weight
        self.evaluation: Evaluation = evaluation
        self.eval_masks = eval_masks
        self.compile_blocks = compile
        self.recompute = self.generative.transformer.activation_checkpointing = recompute
        self.classifier = nn.Linear(self.generative.transformer.config.d_model, num_classes, bias=False)
        nn.init.zeros_(self.classifier.weight)
        if (conditions := self.generative.transformer.conditions) is not None:
            conditions.requires_grad_(False)  # fine-tuning tells the network nothing
        if generative_weight == 0:
            self.generative.transformer.head.requires_grad_(False)  # without L_GEN it takes no part
        self.confusion = MulticlassConfusionMatrix(num_classes)
        self.counts: Tensor | None = None  # `(K, K)` of the last evaluation: images of class i taken for class j

    @property
    def core(self) -> GenerativeModule:
        """The module that is fine-tuned."""
        return self.generative

    def class_logits(self, tokens: Tensor, masked: Tensor | None = None) -> Tensor:
        """`(B, num_classes)` from the sequence `(B, T)`."""
        return self._classify(self._hidden_states(tokens, masked))

    def losses(self, tokens: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """L_GEN (nats per pixel), L_CLF (nats), and class logits `(B, num_classes)`, all from one forward pass."""
        masked = self.generative.draw_mask(tokens, rng)
        normed = self._hidden_states(tokens, masked)
        generative = normed.new_zeros(())
        if self.generative_weight:
            generative = self.generative.score(self.generative.transformer.head(normed), tokens, masked)
        logits = self._classify(normed)
        return generative, F.cross_entropy(logits.float(), labels), logits

    def predict_classes(self, tokens: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Classes int64 `(B,)` and the logits `(B, num_classes)` that rank the others, as `evaluation` says."""
        masks = [self.generative.draw_mask(tokens, rng) for _ in range(self.eval_masks)]
        if self.evaluation == "unmasked" or masks[0] is None:
            logits = self.class_logits(tokens)
            return logits.argmax(1), logits
        logits = torch.stack([self.class_logits(tokens, masked) for masked in masks])
        mean = logits.mean(0)
        if self.evaluation == "mean":
            return mean.argmax(1), mean
        return majority_vote(logits.argmax(2), self.num_classes, rng), mean

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """`generative_weight * L_GEN + L_CLF`."""
        images, labels = batch
        tokens = self.generative.encode(images)
        with keyed_dropout(self, batch_idx):
            generative, classes, logits = self.losses(tokens, labels, step_rng(self, batch_idx, len(images)))
        loss = self.generative_weight * generative + classes
        if self.logs_now:
            right = (logits.argmax(1) == labels).float().mean()
            values = {"loss": loss, "generative_loss": generative, "class_loss": classes, "accuracy": right}
            self.log_means({f"train/{name}": value.detach() for name, value in values.items()}, len(images))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Losses and accuracy, with the same randomness every time."""
        self._evaluate("val", batch, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """As validation, over the test split."""
        self._evaluate("test", batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Keep the confusion matrix and show it in TensorBoard."""
        self.counts = self.confusion.compute().cpu()
        self.confusion.reset()
        if self.trainer.sanity_checking or not self.trainer.is_global_zero:
            return
        name = "test" if self.trainer.testing else "val"
        names = getattr(getattr(self.trainer, "datamodule", None), "class_names", ())
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger):
                figure = confusion_figure(self.counts, names)
                logger.experiment.add_figure(f"{name}/confusion", figure, self.global_step)

    on_test_epoch_end = on_validation_epoch_end

    def _evaluate(self, name: str, batch: Batch, batch_idx: int) -> None:
        images, labels = batch
        tokens = self.generative.encode(images)
        rng = self.evaluation_rng(batch_idx)
        generative, classes, logits = self.losses(tokens, labels, rng)
        predicted = logits.argmax(1)
        if not self.generative.causal:  # AR masks nothing: what it has just said is its one prediction
            predicted, logits = self.predict_classes(tokens, rng)
        counted = self.counted(batch_idx, len(images))
        if counted:
            self.confusion.update(predicted, labels)
        top5 = logits.topk(min(5, self.num_classes), dim=1).indices
        values = {
            "loss": self.generative_weight * generative + classes,
            "generative_loss": generative,
            "class_loss": classes,
            "accuracy": (predicted == labels).float().mean(),
            "top5_accuracy": (top5 == labels[:, None]).any(1).float().mean(),
        }
        self.log_means({f"{name}/{key}": value for key, value in values.items()}, counted)

    def _hidden_states(self, tokens: Tensor, masked: Tensor | None) -> Tensor:
        core = self.generative
        return core.transformer.hidden_states(tokens, causal=core.causal, masked=masked)

    def _classify(self, normed: Tensor) -> Tensor:
        logits: Tensor = self.classifier(normed.mean(1))
        return logits

    def configure_model(self) -> None:
        """Compile the blocks and shard the weights, once, where asked for."""
        self.generative.compile_blocks |= self.compile_blocks
        self.compile_blocks = False
        self.generative.compile_once()
        if self.device_mesh is not None:
            how = self.device_mesh, self.classifier
            apply_fsdp(self.generative.transformer, *how, precision=str(self.trainer.precision))

    def spec(self) -> dict[str, Any]:
        """Class path and arguments as plain data; the held module is described whole, so no other file is needed."""
        known = {"pretrained": None, "generative": self.generative.spec()} | asdict(self.recipe)
        return spec_of(self, known | dict.fromkeys(("compile", "recompute"), False))


def held_module(pretrained: str | None, generative: GenerativeModule | dict[str, Any] | None) -> GenerativeModule:
    """The module of a checkpoint, or the given one (as plain data, where a checkpoint of Joint is loaded)."""
    if pretrained is None:
        given = build(generative, GenerativeModule, {"igpt"}) if isinstance(generative, dict) else generative
        if not isinstance(given, GenerativeModule):
            raise UserError("model.init_args.pretrained is missing; name the checkpoint of an AR or BERT model")
        return given
    if not Path(pretrained).exists():
        raise UserError(f"model.init_args.pretrained: checkpoint {pretrained} does not exist; pre-train it first")
    content = read_checkpoint(pretrained)
    try:
        module: GenerativeModule = build(content[CHECKPOINT_KEY]["model"], GenerativeModule, {"igpt"})
        module.load_state_dict(content["state_dict"])
    except (UserError, RuntimeError, TypeError, AttributeError, ValueError) as error:
        reason = last_line(error)
        raise UserError(f"pretrained: checkpoint {pretrained} does not fit the model it names: {reason}") from error
    check_finite(content["state_dict"].items(), f"pretrained: checkpoint {pretrained}")
    module.began = {"checkpoint": pretrained, "step": step_of(content)}
    return module
