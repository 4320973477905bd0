"""probe.json and scores.json as records; what is not as it should be is one line that names the file."""

import math
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

from igpt.report.fields import (
    Fields,
    again,
    is_count,
    is_flag,
    is_integer,
    is_list,
    is_mapping,
    is_number,
    is_share,
    is_text,
    open_json,
)
from igpt.report.leaving import Say, attempt
from igpt.report.records import Data, LayerScore, Likelihood, LowData, MethodResult, Probe, Protocol, Score
from igpt.system import UserError

UNKNOWN = Data("unknown data")
NO_DATA = {"batch_size", "num_workers", "device_gib", "augment", "download", "verify"}  # of a run, not of its data
NO_DATA |= {"labels_per_class", "subset_seed", "fold_validation", "split"}
CHOSEN = ("strength", "rate", "k")  # what each way of probing chooses on validation
ACCURACIES = {"test/accuracy", "val/accuracy"}
MOVED = re.compile(r"\.\d+$")  # what a folder's name ends in that a later probe moved aside


def data_of(record: Fields) -> Data:
    """What a record's `data` and `identity` say; without an identity, the arguments of the data stand for it.

    Raises:
        UserError: one of them is off.
    """
    spec, identity = record.inside("data"), record.inside("identity")
    if "class_path" not in spec.content:
        return UNKNOWN
    given = spec.inside("init_args")
    split = given.inside("split").content  # before there was `split`, its options stood beside the others
    either = Fields({**given.content, **split}, record.path, record.remedy, given.place)
    arguments = arguments_of(given, either)
    return Data(
        name=spec.need("class_path", is_text).rpartition(".")[2],
        resolution=given.may("resolution", is_count),
        seed=given.may("seed", is_integer),
        val_share=either.may("val_share", is_number),
        folded=bool(either.may("fold_validation", is_flag)),
        labels_per_class=either.may("labels_per_class", is_count),
        subset_seed=either.may("subset_seed", is_integer),
        batch_size=given.may("batch_size", is_count),
        known=known_of(identity) or arguments,
        arguments=arguments,
        root=identity.may("root", is_text),
        fingerprint=identity.may("fingerprint", is_text),
        classes=identity.may("classes", is_count),
    )


def known_of(identity: Fields) -> str | None:
    """What tells data from others: their identity, but for the folder they lie in; None in older records."""
    kept = {name: value for name, value in identity.content.items() if name != "root"}
    return identity.as_text(kept) if kept else None


def arguments_of(given: Fields, either: Fields) -> str:
    """All that older versions tell of data of one name and size."""
    kept = {name: value for name, value in given.content.items() if name not in NO_DATA}
    return given.as_text({**kept, "val_share": either.content.get("val_share")})


def read_probes(folder: Path, say: Say) -> list[Probe]:
    """All probe.json of a run by step; of two of one step, the one that stands in the folder `probe` itself.

    Those that a later probe has moved aside are figures of the run no more: see `read_aside`.
    """
    by_step = {probe.step: probe for probe in every_probe(folder, say)}
    return [by_step[step] for step in sorted(by_step)]


def every_probe(folder: Path, say: Say) -> list[Probe]:
    """All probe.json of a run but those that were moved aside, the one in the folder `probe` itself last."""
    steps = [path for path in sorted(folder.glob("probe/*/probe.json")) if not MOVED.search(path.parent.name)]
    return read_all([*steps, *folder.glob("probe/probe.json")], say)


def read_aside(folder: Path, say: Say) -> list[Probe]:
    """What later probes of another checkpoint, other data or options moved aside, in the order of their folders."""
    files = [*folder.glob("probe.*/probe.json"), *folder.glob("probe/*/probe.json")]
    return read_all(sorted((path for path in files if MOVED.search(path.parent.name)), key=in_order), say)


def in_order(path: Path) -> tuple[str, int]:
    """A file that was moved aside by its folder's name, 2 before 10."""
    name, _, number = str(path.parent).rpartition(".")
    return name, int(number)


def read_all(files: list[Path], say: Say) -> list[Probe]:
    """The probes that can be read."""
    found = [attempt(partial(read_probe, path), say, None) for path in files]
    return [probe for probe in found if probe]


def read_probe(path: Path) -> Probe:
    """One probe.json, also of versions that knew one method only.

    Raises:
        UserError: it is not JSON, or a field is missing or off.
    """
    remedy = again("igpt probe")
    record = Fields(open_json(path, remedy), path, remedy)
    record.need("data", is_mapping)
    method, methods = record.need("method", is_text), record.inside("methods")
    results = {name: read_method(name, methods.inside(name)) for name in methods.content}
    if method not in results:
        results[method] = read_method(method, record)
    images = record.inside("images")
    return Probe(
        step=record.need("step", is_count),
        data=data_of(record),
        method=method,
        methods=results,
        protocol=read_protocol(record),
        images={name: images.need(name, is_count) for name in images.content},
        low_data=[read_low_data(entry) for entry in record.all_inside("low_data")],
        command=record.may("command", is_text),
        checkpoint=record.may("checkpoint", is_text),
        checkpoint_sha256=record.may("checkpoint_sha256", is_text),
        folder=path.parent,
    )


def read_method(name: str, record: Fields) -> MethodResult:
    """All layers under one method."""
    layers = [read_layer(row, (row.need("layer", is_count),)) for row in record.all_inside("layers")]
    raw, concat = record.inside("raw_pixels"), record.inside("concat")
    result = MethodResult(
        name,
        layers,
        record.need("best_layer", is_count),
        read_layer(raw, ()) if raw.content else None,
        record.may("protocol", is_text) or record.may("strength", is_text),
        read_layer(concat, side_by_side(concat)) if concat.content else None,
    )
    if (result.best_layer,) not in [score.layers for score in layers]:
        raise record.off(f"field '{record.at('layers')}' lacks the best layer, {result.best_layer}")
    return result


def side_by_side(row: Fields) -> tuple[int, ...]:
    """The layers that were probed together."""
    layers = row.need("layers", is_list)
    if not all(map(is_count, layers)):
        raise row.off(f"field '{row.at('layers')}' is off")
    return tuple(layers)


def read_layer(row: Fields, layers: tuple[int, ...]) -> LayerScore:
    """One row: what validation chose, and the accuracies."""
    chosen = [(name, row.may(name, is_number)) for name in CHOSEN]
    text = ", ".join(f"{name} {value:g}" for name, value in chosen if value is not None)
    return LayerScore(layers, row.may("val_accuracy", is_share), float(row.need("test_accuracy", is_share)), text)


def read_protocol(record: Fields) -> Protocol:
    """What counted as features; a file of a version without choices says it in words, and it was the paper's way."""
    if is_text(record.content.get("features")):
        return Protocol("normed", 1, 0, True, None)
    given = record.inside("features")
    return Protocol(
        given.may("norm", is_text),
        given.may("grid", is_count),
        given.may("masks", is_count),
        given.may("standardise", is_flag),
        given.may("dtype", is_text),
    )


def read_low_data(entry: Fields) -> LowData:
    """Test accuracies of all subsets of one size."""
    runs = [float(run.need("test_accuracy", is_share)) for run in entry.all_inside("runs")]
    return LowData(entry.need("labels_per_class", is_count), runs)


def read_scores(path: Path, say: Say) -> list[Score]:
    """The entries of scores.json that can be read; none where there is no such file.

    Raises:
        UserError: it is not JSON, or no list.
    """
    if not os.path.lexists(path):
        return []
    remedy = again("igpt test")
    content = open_json(path, remedy)
    if not isinstance(content, list):
        raise UserError(f"{path}: it does not hold a list; {remedy}")
    entries = [partial(read_entry, entry, path, index) for index, entry in enumerate(content)]
    found = [attempt(entry, say, None) for entry in entries]
    return [score for score in found if score]


def read_entry(content: Any, path: Path, index: int) -> Score:
    """One entry of scores.json: its evaluation, its data and its figures.

    Raises:
        UserError: a field is missing or off.
    """
    entry = Fields(content, path, again("igpt test"), f"[{index}]")
    likelihood = entry.inside("likelihood")
    return Score(
        verb=entry.need("verb", is_text),
        metrics=read_metrics(entry),
        checkpoint=Path(entry.may("checkpoint", is_text) or "").name,
        step=entry.may("step", is_count),
        model=entry.inside("model").content,
        data=data_of(entry) if entry.may("data", is_mapping) else None,
        likelihood=read_likelihood(likelihood) if likelihood.content else None,
        precision=entry.may("precision", is_text),
        command=entry.may("command", is_text),
        limited=entry.content.get("limit_batches") is not None,
    )


def read_metrics(entry: Fields) -> dict[str, float]:
    """The figures of one evaluation, those that a user's module logged among them, of which nothing is expected.

    The losses of a network that diverged are no numbers, but figures all the same.
    """
    metrics = Fields(entry.need("metrics", is_mapping), entry.path, entry.remedy, entry.at("metrics"))
    for name in metrics.content:
        if name in ACCURACIES:
            metrics.need(name, is_share)
        elif name.endswith("loss"):
            metrics.need(name, is_loss)
    return {name: float(value) for name, value in metrics.content.items() if is_float(value) or is_integer(value)}


def is_float(value: Any) -> bool:
    """Whether it is a number as networks give them, NaN among them."""
    return isinstance(value, float)


def is_loss(value: Any) -> bool:
    """Whether it is a number, or what a number becomes in a network that diverged."""
    return is_number(value) or (is_float(value) and not math.isfinite(value))


def read_likelihood(record: Fields) -> Likelihood:
    """Mean and deviation over images, in nats per pixel."""
    mean, deviation = (float(record.need(name, is_number)) for name in ("mean_nats", "std_nats"))
    return Likelihood(record.need("images", is_count), mean, deviation)
