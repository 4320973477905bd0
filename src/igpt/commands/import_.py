"""`igpt import`: from released weights to a checkpoint that every other verb takes."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import yaml
from torch import Tensor

from igpt.checkpoints import (
    CHECKPOINT_KEY,
    check_finite,
    move_checkpoint,
    read_checkpoint,
    remove_checkpoint,
    write_checkpoint,
)
from igpt.commands.alignment import check_score, score
from igpt.commands.export import as_checkpoint
from igpt.data import ImageDataModule
from igpt.interop import (
    PROCESSOR,
    Alignment,
    Imported,
    check_state,
    clusters_of,
    is_openai,
    read_huggingface,
    read_json,
    read_openai,
)
from igpt.model import pixel_order
from igpt.modules import BERT, Autoregressive, Joint
from igpt.palette import Palette
from igpt.system import Precision, UserError, atomic_path, check_own, compute_of
from igpt.training import ready

CENTERS = "kmeans_centers.npy"  # the palette's file among the released ones


def import_(
    path: str,
    out: str,
    palette: str | None = None,
    format: Literal["huggingface", "openai"] | None = None,
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
        path: folder of Hugging Face's ImageGPT, or prefix of a TensorFlow checkpoint (AR or BERT).
        out: checkpoint to write, ending in .ckpt; runs/NAME/checkpoints/last.ckpt makes it a run for `igpt report`.
        palette: colours: kmeans_centers.npy, or a preprocessor_config.json; the one in the folder if left out.
        format: huggingface or openai; found out if left out.
        data: also score the first test images of these data, as a check.
        alignment: of that score: igpt is how the network was trained; huggingface also shows the loss that ports give
            which feed pixels without a start of sequence, one position early.
        accelerator: where the network is scored: auto, cpu, gpu, cuda or mps.
        precision: of that; auto is what is quickest here.
        tf32: on CUDA, let float32 products round to TF32.

    Raises:
        UserError: a file is missing or damaged, holds another network, or no palette is given; names file and tensor.
    """
    target = checked_target(out)
    check_score(alignment, data)
    compute = None if data is None else ready(compute_of(accelerator, precision), tf32)
    if palette is not None:
        open_colors(palette)  # what is off about the small file is said before the large ones are read
    imported = read(path, format)
    check_score(alignment, data, imported.config)
    colors = colors_of(imported, palette)
    write(target, imported, colors, spec_of(imported))
    print(describe(imported, target, colors))
    if data is not None and compute is not None:
        print(score(str(target), data, alignment, compute))


def checked_target(out: str) -> Path:
    """The checkpoint to write.

    Raises:
        UserError: it has another ending, or a file that would be overwritten is not of an earlier import.
    """
    target = Path(out)
    if target.suffix != ".ckpt":
        raise UserError(f"--out {out} must end in .ckpt")
    if target.with_suffix(".yaml").exists() and not target.exists():
        raise UserError(f"--out {out}: {target.with_suffix('.yaml')} would be overwritten; choose another name")
    for file in (target, classes_path(target)):
        if file.exists() and not is_imported(file):
            raise UserError(f"--out {out}: {file} is not of an earlier import and would be lost; choose another name")
    check_own(target.with_suffix(".yaml"), lambda path: starts_from(path).name == target.name)
    return target


def starts_from(config: Path) -> Path:
    """The checkpoint that an import's config names."""
    return Path(yaml.safe_load(config.read_bytes())["model"]["init_args"]["start_from"])


def is_imported(file: Path) -> bool:
    """Whether an import wrote this checkpoint: one that was trained has steps and data."""
    try:
        content = read_checkpoint(file)
    except UserError:
        return False
    return content.get("global_step") == 0 and content[CHECKPOINT_KEY].get("data") is None


def read(path: str, format: str | None) -> Imported:
    """Weights of either kind.

    Raises:
        UserError: there is nothing of that kind at `path`, or see the readers.
    """
    found = format or found_format(path)
    imported = read_huggingface(path) if found == "huggingface" else read_openai(path)
    positions = imported.config.n_positions
    if math.isqrt(positions) ** 2 != positions:
        raise UserError(f"{path} has {positions} positions, which is no square; igpt is for square images")
    check_state(imported.state, imported.config, path)
    check_finite([*imported.state.items(), ("class head", imported.class_head)], path)
    return imported


def found_format(path: str) -> str:
    """What lies at `path`, by the names of files.

    Raises:
        UserError: neither a Hugging Face folder nor a TensorFlow checkpoint.
    """
    if (Path(path) / "config.json").is_file():
        return "huggingface"
    if is_openai(path):
        return "openai"
    raise UserError(
        f"--path {path} is neither a folder with config.json (Hugging Face) nor the prefix of a TensorFlow checkpoint "
        f"({path}.index); give one of them"
    )


def open_colors(file: str) -> Tensor:
    """Colours `(k, 3)` of a .npy file, or of the clusters of a preprocessor_config.json."""
    if Path(file).suffix != ".json":
        return Palette.load(file).colors
    colors = clusters_of(read_json(Path(file)), file)
    assert colors is not None
    return colors


def colors_of(imported: Imported, palette: str | None) -> Tensor:
    """The colours that the tokens stand for.

    Raises:
        UserError: there are none, or not as many as the network has tokens.
    """
    if palette is None and imported.palette is None:
        beside = Path(imported.source if Path(imported.source).is_dir() else Path(imported.source).parent) / CENTERS
        if not beside.is_file():
            raise UserError(
                f"--palette is missing: there are no colours with {imported.source}; give {CENTERS} or {PROCESSOR}"
            )
        palette = str(beside)
    colors = open_colors(palette) if palette is not None else imported.palette
    assert colors is not None
    if len(colors) != imported.config.vocab_size:
        where = f"--palette {palette}" if palette is not None else f"{PROCESSOR} of {imported.source}"
        raise UserError(f"{where} has {len(colors)} colours, and the network {imported.config.vocab_size} tokens")
    return colors


def spec_of(imported: Imported) -> dict[str, Any]:
    """Class and network as checkpoints describe them; no rate and no other part of a recipe, which is not known."""
    kind = Autoregressive if imported.causal else BERT
    shape = imported.config.to_dict()
    return {
        "class_path": f"{kind.__module__}.{kind.__qualname__}",
        "init_args": {"transformer": shape, "order": "raster"},
    }


def write(target: Path, imported: Imported, colors: Tensor, spec: dict[str, Any]) -> None:
    """Write all files, or none of them; an earlier import's class head does not outlast its network."""
    side = math.isqrt(imported.config.n_positions)
    state = {f"transformer.{name}": tensor for name, tensor in imported.state.items()}
    state |= {"palette.colors": colors, "pixel_order": pixel_order("raster", side)}
    content = {target.name: (spec, state)}
    head = trained_head(imported)
    if head is not None:
        held = {f"generative.{name}": tensor for name, tensor in state.items()} | {"classifier.weight": head}
        content[classes_path(target).name] = joint_spec(spec, len(head)), held
    with atomic_path(target.with_suffix(".yaml")) as config, TemporaryDirectory(dir=target.parent, prefix=".") as made:
        config.write_text(yaml.safe_dump(recipe(target, spec), sort_keys=False), encoding="utf-8")
        for name, (model, tensors) in content.items():
            write_checkpoint(as_checkpoint({"model": model, "data": None, "step": 0}, tensors), Path(made) / name)
        for name in content:
            move_checkpoint(Path(made) / name, target.with_name(name))
    if head is None:
        remove_checkpoint(classes_path(target))


def trained_head(imported: Imported) -> Tensor | None:
    """The class head; None where there is none, or it is all zeros: that is how a new one begins."""
    head = imported.class_head
    return head if head is not None and head.count_nonzero() else None


def joint_spec(spec: dict[str, Any], num_classes: int) -> dict[str, Any]:
    """Description of a Joint model that holds the one that `spec` describes."""
    path = f"{Joint.__module__}.{Joint.__qualname__}"
    return {"class_path": path, "init_args": {"num_classes": num_classes, "generative": spec}}


def classes_path(target: Path) -> Path:
    """Where the checkpoint with the class head goes."""
    return target.with_suffix(".classes.ckpt")


def recipe(target: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """A config for fit and the verbs of training, which lacks the data; the run's folder is where `target` lies."""
    name = target.parent.parent.name if target.parent.name == "checkpoints" else target.stem
    model = {"transformer": spec["init_args"]["transformer"], "start_from": str(target)}
    return {"name": name or target.stem, "model": {"class_path": spec["class_path"], "init_args": model}}


def describe(imported: Imported, target: Path, colors: Tensor) -> str:
    """What was read and written, and what comes next."""
    config = imported.config
    kind = "Autoregressive" if imported.causal else "BERT"
    count = sum(tensor.numel() for tensor in imported.state.values())
    written = [target.name, target.with_suffix(".yaml").name]
    note = ""
    if imported.class_head is not None:
        trained = trained_head(imported) is not None
        written += [classes_path(target).name] if trained else []
        note = f", {len(imported.class_head)} classes" if trained else ", a class head of zeros (left out)"
    if not imported.pixel_head:
        note += ", no head for pixels (zeros: to probe and to fine-tune, not to sample)"
    return (
        f"{imported.source}: {kind}, {config.n_layers} layers, width {config.d_model}, {config.n_heads} heads, "
        f"{config.n_positions} positions, {len(colors)} colours, {count:,} parameters{note}\n"
        f"wrote {', '.join(written)} in {target.parent}\n"
        f"next: igpt probe --ckpt {target} --data DATA; "
        f"igpt test --config {target.with_suffix('.yaml')} --data DATA --ckpt_path {target}"
    )
