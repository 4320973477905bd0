"""A folder of Hugging Face's transformers as a FeatureSource: `--source huggingface:FOLDER`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igpt.checkpoints import check_finite
from igpt.families.maps import MapSource
from igpt.families.pretrained import SEED
from igpt.families.views import normed, sized
from igpt.system import UserError, last_line, library

MODES = {2: "bilinear", 3: "bicubic"}  # of resizing, by PIL's numbers
SPARE = ("pooler.", "mask_token")  # weights that hidden states do not need


class HuggingFaceSource(MapSource):
    """The hidden states of a vision model of a local folder, each the mean over positions, or over all tokens.

    Nothing is downloaded, and no code of the folder is run: weights are read from safetensors. Size and colours are
    those of its preprocessor_config.json; pictures are resized as a whole, without a crop. Without that file they are
    resized to the configuration's `image_size`, where it names one, and their colours are -1..1.

    Args:
        folder: with config.json and model.safetensors.

    Raises:
        UserError: it is no such folder, needs code or libraries that are not there, or holds a model of other things.
    """

    def __init__(self, folder: str = "") -> None:
        super().__init__()
        option = f"--source huggingface:{folder}"
        config = read_json(Path(folder) / "config.json", option)
        if config is None:
            raise UserError(f"{option}: there is no config.json; give a folder that save_pretrained has written")
        if config.get("model_type") == "imagegpt":
            raise UserError(f"{option} is an ImageGPT, which takes colours' numbers; use igpt import, then --ckpt")
        if "auto_map" in config:
            raise UserError(f"{option} comes with code of its own, which igpt does not run; give one without auto_map")
        self.folder = folder
        self.network = opened(folder, option)
        how = read_json(Path(folder) / "preprocessor_config.json", option) or {}
        self.side, self.mode, self.scale, self.colors = preprocessing(how, config)
        if config.get("num_channels", 3) != 3:
            raise UserError(f"{option} takes pictures of {config['num_channels']} channels; give one that takes 3")
        with torch.no_grad():
            shape = self.side or (64, 64)
            try:
                found = self.states(torch.full((1, 3, *shape), 128, dtype=torch.uint8))
            except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
                raise UserError(f"{option} gives no hidden states of a picture: {last_line(error)[:200]}") from error
        self.layers = tuple(map(str, range(len(found))))

    def states(self, images: Tensor) -> list[Tensor]:
        """Hidden states `(B, N, D)` or `(B, D, H, W)`, first to last."""
        mean, deviation = self.colors
        pictures = normed(sized(images, self.side, self.mode), mean, deviation, self.scale)
        return list(self.network(pixel_values=pictures, output_hidden_states=True).hidden_states)

    def maps(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """See `MapSource`."""
        found = self.states(images)
        return [found[int(name)] for name in layers]


def read_json(path: Path, option: str) -> dict[str, Any] | None:
    """The content of a file, None where there is none."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{option}: {path} is no JSON ({error}); write the folder anew") from error
    if not isinstance(content, dict):
        raise UserError(f"{option}: {path} holds no settings by name; write the folder anew")
    return content


def opened(folder: str, option: str) -> Any:
    """The model of a folder; a UserError unless all of its weights that count are there, and finite."""
    kind = library("transformers", "interop", option).AutoModel
    local = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)  # of weights that are not in the file, and not needed
        try:
            network, about = kind.from_pretrained(folder, **local, output_loading_info=True, dtype=torch.float32)
        except Exception as error:  # it raises anything
            raise UserError(f"{option} cannot be opened ({last_line(error)[:200]})") from error
    missing = sorted(name for name in about["missing_keys"] if not any(part in name for part in SPARE))
    if missing:
        raise UserError(f"{option} has no weights of {missing[0]} and {len(missing) - 1} more; save the whole model")
    if getattr(network, "main_input_name", "") != "pixel_values":
        raise UserError(f"{option} is a {type(network).__name__}, which takes no pictures; give a vision model")
    check_finite(network.state_dict().items(), option)
    return network.eval()


def preprocessing(how: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[Any, str, float, Any]:
    """Rows and columns or None, way of resizing, factor of bytes, and the colours' means and deviations."""
    default = config.get("image_size") if not how else None
    size = (how.get("crop_size") if how.get("do_center_crop") else None) or how.get("size") or default
    if isinstance(size, Mapping):
        edge = size.get("shortest_edge")
        size = (size.get("height", edge), size.get("width", edge))
    if how.get("do_resize") is False and not how.get("do_center_crop"):
        size = None
    side = None if size is None else (size, size) if isinstance(size, int) else tuple(size)
    scale = how.get("rescale_factor", 1 / 255) if how.get("do_rescale", True) else 1.0
    colors = how.get("image_mean") or (0.5,) * 3, how.get("image_std") or (0.5,) * 3
    if how.get("do_normalize") is False:
        colors = (0.0,) * 3, (1.0,) * 3
    return side, MODES.get(how.get("resample", 2), "bilinear"), scale, colors
