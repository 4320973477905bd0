"""`igpt probe`: how much a simple classifier can read from the features of every layer."""

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from igpt.data import SPLITS, ImageDataModule, any_unlabelled
from igpt.model import FeatureOptions, check_layers
from igpt.modules import Loaded, load
from igpt.parsing import command_line
from igpt.probing import (
    HOW,
    Asked,
    FeatureType,
    Method,
    ProbeReport,
    Written,
    check_results,
    features_for,
    forget_training,
    low_data_row,
    run_method,
    subset_indices,
    subsets_of,
)
from igpt.system import Precision, UserError, allow_tf32, compute_of, only_writer, reader, sha256_of
from igpt.training import ready


def probe(
    ckpt: str,
    data: ImageDataModule | None = None,
    layers: str = "all",
    method: str = "lbfgs",
    concat: int | None = None,
    labels_per_class: list[int] | None = None,
    subsets: int = 5,
    norm: Literal["normed", "raw"] = "normed",
    grid: int = 1,
    masks: int = 0,
    standardise: bool = True,
    dtype: FeatureType | None = None,
    store: str | None = None,
    epochs: int = 100,
    out: str | None = None,
    accelerator: str = "auto",
    precision: Precision = "auto",
    tf32: bool = True,
    compile: bool = False,
) -> None:
    """Fit a classifier on the features of every layer, and print and write its accuracy (paper, section 2.4).

    Features are means over positions of each block's normed input. Penalty, rate or number of neighbours are chosen on
    the validation split, and the test split is looked at once. Writes probe.json, probe.csv and layers.png.

    Args:
        ckpt: checkpoint of igpt.
        data: whose images to probe with; the data that the checkpoint was trained on if left out.
        layers: "all", or numbers from 0 (input of the first block) to L (final norm), such as 0,4,8.
        method: lbfgs (the paper's for CIFAR and STL), sgd (its way for ImageNet, for data too large for lbfgs), knn,
            several such as lbfgs,knn, or all.
        concat: also probe the features of so many adjacent layers around the best one, one after another; 5 in the
            paper.
        labels_per_class: also fit L-BFGS probes on so few training images of each class, such as 4 25 400.
        subsets: how many subsets of each size, of different seeds.
        norm: normed (the paper's) or raw, the residual stream before the norm.
        grid: 1 is the mean over all positions; 2 keeps the means of the picture's quarters apart.
        masks: for BERT: 0 shows whole images, n takes mean features under n masks.
        standardise: shift and scale features to mean 0 and deviation 1 on the training split first.
        dtype: of the features on disk; float16 if left out, and float32 for raw ones, whose mean may hide what varies.
        store: folder of the features, made or reused; "features" beside the results if left out.
        epochs: of the sgd probe, passes over the training images; 100 is about what the paper's million steps are.
        out: folder to write to; "probe" in the run's folder if left out (probe/step=N for a checkpoint of step N).
        accelerator: where the network runs, as in Lightning: auto, cpu, gpu, cuda, mps.
        precision: of the network, as in Lightning: 32-true, bf16-mixed, 16-mixed; auto is what is quickest here.
        tf32: on CUDA, let float32 products of the network round to TF32; those of the probes never do.
        compile: compile each block first; worth its quarter of a minute where features take minutes.

    Raises:
        UserError: no such checkpoint, layer or method, the data have no labels, or a store does not fit.
    """
    source = str(Path(ckpt).resolve()) if Path(ckpt).is_file() and Path(ckpt).is_symlink() else ckpt
    loaded = load(source)  # a link may lead elsewhere before the work is done
    checksum = sha256_of(source)
    core = loaded.module.core
    core.compile_blocks = compile
    wanted, methods = parse_layers(layers, core.n_layers), parse_methods(method)
    how = FeatureOptions(norm, grid, masks)
    check_options(concat, wanted, core.n_layers, labels_per_class, subsets, epochs)
    how.check(core.resolution, core.causal)
    compute = ready(compute_of(accelerator, precision), tf32)
    started = time.perf_counter()
    data = to_probe_with(data, loaded)
    classes = num_classes(data)
    few = subsets_of(data, labels_per_class or [], subsets)
    folder = Path(out) if out else default_folder(Path(ckpt))
    stored_as: FeatureType = dtype or ("float16" if norm == "normed" else "float32")
    asked = Asked(loaded.module, data, classes, wanted, concat, how, standardise, epochs, folder, compute)
    choices = {**how.to_dict(), "standardise": standardise, "dtype": stored_as, "precision": compute.precision}
    check_results(folder)
    with only_writer(folder, "give another --out"), nullcontext() if out else reader(run_of(Path(ckpt))):
        features = None
        if set(methods) != {"sgd"} or few or not asked.changing:
            features = features_for(asked, source, store, stored_as)
        allow_tf32(False)  # the probes are small, and choices on validation hang on their last digits
        results = [run_method(name, asked, features) for name in methods]
        report = ProbeReport(
            {**origin(ckpt, checksum, loaded, data), "features": choices},
            results,
            [low_data_row(features, *size, wanted, classes, standardise) for size in few.items()] if features else [],
            subset_indices(data, few),
        )
        written = report.write(folder)
        forget_training(asked, results)
    print(report.text())
    print(told(written, folder, time.perf_counter() - started))


def told(written: Written, folder: Path, seconds: float) -> str:
    """What was written, and what was moved aside for it."""
    first, *others = written.names
    line = f"wrote {folder / first}, {', '.join(others)} in {seconds:.1f} s"
    if written.aside is None:
        return line
    return f"{folder} held a probe of another checkpoint, other data or options, which is now {written.aside}\n{line}"


def to_probe_with(data: ImageDataModule | None, loaded: Loaded) -> ImageDataModule:
    """The data given, or else those of the checkpoint, prepared; no image is in training and validation both.

    Raises:
        UserError: the data are not there, or their images do not fit the network.
    """
    data = data if data is not None else loaded.data()
    data.split = replace(data.split, fold_validation=False)  # what is chosen on validation was not fitted to it
    loaded.module.core.check_resolution(data.resolution)
    loaded.module.core.check_colors(data)
    data.prepare_data()
    return data


def origin(ckpt: str, checksum: str, loaded: Loaded, data: ImageDataModule) -> dict[str, Any]:
    """What was probed, for probe.json."""
    return {
        "command": command_line(),
        "checkpoint": str(ckpt),
        "checkpoint_sha256": checksum,
        "step": loaded.step,
        "model": type(loaded.module).__name__,
        "objective": type(loaded.module.core).__name__,
        "data": data.spec(),
        "identity": data.identity(),
        "images": {name: data.size(name) for name in SPLITS},
    }


def parse_layers(text: str, n_layers: int) -> list[int]:
    """Turn "all" or "0,4,8" into a sorted list of layers.

    Raises:
        UserError: not numbers, or no such layer.
    """
    if text == "all":
        return list(range(n_layers + 1))
    try:
        layers = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise UserError(f"--layers {text!r} is neither 'all' nor numbers such as 0,4,8") from error
    check_layers(layers, n_layers)
    return layers


def parse_methods(text: str) -> list[Method]:
    """Turn "all" or "lbfgs,knn" into a list of methods, in the order given.

    Raises:
        UserError: no such method.
    """
    names = list(HOW) if text == "all" else list(dict.fromkeys(text.split(",")))
    wrong = [name for name in names if name not in HOW]
    if wrong:
        raise UserError(f"--method {','.join(wrong)}; choose from {', '.join(HOW)}, several with commas, or all")
    return names  # type: ignore[return-value]


def check_options(
    concat: int | None, layers: list[int], n_layers: int, labels_per_class: list[int] | None, subsets: int, epochs: int
) -> None:
    """Raise a UserError for numbers that make no probe."""
    if concat is not None and not 2 <= concat <= n_layers + 1:
        raise UserError(f"--concat {concat} must lie between 2 and {n_layers + 1}, the number of layers")
    if concat is not None and len(layers) <= n_layers:
        raise UserError("--concat needs the neighbours of the best layer, whichever it is; leave --layers out")
    if labels_per_class is not None and (not labels_per_class or min(labels_per_class) < 1):
        raise UserError(f"--labels_per_class {labels_per_class}: give numbers of at least 1, such as 4 25 400")
    if subsets < 1 or epochs < 1:
        raise UserError("--subsets and --epochs must be at least 1")


def num_classes(data: ImageDataModule) -> int:
    """Number of classes that occur, without reading an image.

    Raises:
        UserError: there are images without a label, or only one class.
    """
    labels: Tensor = torch.cat([torch.as_tensor(data.images(name).labels) for name in SPLITS])
    if any_unlabelled(labels):
        raise UserError("--data: some images have no label (-1); probing needs labelled images")
    if int(labels.max()) < 1:
        raise UserError("--data: all images have the same label; probing needs at least two classes")
    return int(labels.max()) + 1


def default_folder(ckpt: Path) -> Path:
    """Where the results of a checkpoint go: probe/ of its run for the last one, a folder of its own for others."""
    run = run_of(ckpt)
    if run == ckpt.absolute().parent:
        return ckpt.with_name(f"{ckpt.stem}_probe")
    return run / "probe" if ckpt.stem == "last" else run / "probe" / ckpt.stem


def run_of(ckpt: Path) -> Path:
    """The run's folder where a checkpoint lies in its `checkpoints`, else the checkpoint's own folder."""
    folder = ckpt.absolute().parent
    return folder.parent if folder.name == "checkpoints" else folder
