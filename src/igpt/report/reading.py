"""probe.json and scores.json as records; what is not as it should be is one line that names the file."""

import json
from pathlib import Path
from typing import Any

from igpt.errors import UserError
from igpt.report.records import Data, LayerScore, Likelihood, LowData, MethodResult, Probe, Protocol, Score

NUMBER = (int, float)
UNKNOWN = Data("unknown data")
NO_DATA = {"batch_size", "num_workers", "device_gib", "augment", "download", "verify"}  # of a run, not of its data
NO_DATA |= {"labels_per_class", "subset_seed", "fold_validation", "split"}
CHOSEN = ("strength", "rate", "k")  # what each way of probing chooses on validation


class Fields:
    """A JSON object of a file; asking for a field that is missing or of another type is a UserError."""

    def __init__(self, content: Any, path: Path, again: str) -> None:
        self.path, self.again = path, again
        if not isinstance(content, dict):
            raise self.off("it does not hold what it should")
        self.content = content

    def off(self, what: str) -> UserError:
        """The line about this file."""
        return UserError(f"{self.path}: {what}; make it again with '{self.again}', or move it away")

    def need(self, name: str, kind: type | tuple[type, ...]) -> Any:
        """The value of a field that must be there."""
        value = self.content.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.off(f"field '{name}' is missing or off")
        return value

    def may(self, name: str, kind: type | tuple[type, ...]) -> Any:
        """The value of a field, or None where there is none."""
        return None if self.content.get(name) is None else self.need(name, kind)

    def inside(self, content: Any) -> "Fields":
        """An object within the same file."""
        return Fields(content, self.path, self.again)

    def all_inside(self, name: str) -> list["Fields"]:
        """A list of objects; empty where there is none."""
        return [self.inside(item) for item in self.may(name, list) or []]


def open_json(path: Path, again: str) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON; make it again with '{again}', or move it away") from error


def mapping(value: Any) -> dict[str, Any]:
    """A value if it is a mapping, else an empty one: for what is optional in files that were read as a whole."""
    return value if isinstance(value, dict) else {}


def data_of(spec: Any, identity: Any = None) -> Data:
    """A data module's specification; unknown where there is none. Without an identity, its arguments stand for it."""
    if not isinstance(spec, dict) or not isinstance(spec.get("class_path"), str):
        return UNKNOWN
    given = mapping(spec.get("init_args"))
    split = {**given, **mapping(given.get("split"))}  # before there was `split`, its options stood beside the others
    return Data(
        spec["class_path"].rpartition(".")[2],
        given.get("resolution"),
        given.get("seed"),
        split.get("val_share"),
        bool(split.get("fold_validation", False)),
        split.get("labels_per_class"),
        split.get("subset_seed"),
        given.get("batch_size"),
        known_of(identity) or arguments_of(given, split),
        arguments=arguments_of(given, split),
    )


def known_of(identity: Any) -> str | None:
    """What tells data from others: their identity, but for the folder they lie in; None in older records."""
    if not isinstance(identity, dict):
        return None
    return json.dumps({name: value for name, value in identity.items() if name != "root"}, sort_keys=True)


def arguments_of(given: dict[str, Any], split: dict[str, Any]) -> str:
    """All that older versions tell of data of one name and size."""
    kept = {name: value for name, value in given.items() if name not in NO_DATA}
    return json.dumps({**kept, "val_share": split.get("val_share")}, sort_keys=True, default=str)


def read_probe(path: Path) -> Probe:
    """One probe.json, also of versions that knew one method only.

    Raises:
        UserError: it is not JSON, or a field is missing or off.
    """
    record = Fields(open_json(path, "igpt probe"), path, "igpt probe")
    method = record.need("method", str)
    methods = {name: read_method(name, record.inside(r)) for name, r in (record.may("methods", dict) or {}).items()}
    if method not in methods:
        methods[method] = read_method(method, record)
    images = {name: count for name, count in (record.may("images", dict) or {}).items() if isinstance(count, int)}
    return Probe(
        step=record.need("step", int),
        data=data_of(record.need("data", dict), record.content.get("identity")),
        method=method,
        methods=methods,
        protocol=read_protocol(record),
        images=images,
        low_data=[read_low_data(entry) for entry in record.all_inside("low_data")],
        command=record.may("command", str),
    )


def read_method(name: str, record: Fields) -> MethodResult:
    """All layers under one method."""
    layers = [read_layer(row) for row in record.all_inside("layers")]
    raw, concat = record.may("raw_pixels", dict), record.may("concat", dict)
    result = MethodResult(
        name,
        layers,
        record.need("best_layer", int),
        read_layer(record.inside(raw)) if raw else None,
        record.may("protocol", str) or record.may("strength", str),
        read_layer(record.inside(concat)) if concat else None,
    )
    if (result.best_layer,) not in [score.layers for score in layers]:
        raise record.off(f"field 'layers' lacks the best layer, {result.best_layer}")
    return result


def read_layer(row: Fields) -> LayerScore:
    """One row: which layers, what validation chose, and the accuracies."""
    several = row.may("layers", list)
    layer = row.may("layer", int)
    layers = tuple(several) if several else () if layer is None else (layer,)
    chosen = [(name, row.may(name, NUMBER)) for name in CHOSEN]
    text = ", ".join(f"{name} {value:g}" for name, value in chosen if value is not None)
    return LayerScore(layers, row.may("val_accuracy", NUMBER), float(row.need("test_accuracy", NUMBER)), text)


def read_protocol(record: Fields) -> Protocol:
    """What counted as features; a file of a version without choices says it in words, and it was the paper's way."""
    features = record.content.get("features")
    if not isinstance(features, dict):
        return Protocol("normed", 1, 0, True, None) if isinstance(features, str) else Protocol()
    given = record.inside(features)
    return Protocol(
        given.may("norm", str),
        given.may("grid", int),
        given.may("masks", int),
        given.may("standardise", bool),
        given.may("dtype", str),
    )


def read_low_data(entry: Fields) -> LowData:
    """Test accuracies of all subsets of one size."""
    runs = [float(run.need("test_accuracy", NUMBER)) for run in entry.all_inside("runs")]
    return LowData(entry.need("labels_per_class", int), runs)


def read_scores(path: Path) -> list[Score]:
    """scores.json.

    Raises:
        UserError: it is not JSON, or a field is missing or off.
    """
    again = "igpt test"
    content = open_json(path, again)
    if not isinstance(content, list):
        raise UserError(f"{path}: it does not hold a list; make it again with '{again}', or move it away")
    return [read_score(Fields(entry, path, again)) for entry in content]


def read_score(entry: Fields) -> Score:
    """One entry of scores.json."""
    metrics = {name: float(value) for name, value in entry.need("metrics", dict).items() if isinstance(value, NUMBER)}
    likelihood = entry.may("likelihood", dict)
    data = entry.content.get("data")
    return Score(
        verb=entry.need("verb", str),
        metrics=metrics,
        checkpoint=Path(entry.may("checkpoint", str) or "").name,
        step=entry.may("step", int),
        model=entry.may("model", dict) or {},
        data=data_of(data, entry.content.get("identity")) if data else None,
        likelihood=read_likelihood(entry.inside(likelihood)) if likelihood else None,
        precision=entry.may("precision", str),
        command=entry.may("command", str),
        limited=entry.content.get("limit_batches") is not None,
    )


def read_likelihood(record: Fields) -> Likelihood:
    """Mean and deviation over images, in nats per pixel."""
    mean, deviation = (float(record.need(name, NUMBER)) for name in ("mean_nats", "std_nats"))
    return Likelihood(record.need("images", int), mean, deviation)
