"""Duplicates across splits, byte for byte: test images that training has seen."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple, cast

from igpt.data import BadImageError, ChosenImages, LabelledImages
from igpt_datamodules.files.stored import Pictures, Stored, StoredList
from igpt_datamodules.files.walking import NAMED

MOST = 50_000  # images among which equal ones are looked for at every start
HEAD = 4096  # bytes that tell most pictures of one size apart

Place = tuple[int, tuple[str, Stored]]  # number among all images, its split, and the image


class Twin(NamedTuple):
    """An image whose bytes an image of an earlier split has, too."""

    split: str
    image: Stored
    earlier: str
    same: Stored


def stored_of(images: LabelledImages) -> Pictures:
    """Where the images of a split are, whatever part of the whole it is."""
    if isinstance(images, ChosenImages):
        return stored_of(images.base).take(images.indices.numpy())
    return cast(Pictures, images.stored)  # type: ignore[attr-defined]


def twins(splits: Mapping[str, StoredList]) -> list[Twin]:
    """Images of later splits that are in an earlier one under another name; only files of equal size are read."""
    groups = [list(enumerate((name, one) for name, stored in splits.items() for one in stored))]
    for key_of in (size_of, partial(digest, most=HEAD), digest):
        groups = [part for group in groups for part in divided(group, key_of)]
    found = [
        (place, Twin(name, one, *group[0][1]))
        for group in groups
        for place, (name, one) in group
        if name != group[0][1][0] and one != group[0][1][1]
    ]
    return [twin for _, twin in sorted(found, key=lambda pair: pair[0])]


def divided(group: list[Place], key_of: Callable[[Stored], object]) -> list[list[Place]]:
    """The parts of a group that agree in a key and are in several splits; what cannot be read equals nothing."""
    parts = defaultdict(list)
    for place in group:
        with suppress(OSError, BadImageError):
            parts[key_of(place[1][1])].append(place)
    return [part for part in parts.values() if len({name for _, (name, _) in part}) > 1]


def size_of(stored: Stored) -> int:
    """Bytes of an image."""
    return stored.size if stored.member else os.stat(stored.file).st_size


def digest(stored: Stored, most: int = -1) -> bytes:
    """Checksum of an image's bytes, or of the first `most`."""
    with stored.open() as stream:
        return hashlib.sha256(stream.read(most)).digest()


def said(found: list[Twin], sizes: Mapping[str, int]) -> str:
    """One clause for each pair of splits: how many images, and the first few."""
    clauses = []
    for pair in dict.fromkeys((twin.split, twin.earlier) for twin in found):
        here = [twin for twin in found if (twin.split, twin.earlier) == pair]
        first = ", ".join(f"{twin.image.name} = {twin.same.name}" for twin in here[:NAMED])
        clauses.append(f"{len(here):,} of {sizes[pair[0]]:,} {pair[0]} images are also in {pair[1]}: {first}")
    return "; ".join(clauses)
