"""Tables of the package `datasets`: finding, reading, and what their columns hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from io import BytesIO
from itertools import pairwise, starmap
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from igpt.data import NO_LABEL, SPLITS, BadImageError, Split, UserError
from igpt_datamodules import files

PARQUET = ".parquet"
SAVED = ("dataset_dict.json", "state.json")  # by which `load_from_disk` knows its folders
REASON = 200  # letters of what `datasets` says that messages show
OPTION = "--data.init_args."


def library() -> Any:
    """The package `datasets`, imported when first needed."""
    try:
        import datasets
    except ImportError as error:
        raise UserError("HuggingFace needs the package datasets: pip install 'igpt[datasets]'") from error
    return datasets


def read(path: str, name: str | None = None, revision: str | None = None) -> dict[str, Any]:
    """The splits of a data set, by the names that it gives them. No code that comes with it is executed.

    Raises:
        UserError: `datasets` is not installed, or there is no such data set, here or on the hub.
    """
    datasets, here = library(), Path(path)
    saved = any((here / file).is_file() for file in SAVED)
    if revision is not None and (here.exists() or path.endswith(PARQUET)):
        raise UserError(f"data.revision {revision} is for the hub, and {path} lies here; leave it out")
    if name is not None and (saved or path.endswith(PARQUET)):
        raise UserError(f"data.name {name} is no configuration of {path}, which has none; leave it out")
    try:
        if saved:
            found = datasets.load_from_disk(path)
        elif path.endswith(PARQUET):
            found = datasets.load_dataset("parquet", data_files=sorted(glob(path)))
        else:
            found = datasets.load_dataset(path, name, revision=revision)
    except Exception as error:  # of files, networks and hubs that are off it raises anything
        where = "cannot be read" if here.exists() else "is no folder or file here, and not to be had from the hub"
        reason = " ".join(str(error).split())[:REASON] or type(error).__name__
        raise UserError(f"data.path {path} {where} ({reason}); name another with {OPTION}path") from error
    return dict(found) if isinstance(found, dict) else {str(found.split or "train"): found}


def chosen_splits(path: str, there: Sequence[str], asked: Mapping[Split, str | None]) -> dict[Split, str]:
    """Which of the splits that are there are train, val and test: those asked for, or by their names.

    Raises:
        UserError: one that is asked for is not there, or none can be trained on.
    """
    has = f"{path} has {', '.join(there)}"
    found: dict[Split, str] = {}
    for split in SPLITS:
        name = asked[split]
        if name is not None and name not in there:
            raise UserError(f"data.{split}_split {name} is no split: {has}")
        free = [one for one in there if one.lower() in files.SPLIT_FOLDERS[split] and one not in asked.values()]
        if name is not None or free:
            found[split] = name or free[0]
    if len(there) == 1 and not any(asked.values()):
        return {"train": there[0]}
    if "train" not in found:
        raise UserError(f"data.train_split: {has}; name one of them with {OPTION}train_split")
    if len(set(found.values())) < len(found):
        raise UserError(f"data.train_split, val_split and test_split name a split twice; {has}")
    return found


def column_of(kind: str, path: str, features: Mapping[str, Any], asked: str | None, likely: Sequence[str]) -> str:
    """The column that is asked for, or the only likely one; a UserError that names the columns where it is neither."""
    if asked is not None and asked not in features:
        raise UserError(f"data.{kind}_column {asked} is no column: {path} has {', '.join(features)}")
    if asked is None and len(likely) != 1:
        raise UserError(
            f"data.{kind}_column: {path} has {', '.join(features)}; name the one of the {kind}s with "
            f"{OPTION}{kind}_column"
        )
    return asked or likely[0]


def image_column(path: str, features: Mapping[str, Any], asked: str | None) -> str:
    """The column of the pictures: the one asked for, or the only one that holds any."""
    pictures = [name for name, feature in features.items() if isinstance(feature, library().Image)]
    encoded = [name for name, feature in features.items() if holds_bytes(feature)]
    column = column_of("image", path, features, asked, pictures or encoded)
    if column not in (*pictures, *encoded) and not kind_of(features[column]).endswith("string"):
        raise UserError(f"data.image_column {column} holds {features[column]}, no pictures; name another")
    return column


def label_column(path: str, features: Mapping[str, Any], asked: str | None) -> str:
    """The column of the classes: the one asked for, the only one of `ClassLabel`, or "label"."""
    classes = [name for name, feature in features.items() if isinstance(feature, library().ClassLabel)]
    named = [name for name in features if name == "label"]
    return column_of("label", path, features, asked, classes if len(classes) == 1 else named)


def holds_bytes(feature: Any) -> bool:
    """Whether a column can hold encoded files, by its type."""
    return "bytes" in feature if isinstance(feature, dict) else kind_of(feature).endswith("binary")


def kind_of(feature: Any) -> str:
    """The type of a column of single values, such as int64 or large_string; of any other column nothing."""
    return str(feature.dtype) if isinstance(feature, library().Value) else ""


def class_labels(
    path: str, parts: Mapping[Split, tuple[str, Any]], column: str
) -> tuple[tuple[str, ...], dict[Split, list[int]]]:
    """The names of the classes and the labels of every split, NO_LABEL where a row has none.

    The classes of a `ClassLabel` keep their order; whole numbers and strings become classes as people count.

    Args:
        path: of the data set, for messages.
        parts: name and table of each split.
        column: of the labels.

    Raises:
        UserError: the column holds something else, a split has a class that train has not, or has no labels at all.
    """
    words = {split: label_words(column, table) for split, (_, table) in parts.items()}
    feature = parts["train"][1].features[column]
    found = [one for one in set(words["train"]) if one is not None]
    names = tuple(feature.names) if isinstance(feature, library().ClassLabel) else files.ordered(found, "natural")
    places = {name: label for label, name in enumerate(names)}
    for split, (name, _) in parts.items():
        known = set(words[split]) - {None}
        if not known:
            raise UserError(f"data.label_column {column}: {path} has no labels in {name}; name another split, or give "
                            "labels false")  # fmt: skip
        if unknown := sorted(str(one) for one in known if one not in places):
            raise UserError(f"data.label_column {column}: class {unknown[0]!r} of {name} is not among those of train")
    return names, {split: [NO_LABEL if one is None else places[one] for one in some] for split, some in words.items()}


def label_words(column: str, table: Any) -> list[str | None]:
    """The class of each row as a word, None where it has none."""
    if column not in table.features:
        return [None] * len(table)
    feature = table.features[column]
    values = table.with_format(None).select_columns([column])[:][column]
    if isinstance(feature, library().ClassLabel):
        return [feature.names[one] if one is not None and one >= 0 else None for one in values]
    if not kind_of(feature).removeprefix("large_").startswith(("string", "int", "uint", "bool")):
        raise UserError(f"data.label_column {column} holds {feature}, no classes; name another, or give labels false")
    return [None if one is None else str(one) for one in values]


def rows_of(parts: Mapping[str, Any], column: str) -> "Rows":
    """The pictures of all splits, one behind the other; a UserError where a split has no such column."""
    datasets = library()
    for name, part in parts.items():
        if column not in part.features:
            raise UserError(f"data.image_column {column} is no column of {name}, which has {', '.join(part.features)}")
    as_stored = datasets.Image(decode=False)
    tables = [part.with_format(None).select_columns([column]).cast_column(column, as_stored) for part in parts.values()]
    ends = np.cumsum([0, *map(len, tables)]).tolist()
    spans = dict(zip(parts, starmap(range, pairwise(ends)), strict=True))
    return Rows(datasets.concatenate_datasets(tables), column, spans)


class Rows:
    """The encoded pictures in a column of a table, one a row, read when needed; `take` gives some of them.

    Args:
        table: of all splits, one behind the other.
        column: that holds them, as bytes or as paths of files.
        spans: the rows of each split, by the names that reports give them.
    """

    def __init__(self, table: Any, column: str, spans: Mapping[str, range]) -> None:
        self.table, self.column, self.spans = table, column, spans
        self.rows: NDArray[np.int64] = np.arange(len(table))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> "Cell":
        return Cell(self, int(self.rows[index]))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> "Rows":
        """Some of the pictures, in this order."""
        part = Rows(self.table, self.column, self.spans)
        part.rows = self.rows[np.asarray(indices, dtype=np.int64)]
        return part


@dataclass(frozen=True)
class Cell:
    """One encoded picture."""

    rows: Rows
    row: int

    @property
    def name(self) -> str:
        """Its split and its number there: train[12]."""
        split, span = next((name, span) for name, span in self.rows.spans.items() if self.row in span)
        return f"{split}[{self.row - span.start}]"

    def open(self) -> BinaryIO:
        """The bytes, or the file that the row names; a BadImageError where it has neither."""
        found = self.rows.table[self.row][self.rows.column] or {}
        if found.get("bytes") is not None:
            return BytesIO(found["bytes"])
        if found.get("path") is None:
            raise BadImageError("no picture")
        return files.Stored(found["path"]).open()
