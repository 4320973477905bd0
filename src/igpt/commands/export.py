"""`igpt export`: from a checkpoint to files that other programs load."""

import errno
import json
import os
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from igpt.checkpoints import CHECKPOINT_KEY, check_finite, header_of, read_checkpoint, read_sharded, write_checkpoint
from igpt.interop import (
    check_exportable,
    check_state,
    huggingface_config,
    open_weights,
    processor_config,
    read_json,
    to_huggingface,
)
from igpt.model import TransformerConfig
from igpt.modules import built, check_room, class_names_of, step_of
from igpt.report import model_card
from igpt.system import UserError, atomic_folder, check_own, lies_in

CHECKPOINT = "model.ckpt"
HEADER = "igpt.json"  # beside the weights of --format safetensors: what they belong to
MARK = b"Written by igpt "  # in the card of every export
WRITTEN = (
    *("config.json", "model.safetensors", "preprocessor_config.json", HEADER, "README.md"),
    *(CHECKPOINT, f"{CHECKPOINT}.sha256"),
)


class Contents(NamedTuple):
    """A checkpoint taken apart: its header and step, the generative module's description, and tensors by name."""

    header: dict[str, Any]
    core: dict[str, Any]
    state: dict[str, Tensor]
    prefix: str  # of the generative module's names in `state`

    @property
    def parameters(self) -> int:
        """Of the network."""
        return sum(v.numel() for name, v in self.state.items() if name.startswith(f"{self.prefix}transformer."))


def as_checkpoint(header: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Any]:
    """What a checkpoint file holds, as Lightning and `igpt.load` read it, with an optimizer that has done nothing."""
    return {
        "epoch": 0,
        "global_step": header["step"],
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": state,
        "optimizer_states": [],
        "lr_schedulers": [],
        CHECKPOINT_KEY: {"format": 1, **{key: header.get(key) for key in ("model", "data", "class_names", "began")}},
    }


def export(ckpt: str, out: str, format: Literal["huggingface", "safetensors", "checkpoint"] = "huggingface") -> None:
    """Write a folder for Hugging Face's ImageGPT, the checkpoint's own tensors as safetensors, or one file for igpt.

    huggingface: config.json, model.safetensors, preprocessor_config.json (palette) and README.md, a model card that
    says how the model was trained and scored. safetensors: model.safetensors under our names, igpt.json (what
    they belong to) and README.md; holds whatever igpt holds. checkpoint: model.ckpt and README.md, for igpt's other
    verbs: the way from the folder of a sharded run to one file, without the optimizer.

    Args:
        ckpt: checkpoint of igpt, a file or the folder of a sharded run; scores.json and probe.json in its run's
            folder go into the card.
        out: folder to write; an earlier export there is replaced.
        format: huggingface, safetensors or checkpoint.
    """
    if lies_in(Path(ckpt), Path(out)):
        raise UserError(f"--out {out} holds --ckpt {ckpt}, which would be lost; name a new folder")
    if Path(out).is_dir():
        check_own(out, lambda folder: MARK in (folder / "README.md").read_bytes(), WRITTEN)
    contents = open_contents(ckpt)
    card = model_card(ckpt, contents.header, contents.core, format, contents.parameters)
    files: dict[str, dict[str, Any]] = {HEADER: contents.header} if format == "safetensors" else {}
    tensors = contents.state
    if format == "huggingface":
        files, tensors = for_huggingface(contents, f"--ckpt {ckpt}")
    with atomic_folder(out) as folder:
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if format == "checkpoint":
            write_checkpoint(as_checkpoint(contents.header, tensors), folder / CHECKPOINT)
        else:
            write_safetensors(tensors, folder / "model.safetensors")
        (folder / "README.md").write_text(card, encoding="utf-8")
        written = sorted(path.name for path in folder.iterdir())
    size = sum((Path(out) / name).stat().st_size for name in written)
    print(f"wrote {', '.join(written)} in {out} ({size / 1e6:,.1f} MB)")


def open_contents(ckpt: str) -> Contents:
    """The checkpoint taken apart; its module is not built, so the weights are in memory once."""
    content = read_sharded(ckpt) if Path(ckpt).is_dir() else read_checkpoint(ckpt)
    header, state = content[CHECKPOINT_KEY], content["state_dict"]
    model = header["model"]
    joint = "generative" in model["init_args"]
    core = header_of({"model": model["init_args"]["generative"]}, ckpt)["model"] if joint else model
    check_room(model, state, ckpt)
    if "transformer" not in core["init_args"]:
        kind = core["class_path"].rpartition(".")[2]
        raise UserError(f"--ckpt {ckpt} is a {kind}; there is a format for others of AR, BERT and Joint alone")
    check_finite(state.items(), f"--ckpt {ckpt}")
    plain = {"model": model, "data": header.get("data"), "step": step_of(content)}
    plain["began"] = header.get("began")
    plain["class_names"] = list(class_names_of(header))
    return Contents(plain, core, state, "generative." if joint else "")


def read_export(folder: str) -> dict[str, Any]:
    """What `--format safetensors` wrote, as the content of a checkpoint without its optimizer.

    Raises:
        UserError: a file is missing or damaged, or the weights do not fit the model that is named beside them.
    """
    header = header_of(read_json(Path(folder) / HEADER), Path(folder) / HEADER)
    if not isinstance(step := header.get("step"), int) or step < 0:
        raise UserError(f"{Path(folder) / HEADER} has {step!r} as step; export it again")
    weights = open_weights(Path(folder))
    state = {name: tensor.clone() for name, tensor in weights.read(list(weights.shapes))}
    content = as_checkpoint(header, state)
    built(content, folder)
    return content


def for_huggingface(contents: Contents, source: str) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """The JSON files and the tensors of Hugging Face's ImageGPT; the network's tensors leave `contents.state`."""
    args, state = contents.core["init_args"], contents.state
    config = TransformerConfig.of(args["transformer"])
    if "coarse" in args:
        raise UserError(f"{source} predicts coarse colours first, which ImageGPT cannot; use --format safetensors")
    if contents.core["class_path"].endswith(".ByteAutoregressive"):
        raise UserError(f"{source} predicts RGB values, not the colours of a palette; use --format safetensors")
    if args.get("classes"):
        raise UserError(f"{source} is told classes, which ImageGPT cannot be; use --format safetensors")
    state.pop(f"{contents.prefix}transformer.conditions", None)  # of transformations: images as they are have none
    check_exportable(config, args.get("order", "raster"), source)
    if f"{contents.prefix}palette.colors" not in state:
        raise UserError(f"{source} predicts VQ tokens, which ImageGPT cannot decode; use --format safetensors")
    colors, head = state[f"{contents.prefix}palette.colors"], state.get("classifier.weight")
    prefix = f"{contents.prefix}transformer."
    own = [name for name in state if name.startswith(prefix)]
    network = {name.removeprefix(prefix): state.pop(name).to(torch.float32) for name in own}
    check_state(network, config, source)
    described = huggingface_config(config, None if head is None else len(head))
    if head is not None and len(names := contents.header["class_names"]) == len(head):
        described["id2label"] = {str(label): name for label, name in enumerate(names)}
        described["label2id"] = {name: label for label, name in enumerate(names)}
    files = {
        "config.json": described,
        "preprocessor_config.json": processor_config(colors, config.shape[0]),
    }
    return files, to_huggingface(network, config, head)


def write_safetensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write the weights; an OSError names the file and the system's reason, which safetensors' own error hides."""
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = int((re.findall(r"os error (\d+)", str(error)) or [errno.EIO])[0])
        raise OSError(number, os.strerror(number), str(path)) from error
