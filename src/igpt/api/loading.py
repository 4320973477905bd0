"""`load` and `create_model`: the ways to a `Model`."""

import difflib
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from igpt.api.model import Model
from igpt.api.words import speaks_python
from igpt.checkpoints import check_finite, find_checkpoint
from igpt.data import Resolution, shape_of
from igpt.interop import check_state, read_huggingface
from igpt.model import PRESETS, TransformerConfig
from igpt.modules import BERT, Autoregressive, GenerativeModule, Joint, Loaded
from igpt.modules import load as load_checkpoint
from igpt.palette import Palette
from igpt.probing import SavedProbe
from igpt.system import UserError


@speaks_python
def load(
    path: str | Path,
    device: str | torch.device = "auto",
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto",
    probe: str | Path | None = None,
) -> Model:
    """A model with its weights and palette, ready for pictures; nothing in the files is executed.

    Args:
        path: a checkpoint; the folder or the name of a run, whose best checkpoint is taken, or its last where none is
            called best; or a Hugging Face folder of ImageGPT with its palette.
        device: auto (CUDA or MPS where there is one), cpu, cuda, cuda:1 or mps.
        precision: auto is what is quickest here. TF32 on CUDA stays as torch is set.
        probe: folder of a probe of this checkpoint, written by `igpt probe --save`, for `Model.predict`.

    Raises:
        UserError: there is no such file, it is damaged, or what it names is not installed.
    """
    return open_model(path, device, precision, probe)


def open_model(path: str | Path, device: str | torch.device, precision: str, probe: str | Path | None = None) -> Model:
    """`load`, with errors that speak of options, for verbs."""
    place = Path(path)
    loaded = from_huggingface(place) if (place / "config.json").is_file() else load_checkpoint(find_checkpoint(path))
    kept = None if probe is None else SavedProbe.load(probe, loaded)
    return Model(loaded, device, precision, kept)


def from_huggingface(folder: Path) -> Loaded:
    """A folder of Hugging Face's ImageGPT as a module; with a trained class head as a `Joint`."""
    imported = read_huggingface(folder)
    check_state(imported.state, imported.config, str(folder))
    check_finite([*imported.state.items(), ("class head", imported.class_head)], str(folder))
    if imported.palette is None:
        raise UserError(f"{folder} has no palette (preprocessor_config.json); use 'igpt import --palette FILE' instead")
    module = Autoregressive(imported.config)
    state = {f"transformer.{name}": tensor for name, tensor in imported.state.items()}
    module.load_state_dict({**state, "palette.colors": imported.palette, "pixel_order": module.pixel_order})
    head = imported.class_head
    if head is None or not head.count_nonzero():
        return Loaded(module.eval(), folder, 0, None)
    joint = Joint(len(head), generative=module)
    joint.classifier.weight.data.copy_(head)
    return Loaded(joint.eval(), folder, 0, None, imported.class_names)


@speaks_python
def create_model(
    name: str,
    pretrained: str | Path | None = None,
    *,
    objective: Literal["ar", "bert"] = "ar",
    palette: str | Path | Palette | Any = None,
    resolution: Resolution | None = None,
    num_classes: int | None = None,
    device: str | torch.device = "auto",
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto",
    **overrides: Any,
) -> Model:
    """A network of a published size with new weights, or with those of a checkpoint.

    Args:
        name: igpt-s, igpt-m, igpt-l or igpt-xl.
        pretrained: what `load` takes, for a network of the same shape; a checkpoint of another resolution gives its
            position embeddings interpolated.
        objective: ar predicts each pixel from those before it, bert masked ones from all others.
        palette: colours: a .npy file, an `igpt.Palette`, or an array `(k, 3)` in [-1, 1]; with `pretrained` its own.
        resolution: side of the pictures, or rows and columns; that of the published network if left out.
        num_classes: adds a class head, for fine-tuning.
        device: as of `load`.
        precision: as of `load`.
        overrides: fields of `igpt.TransformerConfig`, such as `n_layers=4`.

    Raises:
        UserError: there is no such name or field, or the weights do not fit.
    """
    sizes = {f"igpt-{size.lower()}": config for size, config in PRESETS.items()}
    if name.lower() not in sizes:
        raise UserError(f"there is no model {name!r}{near(name.lower(), sizes)}; choose from {', '.join(sizes)}")
    colors = None if palette is None else colors_of(palette)
    fields = asdict(sizes[name.lower()])
    given = dict(overrides)
    if resolution is not None:
        rows, columns = shape_of(resolution)
        given |= {"n_positions": rows * columns, "grid": None if rows == columns else (rows, columns)}
    if colors is not None:
        given.setdefault("vocab_size", colors.k)
    if unknown := sorted(given.keys() - fields.keys()):
        raise UserError(f"there is no option {unknown[0]!r}{near(unknown[0], fields)}; choose from {', '.join(fields)}")
    if objective not in ("ar", "bert"):
        raise UserError(f"objective {objective!r}; choose ar or bert")
    kind: type[GenerativeModule] = Autoregressive if objective == "ar" else BERT
    config = TransformerConfig.of(fields | {"sos": objective == "ar"} | given)
    source = None if pretrained is None else Path(pretrained)
    if source is not None and (source / "config.json").is_file():
        module = kind(config)
        core = from_huggingface(source).module.core
        config.check_weights(core.transformer.config.to_dict(), f"pretrained: {source}")
        take_weights(module, core.state_dict(), source)
    else:
        module = kind(config, start_from=None if source is None else str(find_checkpoint(source)))
        module.start_from = None
    if colors is not None:
        if colors.k != config.vocab_size:
            raise UserError(f"palette has {colors.k} colours, and vocab_size is {config.vocab_size}; make them equal")
        module.palette = colors
    whole = module if num_classes is None else Joint(num_classes, generative=module)
    return Model(Loaded(whole.eval(), source or Path(name), 0, None), device, precision)


def near(name: str, known: Any) -> str:
    """A hint at the nearest known name, if one is near."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {found[0]}?)" if found else ""


def colors_of(palette: Any) -> Palette:
    """A palette from a file, an array, or as it is."""
    if isinstance(palette, Palette):
        return palette
    if isinstance(palette, str | Path):
        return Palette.load(palette)
    return Palette(torch.as_tensor(np.asarray(palette, dtype=np.float32)))


def take_weights(module: GenerativeModule, state: dict[str, torch.Tensor], source: Path) -> None:
    """Give a network the weights of another of the same shape."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"pretrained: {source} does not fit this model: {reason}") from error
