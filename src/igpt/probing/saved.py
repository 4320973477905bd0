"""A linear probe kept with its results, so that it classifies other images."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from igpt.model import FeatureOptions
from igpt.modules import Loaded, PixelModule
from igpt.probing.methods import MethodResults
from igpt.probing.methods.lbfgs import LBFGS, fit_probes
from igpt.probing.protocol import Probed, ProbeTask, best_layer, moments
from igpt.probing.results import SAVED
from igpt.probing.store import FeatureType
from igpt.system import UserError, atomic_path, check_own

SHAPES = {"mean": ("D",), "scale": ("D",), "weight": ("D", "K"), "bias": ("K",)}


@dataclass(frozen=True)
class SavedProbe:
    """Logistic regression on the features of one layer of one checkpoint.

    Args:
        layer: of 0..L.
        features: what counts as its features.
        dtype: to which features are rounded, as they were when it was fitted.
        checkpoint_sha256: of the checkpoint.
        class_names: of the K classes; empty where the data have none.
        tensors: float32 mean and scale `(D,)` of the standardisation, weight `(D, K)` and bias `(K,)`.
    """

    layer: int
    features: FeatureOptions
    dtype: FeatureType
    checkpoint_sha256: str
    class_names: list[str]
    tensors: dict[str, Tensor]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.tensors["bias"])

    def logits(self, features: Tensor) -> Tensor:
        """Class logits `(N, K)` of features float32 `(N, D)`, both on the CPU."""
        stored = features.to(getattr(torch, self.dtype)).float()
        standard = (stored - self.tensors["mean"]) * self.tensors["scale"]
        return standard @ self.tensors["weight"] + self.tensors["bias"]

    def save(self, folder: Path) -> Path:
        """Write `probe.safetensors` into the folder of the results."""
        about = asdict(self)
        tensors = {name: tensor.float().cpu().contiguous() for name, tensor in about.pop("tensors").items()}
        with atomic_path(folder / SAVED) as path:
            save_file(tensors, path, metadata={"igpt_probe": json.dumps(about)})
        return folder / SAVED

    @classmethod
    def load(cls, folder: str | Path, loaded: Loaded) -> "SavedProbe":
        """The probe that a folder holds, for a checkpoint.

        Raises:
            UserError: there is none, it is damaged, or of another checkpoint.
        """
        path = Path(folder) / SAVED if Path(folder).is_dir() else Path(folder)
        if not path.is_file():
            raise UserError(f"--probe {folder} has no {SAVED}; write one with 'igpt probe --ckpt CKPT --save'")
        try:
            with safe_open(path, "pt") as file:
                about: dict[str, Any] = json.loads(file.metadata()["igpt_probe"])
                tensors = {name: file.get_tensor(name) for name in SHAPES}
            kept = cls(**about | {"features": FeatureOptions(**about["features"]), "tensors": tensors})
            kept.check(loaded)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise UserError(f"--probe {path} is no probe that igpt kept ({error}); write it anew") from error
        if kept.checkpoint_sha256 != loaded.sha256:
            raise UserError(f"--probe {path} is of another checkpoint than {loaded.path}; probe this one with --save")
        return kept

    def check(self, loaded: Loaded) -> None:
        """Raise a ValueError where shapes or numbers do not fit each other or the network."""
        core = loaded.module.core
        width = core.transformer.config.d_model * self.features.grid**2
        sizes = {"D": width, "K": self.num_classes}
        fits = all(self.tensors[name].shape == tuple(sizes[one] for one in dims) for name, dims in SHAPES.items())
        if not fits or not 0 <= self.layer <= core.n_layers or self.dtype not in ("float16", "float32"):
            raise ValueError("its shapes do not fit this checkpoint")


def saved_probe(task: ProbeTask, results: list[MethodResults]) -> SavedProbe:
    """The L-BFGS probe of the best layer on validation, fitted as its results were; call `check_saving` before."""
    assert task.features is not None
    best = best_layer(next(one for one in results if one.method is LBFGS).layers)
    splits = task.features.splits([best.layer])
    (train, train_labels), (val, val_labels) = splits["train"], splits["val"]
    mean, scale = train.new_zeros(1, 1, train.shape[2]), train.new_ones(1, 1, train.shape[2])
    if task.options.standardise:
        mean, scale = moments(train)
    both = (torch.cat([train, val], dim=1) - mean) * scale
    probe = fit_probes(both, torch.cat([train_labels, val_labels]), [best.chosen], task.classes)
    tensors = {"mean": mean[0, 0], "scale": scale[0, 0], "weight": probe.weight[0, 0], "bias": probe.bias[0, 0]}
    names = [str(name) for name in task.data.class_names]
    options = task.options
    return SavedProbe(best.layer, options.features, options.stored_as, task.loaded.sha256, names, tensors)


def check_saving(methods: list[Any], folder: Path, module: Probed) -> None:
    """Raise a UserError unless a probe with weights is asked for, and only an earlier one stands in its place."""
    if not isinstance(module, PixelModule):
        raise UserError("--save keeps a probe for 'igpt classify', which takes igpt's own networks; leave --save out")
    if LBFGS not in methods:
        raise UserError("--save keeps the probe of lbfgs; add lbfgs to --method, or leave --save out")
    check_own(folder / SAVED, lambda path: b'"igpt_probe"' in path.read_bytes())
