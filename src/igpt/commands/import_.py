"""`igpt import`: from released weights to a checkpoint that every other verb takes."""

import math
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
import yaml
from torch import Tensor

from igpt.checkpoints import (
    CHECKPOINT_KEY,
    check_finite,
    move_checkpoint,
    read_checkpoint,
    remove_checkpoint,
    weights_sha256,
    write_checkpoint,
)
from igpt.commands.export import HEADER, as_checkpoint, read_export
from igpt.data import ImageDataModule, rng_of
from igpt.interop import (
    PROCESSOR,
    Alignment,
    Imported,
    aligned_nll,
    check_state,
    clusters_of,
    is_openai,
    read_huggingface,
    read_json,
    read_openai,
)
from igpt.model import TransformerConfig, pixel_order
from igpt.modules import BERT, EVALUATE, Autoregressive, Joint, load
from igpt.palette import Palette
from igpt.system import Compute, Precision, UserError, atomic_path, check_own, compute_of
from igpt.training import ready

CENTERS = "kmeans_centers.npy"  # the palette's file among the released ones
SCORED = 64  # test images: enough to tell a wrong import from a right one
AT_ONCE = 8


def import_(
    path: str,
    out: str,
    palette: str | None = None,
    format: Literal["huggingface", "openai", "safetensors"] | None = None,
    data: ImageDataModule | None = None,
    alignment: Alignment = "igpt",
    accelerator: str = "auto",
    precision: Precision = "auto",
    tf32: bool = True,
) -> None:
    """Write a checkpoint of igpt from released weights, and a config that starts from it.

    Nothing in the files is executed. OUT.ckpt holds weights and palette, with no optimizer: start from it, or fine-tune
    it. OUT.yaml names the network, so that fit, validate, test and predict need only --data. A class head, where there
    is one that was trained, goes to OUT.classes.ckpt with the same network, as a Joint model.

    Args:
        path: folder of Hugging Face's ImageGPT, prefix of a TensorFlow checkpoint (AR or BERT), or a folder that
            `igpt export --format safetensors` wrote, which becomes the checkpoint that it was, without optimizer.
        out: checkpoint to write, ending in .ckpt; runs/NAME/checkpoints/last.ckpt makes it a run for `igpt report`.
        palette: colours: kmeans_centers.npy, or a preprocessor_config.json; the one in the folder if left out.
        format: huggingface, openai or safetensors; found out if left out.
        data: also score the first test images of these data, as a check.
        alignment: of that score: igpt is how the network was trained; huggingface also shows the loss that ports give
            which feed pixels without a start of sequence, one position early.
        accelerator: where the network is scored: auto, cpu, gpu, cuda or mps.
        precision: of that; auto is what is quickest here.
        tf32: on CUDA, let float32 products round to TF32.
    """
    if format == "safetensors" or (format is None and (Path(path) / HEADER).is_file()):
        print(take_back(path, out, {"--palette": palette, "--data": data}))
        return
    target = checked_target(out)
    check_score(alignment, data)
    compute = None if data is None else ready(compute_of(accelerator, precision), tf32)
    if palette is not None:
        open_colors(palette)  # what is off about the small file is said before the large ones are read
    imported = read(path, format)
    check_score(alignment, data, imported.config)
    colors = colors_of(imported, palette)
    write(target, imported, colors)
    print(describe(imported, target, colors))
    if data is not None and compute is not None:
        print(score(str(target), data, alignment, compute))


def take_back(path: str, out: str, others: dict[str, Any]) -> str:
    """Write the checkpoint that an export of our own was made from, and say so.

    Args:
        others: options that are for weights of others, by name.
    """
    for name, value in others.items():
        if value is not None:
            raise UserError(f"{name} is for weights of others; {path} has been exported by igpt and has its own")
    target = Path(out)
    if target.suffix != ".ckpt":
        raise UserError(f"--out {out} must end in .ckpt")
    content = read_export(path)

    def same(file: Path) -> bool:
        there = read_checkpoint(file)  # one with an optimizer would lose it
        return not there["optimizer_states"] and checksum_of_weights(there) == checksum_of_weights(content)

    check_own(target, same)
    write_checkpoint(content, target)
    kind = content[CHECKPOINT_KEY]["model"]["class_path"].rpartition(".")[2]
    return f"{path}: {kind}, step {content['global_step']:,}\nwrote {out}; next: igpt probe --ckpt {out}"


def checksum_of_weights(content: dict[str, Any]) -> str:
    """Tells one checkpoint's network from another, in whatever order its tensors are kept."""
    return weights_sha256(content[CHECKPOINT_KEY]["model"], dict(sorted(content["state_dict"].items())))


def checked_target(out: str) -> Path:
    """The checkpoint to write; a UserError if a file that would be written over is not of an earlier import."""
    target = Path(out)
    if target.suffix != ".ckpt":
        raise UserError(f"--out {out} must end in .ckpt")
    for file in (target, classes_path(target)):
        check_own(file, is_imported)

    def names_target(config: Path) -> bool:
        start = yaml.safe_load(config.read_bytes())["model"]["init_args"]["start_from"]
        return target.exists() and Path(start).name == target.name

    check_own(target.with_suffix(".yaml"), names_target)
    return target


def is_imported(file: Path) -> bool:
    """Whether an import wrote this checkpoint: one that was trained has steps and data."""
    content = read_checkpoint(file)
    return content.get("global_step") == 0 and content[CHECKPOINT_KEY].get("data") is None


def read(path: str, format: str | None) -> Imported:
    """Weights of either kind; a UserError if there are none at `path`, or they are not those of square images."""
    theirs = format == "huggingface" or (format is None and (Path(path) / "config.json").is_file())
    if format is None and not theirs and not is_openai(path):
        raise UserError(
            f"--path {path} is neither a folder with config.json (Hugging Face) or {HEADER} (igpt export) nor the "
            f"prefix of a TensorFlow checkpoint ({path}.index); give one of them"
        )
    imported = read_huggingface(path) if theirs else read_openai(path)
    positions = imported.config.n_positions
    if math.isqrt(positions) ** 2 != positions:
        raise UserError(f"{path} has {positions} positions, which is no square; igpt is for square images")
    check_state(imported.state, imported.config, path)
    check_finite([*imported.state.items(), ("class head", imported.class_head)], path)
    return imported


def open_colors(file: str) -> Tensor:
    """Colours `(k, 3)` of a .npy file, or of the clusters of a preprocessor_config.json."""
    if Path(file).suffix != ".json":
        return Palette.load(file).colors
    colors = clusters_of(read_json(Path(file)), file)
    assert colors is not None
    return colors


def colors_of(imported: Imported, palette: str | None) -> Tensor:
    """The colours that the tokens stand for; a UserError if there are none, or another number than of tokens."""
    source = Path(imported.source)
    colors, where = imported.palette, f"{PROCESSOR} of {source}"
    if palette is not None or colors is None:
        file = palette or str((source if source.is_dir() else source.parent) / CENTERS)
        if palette is None and not Path(file).is_file():
            raise UserError(f"--palette is missing: there are no colours with {source}; give {CENTERS} or {PROCESSOR}")
        colors, where = open_colors(file), f"--palette {file}"
    if len(colors) != imported.config.vocab_size:
        raise UserError(f"{where} has {len(colors)} colours, and the network {imported.config.vocab_size} tokens")
    return colors


def spec_of(kind: type, **init_args: Any) -> dict[str, Any]:
    """A module's class and arguments as checkpoints describe them; the recipe of its training is not known."""
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": init_args}


def write(target: Path, imported: Imported, colors: Tensor) -> None:
    """Write all files, or none of them; an earlier import's class head does not outlast its network."""
    shape = imported.config.to_dict()
    spec = spec_of(Autoregressive if imported.causal else BERT, transformer=shape, order="raster")
    state = {f"transformer.{name}": tensor for name, tensor in imported.state.items()}
    state |= {"palette.colors": colors, "pixel_order": pixel_order("raster", imported.config.shape)}
    content = {target.name: (spec, state)}
    head = trained_head(imported)
    if head is not None:
        held = {f"generative.{name}": tensor for name, tensor in state.items()} | {"classifier.weight": head}
        content[classes_path(target).name] = spec_of(Joint, num_classes=len(head), generative=spec), held
    run = target.parent.parent.name if target.parent.name == "checkpoints" else ""
    model = {"class_path": spec["class_path"], "init_args": {"transformer": shape, "start_from": str(target)}}
    recipe = {"name": run or target.stem, "model": model}  # lacks the data
    with atomic_path(target.with_suffix(".yaml")) as config, TemporaryDirectory(dir=target.parent, prefix=".") as made:
        config.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
        for name, (described, tensors) in content.items():
            header = {"model": described, "data": None, "step": 0, "class_names": list(imported.class_names)}
            write_checkpoint(as_checkpoint(header, tensors), Path(made) / name)
        for name in content:
            move_checkpoint(Path(made) / name, target.with_name(name))
    if head is None:
        remove_checkpoint(classes_path(target))


def trained_head(imported: Imported) -> Tensor | None:
    """The class head; None where there is none, or it is all zeros: that is how a new one begins."""
    head = imported.class_head
    return head if head is not None and head.count_nonzero() else None


def classes_path(target: Path) -> Path:
    """Where the checkpoint with the class head goes."""
    return target.with_suffix(".classes.ckpt")


def describe(imported: Imported, target: Path, colors: Tensor) -> str:
    """What was read and written, and what comes next."""
    config, beside = imported.config, target.with_suffix(".yaml")
    kind = "Autoregressive" if imported.causal else "BERT"
    count = sum(tensor.numel() for tensor in imported.state.values())
    written, note = f"{target.name}, {beside.name}", ""
    if (head := trained_head(imported)) is not None:
        written, note = f"{written}, {classes_path(target).name}", f", {len(head)} classes"
    elif imported.class_head is not None:
        note = ", a class head of zeros (left out)"
    if not imported.pixel_head:
        note += ", no head for pixels (zeros: to probe and to fine-tune, not to sample)"
    return (
        f"{imported.source}: {kind}, {config.n_layers} layers, width {config.d_model}, {config.n_heads} heads, "
        f"{config.n_positions} positions, {len(colors)} colours, {count:,} parameters{note}\n"
        f"wrote {written} in {target.parent}\n"
        f"next: igpt probe --ckpt {target} --data DATA; igpt test --config {beside} --data DATA --ckpt_path {target}"
    )


def check_score(alignment: Alignment, data: ImageDataModule | None, config: TransformerConfig | None = None) -> None:
    """Raise a UserError if there is nothing to score, before anything is written; with `config`, if it does not fit."""
    if data is None:
        if alignment != "igpt":
            raise UserError(f"--alignment {alignment} is about the score on images; name some with --data")
    elif config is None:
        data.prepare_data()
    elif alignment != "igpt" and not config.sos:
        raise UserError(f"--alignment {alignment} is about autoregressive models; BERT has no start of sequence")
    elif data.shape != config.shape:
        given, ours = ("x".join(map(str, shape)) for shape in (data.shape, config.shape))
        raise UserError(f"--data.resolution: the images are {given}, the model's {ours}; set it")


def score(ckpt: str, data: ImageDataModule, alignment: Alignment, compute: Compute) -> str:
    """What `igpt import` says about the first test images: nats per pixel as trained, and as another port counts."""
    module = load(ckpt, compute.device).module.core
    module.check_colors(data)
    test = data.images("test")
    images = torch.stack([test[index][0] for index in range(min(SCORED, data.size("test")))])
    parts = [module.encode(part.to(module.device)) for part in images.split(AT_ONCE)]
    known = f"of the first {len(images)} test images"
    with compute.autocast():
        if not isinstance(module, Autoregressive):
            loss = mean_of(parts, lambda tokens: module.loss(tokens, rng_of(EVALUATE)))
            return f"{loss:.4f} nats per masked pixel {known}"
        loss = mean_of(parts, lambda tokens: aligned_nll(module.transformer, tokens).mean())
        line = f"{loss:.4f} nats per pixel {known}"
        if alignment == "igpt":
            return line
        shifted = mean_of(parts, lambda tokens: aligned_nll(module.transformer, tokens, alignment).mean())
    return f"{line}\n{shifted:.4f} where pixels are fed without sos, one position early (--alignment {alignment})"


@torch.inference_mode()
def mean_of(parts: list[Tensor], loss: Callable[[Tensor], Tensor]) -> float:
    """Mean over images of a loss that is a mean over a part's images."""
    return sum(float(loss(part)) * len(part) for part in parts) / sum(map(len, parts))
