"""Splits and classes given by folders: finding, ordering and reading them."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from igpt.data import SPLITS, Split, UserError
from igpt_datamodules.files.stored import shown
from igpt_datamodules.files.walking import Skipped, files_below, left_out, refuse_folder, unreadable_name

ClassOrder = Literal["natural", "sorted"] | list[str]

SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {  # names in small letters; people write them in any
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
OUTSIDE = "outside of the class folders"


class Labelled(NamedTuple):
    """The files of a folder of class folders, in the order of their paths, their labels, and what is left out."""

    files: list[str]
    labels: list[int]
    unused: Skipped


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the folders inside a folder, sorted; what is hidden or of the system is left out."""
    try:
        return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not left_out(entry.name)))
    except OSError as error:
        refuse_folder(error)
        raise


def split_folders(root: Path) -> dict[Split, Path]:
    """The folders of a root that are named after splits: Train, valid, TEST and so on; only one for each split."""
    found: dict[Split, Path] = {}
    for name in class_folders(root):
        for split in SPLITS:
            if name.lower() in SPLIT_FOLDERS[split]:
                if split in found:
                    raise UserError(f"folder {root} has {found[split].name} and {name}; keep one as its {split} split")
                found[split] = root / name
    return found


def ordered(names: Sequence[str], order: ClassOrder) -> tuple[str, ...]:
    """Names of classes in the order of their labels: as people count, by code point, or as listed."""
    if isinstance(order, list):
        return tuple(order)
    return tuple(sorted(names, key=as_people_count if order == "natural" else None))


def as_people_count(name: str) -> tuple[list[str | int], str]:
    """A key by which 2 stands before 10."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if odd % 2 else part for odd, part in enumerate(parts)], name


def no_folder(path: Path) -> str:
    """What is wrong with a path that is no folder: the beginning of an error."""
    if path.exists():
        return f"{path} is a file, not a folder (an archive must be unpacked)"
    return f"folder {path} is missing"


def labelled_files(folder: Path, classes: Sequence[str]) -> Labelled:
    """The images in FOLDER/CLASS/..., sorted by path, and their labels, the places of their classes in `classes`.

    Raises:
        UserError: the folder is missing, has no class folders or images, or has a class that is not in `classes`.
    """
    if not folder.is_dir():
        raise UserError(f"{no_folder(folder)}; put class folders with images into it")
    here = class_folders(folder)
    if not here:
        raise UserError(f"folder {folder} has no class folders; sort its images into {folder}/CLASS/")
    if unknown := sorted(set(here) - set(classes)):
        raise UserError(f"folder {folder / unknown[0]}: no class of the training images; rename or remove it")
    paths, unused = files_below(folder)
    place = {name: label for label, name in enumerate(classes)}
    files, labels = [], []
    for path in paths:
        name, inside, _ = os.path.relpath(path, folder).partition(os.sep)
        if inside:
            files.append(path)
            labels.append(place[name])
        else:
            unused.append((shown(path), OUTSIDE))
    if not files:
        raise UserError(f"folder {folder} has no images in its class folders; put some there")
    return Labelled(files, labels, unused)


def training_files(folder: Path, order: ClassOrder = "sorted") -> tuple[tuple[str, ...], Labelled]:
    """The classes of a training folder in the order of their labels, and its images; see `labelled_files`."""
    classes = ordered(class_folders(folder) if folder.is_dir() else (), order)
    found = labelled_files(folder, classes)
    if empty := sorted(set(range(len(classes))) - set(found.labels)):
        raise UserError(f"class folder {folder / classes[empty[0]]} has no images; add some or remove it")
    return classes, found


def beside(root: Path, used: Sequence[Path]) -> tuple[list[str], Skipped]:
    """Names of the folders of a root that are not used, and its files and other folders with why they are not."""
    names = {folder.name for folder in used}
    folders, unused = [], []
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if entry.name in names:
            continue
        why = left_out(entry.name)
        if not why and entry.is_dir():
            folders.append(shown(entry.name))
            why = "folder beside the splits"
        unused.append((shown(entry.path), why or unreadable_name(entry.name) or OUTSIDE))
    return folders, unused
