"""`igpt export`: from a checkpoint to files that other programs load."""

import errno
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from igpt.checkpoints import CHECKPOINT_KEY, check_finite, header_of, read_checkpoint, read_sharded, write_checkpoint
from igpt.interop import check_exportable, check_state, huggingface_config, processor_config, to_huggingface
from igpt.model import TransformerConfig
from igpt.modules import check_room, step_of
from igpt.report import Facts, model_card
from igpt.system import UserError, atomic_folder, check_own, lies_in

Format = Literal["huggingface", "safetensors", "checkpoint"]
CHECKPOINT = "model.ckpt"
MARK = b"Written by igpt "  # in the card of every export
WRITTEN = {"config.json", "model.safetensors", "preprocessor_config.json", "igpt.json", "README.md"}
WRITTEN |= {CHECKPOINT, f"{CHECKPOINT}.sha256"}


@dataclass(frozen=True)
class Contents:
    """A checkpoint taken apart.

    Args:
        header: model and data as plain data, and the step.
        core: description of the generative module: of the checkpoint, or of what a Joint model holds.
        state: all tensors under their names in the checkpoint.
        prefix: of the generative module's names in `state`.
    """

    header: dict[str, Any]
    core: dict[str, Any]
    state: dict[str, Tensor]
    prefix: str

    @property
    def config(self) -> TransformerConfig:
        """Shape of the network."""
        return TransformerConfig.of(self.core["init_args"]["transformer"])


def as_checkpoint(header: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Any]:
    """What a checkpoint file holds, as Lightning and `igpt.load` read it, with an optimizer that has done nothing.

    Args:
        header: model and data as plain data (no data: None), and the step.
        state: all tensors under their names.
    """
    return {
        "epoch": 0,
        "global_step": header["step"],
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": state,
        "optimizer_states": [],
        "lr_schedulers": [],
        CHECKPOINT_KEY: {"format": 1, "model": header["model"], "data": header["data"]},
    }


def export(ckpt: str, out: str, format: Format = "huggingface") -> None:
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

    Raises:
        UserError: no such checkpoint, `out` holds it or other files, or ImageGPT cannot hold this model.
    """
    check_folder(out, ckpt)
    contents = open_contents(ckpt)
    config = contents.config
    facts = Facts.of(ckpt, contents.header, contents.core, format)  # before the weights are taken apart
    files: dict[str, dict[str, Any]] = {"igpt.json": contents.header} if format == "safetensors" else {}
    tensors = contents.state
    if format == "huggingface":
        check_exportable(config, contents.core["init_args"].get("order", "raster"), f"--ckpt {ckpt}")
        colors = tensors[f"{contents.prefix}palette.colors"]
        head = tensors.get("classifier.weight")
        files = {
            "config.json": huggingface_config(config, None if head is None else len(head)),
            "preprocessor_config.json": processor_config(colors, round(config.n_positions**0.5)),
        }
        tensors = to_huggingface(transformer_state(contents, ckpt), config, head)
    with atomic_folder(out) as folder:
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if format == "checkpoint":
            save(
                lambda path: write_checkpoint(as_checkpoint(contents.header, contents.state), path), folder / CHECKPOINT
            )
        else:
            save(lambda path: save_file(tensors, path, metadata={"format": "pt"}), folder / "model.safetensors")
        (folder / "README.md").write_text(model_card(facts), encoding="utf-8")
        written = sorted(path.name for path in folder.iterdir())
    size = sum((Path(out) / name).stat().st_size for name in written)
    print(f"wrote {', '.join(written)} in {out} ({size / 1e6:,.1f} MB)")


def save(write: Callable[[Path], None], path: Path) -> None:
    """Write a file of weights.

    Raises:
        OSError: it cannot be written; names the file, which safetensors and torch do not.
    """
    try:
        write(path)
    except (OSError, SafetensorError) as error:
        number = getattr(error, "errno", None) or int((re.findall(r"os error (\d+)", str(error)) or [errno.EIO])[0])
        raise OSError(number, os.strerror(number), str(path)) from error


def check_folder(out: str, ckpt: str) -> None:
    """Refuse a folder that is not free to be replaced.

    Raises:
        UserError: it holds the checkpoint, or anything that is not of an earlier export.
    """
    folder = Path(out)
    if lies_in(Path(ckpt), folder):
        raise UserError(f"--out {out} holds --ckpt {ckpt}, which would be lost; name a new folder")
    if folder.is_dir():
        check_own(folder, lambda path: MARK in (path / "README.md").read_bytes(), tuple(WRITTEN))


def open_contents(ckpt: str) -> Contents:
    """The checkpoint taken apart; its module is not built, so the weights are in memory once.

    Raises:
        UserError: see `read_checkpoint`; or its header does not describe a model.
    """
    content = read_sharded(ckpt) if Path(ckpt).is_dir() else read_checkpoint(ckpt)
    header, state = content[CHECKPOINT_KEY], content["state_dict"]
    model = header["model"]
    joint = "generative" in model["init_args"]
    core = header_of({"model": model["init_args"]["generative"]}, ckpt)["model"] if joint else model
    check_room(model["init_args"], state, ckpt)
    held = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    check_finite(held.items(), f"--ckpt {ckpt}")
    step = step_of(content)
    plain = {"model": model, "data": header.get("data"), "step": step}
    return Contents(plain, core, held, "generative." if joint else "")


def transformer_state(contents: Contents, ckpt: str) -> dict[str, Tensor]:
    """The network's own tensors, float32, taken out of the rest.

    Raises:
        UserError: they do not fit the network that the checkpoint names.
    """
    prefix = f"{contents.prefix}transformer."
    names = [name for name in contents.state if name.startswith(prefix)]
    state = {name.removeprefix(prefix): contents.state.pop(name).to(torch.float32) for name in names}
    check_state(state, contents.config, f"--ckpt {ckpt}")
    return state
