"""`Model`: a checkpoint ready for pictures of any kind, with features, likelihoods, samples and classes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from igpt.api.colours import Colours
from igpt.api.intake import Broken, batches
from igpt.api.pictures import Pictures, Predictions
from igpt.api.words import speaks_python
from igpt.data import ImageDataModule, Resolution, open_mask, rng_of
from igpt.model import FeatureOptions, SamplingOptions, check_layers
from igpt.modules import BERT, EVALUATE, FEATURES, Autoregressive, Joint, Loaded, PixelModel, PixelModule
from igpt.palette import Palette, cell_sizes
from igpt.probing import SavedProbe
from igpt.system import Compute, UserError, compute_of

BATCH = 64  # images at once, where a checkpoint does not say with how many it was trained
AT_ONCE = 256  # pictures that are drawn together
Floats = NDArray[np.float32]


class Model:
    """A trained network with its palette. Build it by `igpt.load` or `igpt.create_model`.

    Images are given as paths, PIL images, arrays or tensors, one or a list, of any size: they are cropped and resized
    by the rule of the data modules' evaluation. Results are NumPy arrays with a row an image, in the images' order;
    pixels are in raster order. No gradients are kept but by `forward_features`. Batches are as large as in training, so
    that numbers equal those of the verbs in every bit; `batch_size` changes that.

    Args:
        loaded: a checkpoint that was read.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: auto, 32-true, bf16-mixed or 16-mixed.
        probe: classifier on one layer's features, for `predict`.
    """

    def __init__(
        self,
        loaded: Loaded,
        device: str | torch.device = "auto",
        precision: str = "auto",
        probe: SavedProbe | None = None,
    ) -> None:
        self._accelerator, self._precision = str(device).partition(":")[0], precision
        compute = compute_of(self._accelerator, precision)
        self.device = torch.device(device if ":" in str(device) else compute.device)
        loaded.module.to(self.device)
        self.loaded, self.probe = loaded, probe

    def __repr__(self) -> str:
        core = self.module.core
        config, (rows, columns) = core.config, self.shape
        kind = "VQ tokens" if core.stride > 1 else "colours" if core.has_palette else "values a channel"
        return (
            f"igpt.Model({type(self.module).__name__}, {config.n_layers} layers, width {config.d_model}, "
            f"{rows}x{columns} pixels, {config.vocab_size} {kind}, "
            f"on {self.device})"
        )

    @property
    def module(self) -> PixelModule:
        """The LightningModule, in evaluation mode: `lightning.Trainer().fit(model.module, data)` trains it."""
        return self.loaded.module

    @property
    def path(self) -> Path:
        """Where the weights come from."""
        return self.loaded.path

    @property
    def step(self) -> int:
        """Optimizer steps at which the checkpoint was saved."""
        return self.loaded.step

    @property
    def data_spec(self) -> dict[str, Any] | None:
        """The data that the checkpoint was trained on, as plain data; None if it knew none."""
        return self.loaded.data_spec

    def data(self) -> ImageDataModule:
        """The data that the checkpoint was trained on."""
        return speaks_python(self.loaded.data)()

    @property
    def resolution(self) -> Resolution:
        """R, the side of the pictures that the network works on; rows and columns where they are not square."""
        return self.module.core.resolution

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the pictures that the network works on."""
        return self.module.core.pixels

    @property
    def n_layers(self) -> int:
        """L; features exist for layers 0 (input of the first block) to L (the final norm)."""
        return self.module.core.n_layers

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that `predict` tells apart; empty where there are none."""
        if self.probe is not None:
            return named(self.probe.class_names, self.probe.num_classes)
        count = self.module.num_classes if isinstance(self.module, Joint) else self.module.core.classes
        return named(self.loaded.class_names, count or 0)

    @cached_property
    def palette(self) -> Colours:
        """The colours, with `encode` and `decode`."""
        return Colours(self)

    @cached_property
    def batch_size(self) -> int:
        """Images at once: as many as in training."""
        known = ((self.loaded.data_spec or {}).get("init_args") or {}).get("batch_size")
        return known if type(known) is int and known > 0 else BATCH

    def batches(
        self, images: Any, batch_size: int | None = None, workers: int = 0, broken: Broken | None = None
    ) -> Iterator[Tensor]:
        """The images as the network takes them, uint8 `(B, 3, R, R)` on the CPU; see `igpt.api.intake.batches`."""
        size, background = self.batch_size if batch_size is None else batch_size, self.loaded.background
        return batches(images, self.resolution, size, workers, broken, background)

    def _compute(self, work: Literal["products", "pixels"] = "products") -> Compute:
        return compute_of(self._accelerator, self._precision, work)

    @contextmanager
    def _running(self, work: Literal["products", "pixels"] = "products") -> Iterator[PixelModel]:
        """The network in evaluation mode and in the precision that was asked for, without gradients."""
        was_training = self.module.training
        self.module.eval()
        try:
            with torch.inference_mode(), self._compute(work).autocast():
                yield self.module.core
        finally:
            self.module.train(was_training)

    def layer_numbers(self, layers: int | Sequence[int] | None) -> dict[int, int]:
        """The layers asked for, each with its number in 0..L: negative ones count from the end, None is all."""
        given = np.atleast_1d(range(self.n_layers + 1) if layers is None else layers)
        if given.size and given.dtype.kind not in "iu":
            raise UserError(f"--layers {layers!r} must be whole numbers, such as [6] or [-1]; leave it out for all")
        asked: list[int] = given.tolist()
        check_layers([abs(layer + 1) if layer < 0 else layer for layer in asked], self.n_layers)
        return {layer: layer + self.n_layers + 1 if layer < 0 else layer for layer in asked}

    @speaks_python
    def features(
        self,
        images: Any,
        layers: int | Sequence[int] | None = None,
        *,
        norm: Literal["normed", "raw"] = "normed",
        grid: int = 1,
        masks: int = 0,
        batch_size: int | None = None,
        workers: int = 0,
        broken: Broken | None = None,
    ) -> dict[int, Floats]:
        """Layer features, `{layer: float32 (N, G * D)}` with G = grid squared (paper, section 2.4).

        Args:
            images: one or many, of any kind.
            layers: of 0..L, or -1 for the last and so on; all if left out. The result has the numbers as given.
            norm: "normed" as in the paper, or "raw", the residual stream.
            grid: means of each cell of a grid x grid division of the picture; 1 is one mean over it.
            masks: for BERT: means over so many masked passes; 0 shows whole pictures.
            batch_size: images at once.
            workers: processes that read and resize.
            broken: list that takes (name, reason) of images that cannot be read, which are left out; None raises.
        """
        how, numbers = FeatureOptions(norm, grid, masks), self.layer_numbers(layers)
        how.check(self.shape, self.module.core.causal)
        parts: list[Tensor] = []
        with self._running() as core:
            for number, part in enumerate(self.batches(images, batch_size, workers, broken)):
                tokens = core.encode(part.to(self.device))
                parts.append(
                    core.features(tokens, list(numbers.values()), how, rng_of(FEATURES, 0, number)).float().cpu()
                )
        if not parts:
            raise none_left(broken)
        return dict(zip(numbers, torch.cat(parts, 1).numpy(), strict=True))

    @speaks_python
    def forward_features(self, images: Tensor, layers: int | Sequence[int] = -1, *, gradients: bool = False) -> Tensor:
        """Layer features `(len(layers), B, D)` on the device, of a tensor uint8 `(B, 3, R, R)`: the network's own call.

        Args:
            images: at the network's resolution, on any device.
            layers: as of `features`.
            gradients: keep what is needed to train the weights through them; colours are looked up in a table, so that
                no gradient reaches the pixels.
        """
        shape = (3, *self.shape)
        if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.shape[1:] != shape:
            raise UserError(
                f"images must be a tensor uint8 (B, {', '.join(map(str, shape))}); `features` takes any other"
            )
        with torch.set_grad_enabled(gradients), self._compute().autocast():
            core = self.module.core
            return core.features(core.encode(images.to(self.device)), list(self.layer_numbers(layers).values()))

    @speaks_python
    def nll(
        self,
        images: Any,
        per_pixel: bool = False,
        *,
        rgb: bool = False,
        seed: int = 0,
        batch_size: int | None = None,
        workers: int = 0,
        broken: Broken | None = None,
    ) -> Floats:
        """-log p of each image in nats, float32 `(N,)`; with `per_pixel` of each pixel, `(N, R, R)`.

        Of palette tokens: nats compare models of one palette and resolution. AR: exact. BERT: every pixel is scored
        while it is hidden, a pseudo-likelihood that is not to be compared with AR's. Of `ByteAutoregressive`: of RGB.

        Args:
            images: one or many, of any kind.
            per_pixel: keep the pixels apart.
            rgb: of the RGB picture, each pixel's colour being uniform among those of its token (docs/likelihood.md).
            seed: of BERT's masks.
            batch_size: images at once.
            workers: processes that read and resize.
            broken: as of `features`.
        """
        check_seed(seed)
        parts: list[Tensor] = []
        with self._running() as core:
            within = cell_nats(core) if rgb else None
            for part in self.batches(images, batch_size, workers, broken):
                nats = core.surprise(core.encode(part.to(self.device)), seed)
                if within is not None:
                    nats = nats + within[core.palette.encode(part.to(self.device))[:, core.pixel_order]]
                parts.append((core.to_raster(nats) if per_pixel else nats.sum(1)).cpu())
        if not parts:
            raise none_left(broken)
        found = torch.cat(parts)
        return (found.unflatten(1, self.module.core.shape) if per_pixel else found).numpy()

    @speaks_python
    def at_resolution(self, resolution: Resolution) -> "Model":
        """The same network for pictures of another size, a side or (rows, columns).

        Raises:
            UserError: `transformer.positions` is not bias, shared_bias or rope.
        """
        module = self.module.core.at_resolution(resolution)
        assert isinstance(module, PixelModule)
        return Model(replace(self.loaded, module=module), self.device, self._precision)

    @speaks_python
    def sample(
        self,
        num: int = 16,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        *,
        classes: str | int | Sequence[str | int] | None = None,
        guidance: float | None = None,
        steps: int | None = None,
        compile: bool = False,
        batch_size: int = AT_ONCE,
    ) -> Pictures:
        """New pictures, uint8 `(num, R, R, 3)`.

        Args:
            num: how many.
            temperature: above 1 more varied, below 1 more typical.
            top_k: draw from the k likeliest colours only; 0 is all.
            top_p: draw from the likeliest colours that together reach this probability; 1 is all.
            seed: the same seed gives the same pictures.
            classes: name or number of the class of all pictures, or one for each; for models that are told classes.
            guidance: how much the class counts; see `igpt.model.SamplingOptions`.
            steps: passes in which BERT draws, 64 if left out; not for AR.
            compile: see `igpt.model.SamplingOptions`.
            batch_size: pictures that are drawn together; those beyond the first batch depend on it.
        """
        if num < 1 or batch_size < 1:
            raise UserError("num and batch_size must be at least 1")
        options = self._options(temperature, top_k, top_p, seed, steps, compile)
        options = self._towards(options, classes, guidance, num)
        drawn = []
        with self._running("pixels") as core:
            for start in range(0, num, batch_size):
                count = min(batch_size, num - start)
                drawn.append(core.sample(count, of_batch(options, start, count)))
            return Pictures.of(core.decode(torch.cat(drawn)))

    @speaks_python
    def complete(
        self,
        images: Any,
        keep: float = 0.5,
        num: int = 4,
        region: Any = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        *,
        steps: int | None = None,
        compile: bool = False,
        batch_size: int = AT_ONCE,
    ) -> Pictures:
        """A part of each image drawn anew, uint8 `(N, num, R, R, 3)`; the kept part in palette colours.

        Args:
            images: one or many, of any kind.
            keep: share of the rows that is kept and shown to the network; at least one is kept and one drawn.
            num: completions of each image.
            region: what is drawn instead: bool `(R, R)`, or a picture file whose light pixels say so. AR draws it given
                the pixels before it alone, BERT given all around it.
            temperature: this and what follows is as of `sample`.
            top_k: see `sample`.
            top_p: see `sample`.
            seed: see `sample`.
            steps: see `sample`.
            compile: see `sample`.
            batch_size: pictures that are drawn together.
        """
        if num < 1 or batch_size < 1:
            raise UserError("num and batch_size must be at least 1")
        if not 0 < keep < 1:
            raise UserError(f"keep {keep} must lie between 0 and 1")
        options, drawn = self._options(temperature, top_k, top_p, seed, steps, compile), self._region(region)
        done, at_once = [], max(1, batch_size // num)
        with self._running("pixels") as core:
            for number, part in enumerate(self.batches(images, at_once)):
                own = of_batch(options, number * at_once)
                shown, _ = core.complete(part.to(self.device), num, keep, drawn, own)
                done.append(shown[:, 1:-1])  # without the kept part on grey, and the original
            return Pictures.of(torch.cat(done))

    @speaks_python
    def class_likelihoods(
        self, images: Any, *, batch_size: int | None = None, workers: int = 0, broken: Broken | None = None
    ) -> Floats:
        """Log-likelihoods log p(x | c) of each image under every class c, float32 `(N, K)` in nats.

        Of a model that is told classes. Their softmax is p(c | x) where all classes are equally likely, as `predict`
        gives it. Each class takes a pass.

        Args:
            images: one or many, of any kind.
            batch_size: images at once.
            workers: processes that read and resize.
            broken: as of `features`.

        Raises:
            UserError: the model is told no classes.
        """
        self.loaded.labels_of([])
        parts: list[Tensor] = []
        with self._running() as core:
            assert isinstance(core, Autoregressive)
            for part in self.batches(images, batch_size, workers, broken):
                parts.append(-core.class_nll(core.encode(part.to(self.device))).cpu())
        if not parts:
            raise none_left(broken)
        return torch.cat(parts).numpy()

    @speaks_python
    def predict(
        self, images: Any, *, batch_size: int | None = None, workers: int = 0, broken: Broken | None = None
    ) -> Predictions:
        """Class probabilities, with the classes' names, of a fine-tuned model or by a probe that was kept.

        A model that is told classes takes their likelihoods, all classes being equally likely before.

        Args:
            images: one or many, of any kind.
            batch_size: images at once.
            workers: processes that read and resize.
            broken: as of `features`.

        Raises:
            UserError: the checkpoint has no class head, and no probe was loaded.
        """
        parts: list[tuple[Tensor, Tensor]] = []
        with self._running() as core:
            for number, part in enumerate(self.batches(images, batch_size, workers, broken)):
                parts.append(self._classified(core, core.encode(part.to(self.device)), number))
        if not parts:
            raise none_left(broken)
        labels, logits = (torch.cat(column) for column in zip(*parts, strict=True))
        return Predictions(logits.float().softmax(1).numpy(), labels.numpy(), self.class_names)

    def check_classes(self) -> None:
        """Raise a UserError where there is nothing to predict classes with."""
        if self.probe is None and not isinstance(self.module, Joint) and self.module.core.classes is None:
            raise UserError(
                f"{self.path} has no class head; load a fine-tuned checkpoint, or give the folder of a probe that "
                "'igpt probe --save' wrote as probe"
            )

    def _classified(self, core: PixelModel, tokens: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Classes `(B,)` and logits `(B, K)` on the CPU of batch number `number`."""
        self.check_classes()
        if self.probe is not None:
            probe = self.probe
            found = core.features(tokens, [probe.layer], probe.features, rng_of(FEATURES, 0, number))
            logits = probe.logits(found[0].float().cpu())
            return logits.argmax(1), logits
        if isinstance(core, Autoregressive) and not isinstance(self.module, Joint):
            logits = -core.class_nll(tokens).cpu()
            return logits.argmax(1), logits
        assert isinstance(self.module, Joint)
        labels, logits = self.module.predict_classes(tokens, rng_of(EVALUATE, 0, number))
        return labels.cpu(), logits.cpu()

    def _options(
        self, temperature: float, top_k: int, top_p: float, seed: int, steps: int | None, compile: bool
    ) -> SamplingOptions:
        bert = isinstance(self.module.core, BERT)
        if steps is not None and not bert:
            raise UserError(f"steps {steps}: this model is autoregressive and draws pixel by pixel; leave steps out")
        if compile and bert:
            raise UserError("compile: BERT draws in a few passes; leave compile out")
        check_seed(seed)
        options = SamplingOptions(temperature, top_k, top_p, seed, compile=compile)
        options = options if steps is None else replace(options, steps=steps)
        options.check()
        return options

    def _towards(self, options: SamplingOptions, classes: Any, guidance: float | None, count: int) -> SamplingOptions:
        """The options with the classes of so many pictures."""
        if classes is None:
            if guidance is not None:
                raise UserError(f"--guidance {guidance} is towards a class; name one with --class")
            return options
        given = list(np.atleast_1d(np.asarray(classes, dtype=object)))
        if len(given) not in (1, count):
            raise UserError(f"--class: {len(given)} are given for {count} pictures; give one, or one for each")
        told = replace(options, labels=self.loaded.labels_of(given), guidance=1.0 if guidance is None else guidance)
        told.check()
        return told

    def _region(self, region: Any) -> Tensor | None:
        if region is None:
            return None
        if self.module.core.stride > 1:
            raise UserError("region: VQ tokens stand for many pixels each; leave it out and use keep")
        if isinstance(region, str | Path):
            found = open_mask(region, self.resolution)
        else:
            found = torch.as_tensor(np.asarray(region))
        if found.shape != self.shape or found.dtype != torch.bool or not found.any():
            raise UserError(
                f"region must be bool {self.shape} with a True where a pixel is drawn, or a mask picture's path"
            )
        return found


def named(names: Sequence[str], count: int) -> tuple[str, ...]:
    """The names of so many classes, or numbers where they are not known."""
    return tuple(names) if len(names) == count else tuple(map(str, range(count)))


def cell_nats(core: PixelModel) -> Tensor | None:
    """Nats of a colour that is uniform among those of each token, float32 `(k,)`; None where there are no tokens.

    Raises:
        UserError: the model has no exact likelihood.
    """
    if not core.causal:
        raise UserError(f"rgb: {type(core).__name__} gives images no exact likelihood, as only AR does; leave rgb out")
    if not core.has_palette:
        return None
    if not isinstance(core.palette, Palette):
        raise UserError("rgb: VQ tokens give colours no likelihood; leave rgb out")
    table = core.palette.table.cpu().numpy()
    return torch.from_numpy(cell_sizes(table, core.palette.k)).log().float().to(core.device)


def of_batch(options: SamplingOptions, first: int, count: int = 0) -> SamplingOptions:
    """The options of the batch of `count` pictures from number `first` on: every one has randomness of its own."""
    if options.labels is not None and len(options.labels) > 1:
        options = replace(options, labels=options.labels[first : first + count])
    return options if first == 0 else replace(options, seed=rng_of(options.seed % 2**32, first).initial_seed())


def check_seed(seed: int) -> None:
    """Raise a UserError for a seed that no generator takes."""
    if not 0 <= seed < 2**63:
        raise UserError(f"seed {seed} must lie between 0 and 2^63 - 1")


def none_left(broken: Broken | None) -> UserError:
    """The error where no image could be read."""
    return UserError(f"images: none of the {len(broken or []):,} given can be read")
