"""`igpt probe`: how much a simple classifier can read from the features of every layer."""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from igpt.data import SPLITS, ImageDataModule
from igpt.families import LoadedSource, ProbedSource, open_checkpoint, open_subject
from igpt.model import FeatureOptions
from igpt.modules import Loaded, PixelModule
from igpt.parsing import command_line
from igpt.probing import (
    NOTHING,
    FeatureStore,
    FeatureType,
    ProbeMethod,
    ProbeOptions,
    ProbeReport,
    ProbeTask,
    asked_for,
    check_results,
    check_saving,
    count_classes,
    earlier_report,
    image_likelihood,
    low_data,
    measured,
    methods_named,
    run_method,
    saved_probe,
    stored_features,
    subset_indices,
    subsets_of,
    worth_compiling,
)
from igpt.system import Precision, UserError, allow_tf32, compute_of, only_writer, reader
from igpt.training import ready

FEW = 200  # images of a split, below which a probe says how little they tell


def probe(
    ckpt: str | None = None,
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
    epochs: int | None = None,
    out: str | None = None,
    accelerator: str = "auto",
    precision: Precision = "auto",
    tf32: bool = True,
    compile: bool | None = None,
    save: bool = False,
    source: str | None = None,
    weights: str | None = None,
) -> None:
    """Fit a classifier on the features of every layer, and print and write its accuracy (paper, section 2.4).

    Features are means over positions of each block's normed input. Penalty, rate or number of neighbours are chosen on
    the validation split, and the test split is looked at once. Writes probe.json, probe.csv and layers.png after each
    method; the same command again goes on after the last one that was written. probe.json also has the likelihood of
    up to 1,000 test images, of a network that has one.

    Args:
        ckpt: checkpoint of igpt, of any family.
        data: whose images to probe with; the data that the checkpoint was trained on if left out.
        layers: "all", or numbers from 0 (input of the first block) to L (final norm), such as 0,4,8.
        method: lbfgs (the paper's for CIFAR and STL), sgd (its way for ImageNet, for data too large for lbfgs), knn,
            attentive (reads tokens by attention instead of their mean), several such as lbfgs,knn, or all, which is
            all but attentive.
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
        epochs: of the sgd and attentive probes, passes over the training images; if left out 100 of sgd, about what
            the paper's million steps are, and 15 of attentive, or as many as make 450 steps.
        out: folder to write to; "probe" in the run's folder if left out (probe/step=N for a checkpoint of step N).
        accelerator: where the network runs, as in Lightning: auto, cpu, gpu, cuda, mps.
        precision: of the network, as in Lightning: 32-true, bf16-mixed, 16-mixed; auto is what is quickest here.
        tf32: on CUDA, let float32 products of the network round to TF32; those of the probes never do.
        compile: compile each block first, a quarter of a minute; if left out, on CUDA where features take minutes.
        save: keep the lbfgs probe of the best layer as probe.safetensors, for `igpt classify --probe` and `igpt.load`.
        source: in place of a checkpoint: a plug-in's name, or torchvision:NAME, such as torchvision:resnet18.
        weights: of the source, a state dict's file; "random" leaves a torchvision network as it begins.

    Raises:
        UserError: no such checkpoint, layer or method, the data have no labels, or a store does not fit.
    """
    name, loaded = subject(ckpt, source, weights)
    if compile and isinstance(loaded, LoadedSource):
        raise UserError("--compile is for igpt's own networks; leave it out for a source")
    how = FeatureOptions(norm, grid, masks)
    options = ProbeOptions(layers, concat, labels_per_class, subsets, how, standardise, dtype, epochs)
    options.check(loaded.module)
    methods = methods_named(method)
    for one in methods:
        one.check(options, loaded.module)
    compute = ready(compute_of(accelerator, precision), tf32)
    started = time.perf_counter()
    run = Path("runs", re.sub(r"[^\w.-]+", "_", name)) if source else run_of(Path(name))
    folder = Path(out) if out else run / "probe" if source else default_folder(Path(name))
    if save:
        check_saving(methods, folder, loaded.module)
    data = data_to_probe(data, loaded)
    if isinstance(loaded.module, PixelModule):
        images = sum(data.size(split) for split in SPLITS)
        pays = worth_compiling(loaded.module, images, compute)
        loaded.module.core.compile_blocks = pays if compile is None else compile
    task = ProbeTask(loaded, data, count_classes(data), options, folder, compute)
    few = subsets_of(data, options)
    check_results(folder)
    with only_writer(folder, "give another --out"), nullcontext() if out else reader(run):
        about, asked = protocol(name, task), asked_for(task, methods)
        earlier = earlier_report(folder, about, asked)
        kept = earlier.kept(asked) if earlier else NOTHING
        have = measured(kept.results, kept.low_data)
        left = [one for one in methods if one.name not in have]
        if have:
            print(f"kept {listed(have)}: {folder / 'probe.json'} has them, measured in the same way")
        more = {count: some for count, some in few.items() if count not in have}
        begun = replace(kept, protocol=about, likelihood=kept.likelihood or image_likelihood(task))
        if any(one.stored(task) for one in left) or more or save:
            task = replace(task, features=features_for(task, store))
        allow_tf32(False)  # the probes are small, and choices on validation hang on their last digits
        for report in growing(begun, task, methods, more):
            names, aside = report.write(folder, earlier)
            earlier = earlier or NOTHING
            if aside:
                print(f"{folder} held a probe of another checkpoint, other data or options, which is now {aside}")
        if save:
            names = [*names, saved_probe(task, report.results).save(folder).name]
    if isinstance(loaded, LoadedSource):
        print(f"layers: {', '.join(f'{number} {one}' for number, one in enumerate(loaded.module.source.layers))}")
    print(report.text())
    tested = data.size("test")
    if min(tested, data.size("val")) < FEW:
        error = f"{100 * (0.25 / tested) ** 0.5:.0f} points"
        print(f"only {data.size('val')} validation and {tested} test images: accuracies are good to about {error}")
    print(f"wrote {folder / names[0]}, {', '.join(names[1:])} in {time.perf_counter() - started:.1f} s")


def growing(
    report: ProbeReport, task: ProbeTask, methods: list[ProbeMethod], few: dict[int, list[list[int]]]
) -> Iterator[ProbeReport]:
    """The report with one more method or size of subsets each time, to be written before the next one is asked for.

    Methods that it has are not run again; one that lacks nothing comes once, as it is.
    """
    if not few and len(report.results) == len(methods):
        yield report
    for index, method in enumerate(methods):
        if all(found.method != method for found in report.results):
            new = run_method(method, task)
            report = replace(report, results=[*report.results[:index], new, *report.results[index:]])
            yield report
            new.forget(task)
    for count, some in few.items():
        rows = [*report.low_data, *low_data(task, {count: some})]
        indices = {**report.low_data_indices, **subset_indices(task.data, {count: some})}
        report = replace(report, low_data=rows, low_data_indices=indices)
        yield report


def listed(have: Iterable[str | int]) -> str:
    """Methods and sizes of subsets in words."""
    return ", ".join(one if isinstance(one, str) else f"{one} labels a class" for one in have)


def features_for(task: ProbeTask, store: str | None) -> FeatureStore:
    """The features of all layers, from `store` or from beside the results, made where they are not there yet."""
    started = time.perf_counter()
    features, reused = stored_features(
        task.loaded.module,
        task.loaded.sha256,
        task.data,
        task.layers,
        task.options.features,
        folder=Path(store) if store else task.folder / "features",
        own=store is not None,
        dtype=task.options.stored_as,
        compute=task.compute,
    )
    how = "reused" if reused else f"written in {time.perf_counter() - started:.1f} s"
    print(f"features of {len(task.layers)} layers: {features.folder}, {features.bytes / 1e6:,.1f} MB, {how}")
    return features


def subject(ckpt: str | None, source: str | None, weights: str | None) -> tuple[str, Loaded | LoadedSource]:
    """What is probed, and the name that it was given by.

    Raises:
        UserError: neither or both of checkpoint and source are named, or the one that is named cannot be opened.
    """
    if (ckpt is None) == (source is None):
        raise UserError("give either --ckpt, a checkpoint or a run, or --source, such as torchvision:resnet18")
    if ckpt is None:
        assert source is not None
        return source, open_subject(source, **({} if weights is None else {"weights": weights}))
    if weights is not None:
        raise UserError(f"--weights {weights} is of a --source; a checkpoint has its own")
    linked = Path(ckpt).is_file() and Path(ckpt).is_symlink()
    return ckpt, open_checkpoint(str(Path(ckpt).resolve()) if linked else ckpt)  # a link may lead elsewhere meanwhile


def data_to_probe(data: ImageDataModule | None, loaded: Loaded | LoadedSource) -> ImageDataModule:
    """The data given, or else those of the checkpoint, prepared, with training and validation apart."""
    data = data if data is not None else loaded.data()
    data.split = replace(data.split, fold_validation=False)
    loaded.module.core.check_resolution(data.shape)
    loaded.module.core.check_colors(data)
    data.prepare_data()
    return data


def protocol(name: str, task: ProbeTask) -> dict[str, Any]:
    """What was probed and how, for probe.json."""
    options, data, loaded = task.options, task.data, task.loaded
    standing = {"standardise": options.standardise, "dtype": options.stored_as, "precision": task.compute.precision}
    return {
        "command": command_line(),
        "checkpoint": name,
        "checkpoint_sha256": loaded.sha256,
        "step": loaded.step,
        **described(loaded.module),
        "data": data.spec(),
        "identity": data.identity(),
        "images": {name: data.size(name) for name in SPLITS},
        "features": {**options.features.to_dict(), **standing},
    }


def described(module: PixelModule | ProbedSource) -> dict[str, Any]:
    """Classes of a network and of its core; of a source, which is both, also the names of its layers."""
    if isinstance(module, PixelModule):
        return {"model": type(module).__name__, "objective": type(module.core).__name__}
    return {"model": module.name, "objective": module.name, "layer_names": list(module.source.layers)}


def default_folder(ckpt: Path) -> Path:
    """Default --out of a checkpoint: probe/ of its run for the last one, a folder of its own for others."""
    run = run_of(ckpt)
    if run == ckpt.absolute().parent:
        return ckpt.with_name(f"{ckpt.stem}_probe")
    return run / "probe" if ckpt.stem == "last" else run / "probe" / ckpt.stem


def run_of(ckpt: Path) -> Path:
    """The run's folder of a checkpoint in RUN/checkpoints, else the checkpoint's own folder."""
    folder = ckpt.absolute().parent
    return folder.parent if folder.name == "checkpoints" else folder
