"""The same picture in two splits, byte for byte: evaluation would then ask for what training has seen."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

from igpt.data import BadImageError, ChosenImages, LabelledImages
from igpt_datamodules.listing import StoredList
from igpt_datamodules.reading import Stored
from igpt_datamodules.walking import NAMED

MOST = 50_000  # images among which equal ones are looked for at every start
HEAD = 4096  # bytes that tell most pictures of one size apart

Key = tuple[int, bytes]


class Twin(NamedTuple):
    """An image whose bytes an image of an earlier split has, too."""

    split: str
    image: Stored
    earlier: str
    same: Stored


def stored_of(images: LabelledImages) -> StoredList:
    """Where the images of a split are, whatever part of the whole it is."""
    if isinstance(images, ChosenImages):
        return stored_of(images.base).take(images.indices.numpy())
    return cast(StoredList, images.stored)  # type: ignore[attr-defined]


def twins(splits: Mapping[str, StoredList]) -> list[Twin]:
    """Images of later splits that are in an earlier one under another name; only files of equal size are read."""
    by_size = shared({name: [(size_of(one), b"") for one in stored] for name, stored in splits.items()})
    by_head = shared(refined(splits, by_size, lambda one: digest(one, HEAD)))
    by_content = shared(refined(splits, by_head, lambda one: digest(one)))
    found: list[Twin] = []
    known: dict[Key, tuple[str, Stored]] = {}
    for name, keys in by_content.items():
        rows = [(key, splits[name][row]) for row, key in enumerate(keys) if key is not None]
        found += [Twin(name, one, *known[key]) for key, one in rows if key in known and known[key][1] != one]
        for key, one in rows:
            known.setdefault(key, (name, one))
    return found


def shared(keys: Mapping[str, list[Key | None]]) -> dict[str, list[Key | None]]:
    """The same keys, None for those that only one split has."""
    times = Counter(key for found in keys.values() for key in set(found) - {None})
    return {name: [key if times[key] > 1 else None for key in found] for name, found in keys.items()}


def refined(
    splits: Mapping[str, StoredList], keys: Mapping[str, list[Key | None]], look: Callable[[Stored], bytes]
) -> dict[str, list[Key | None]]:
    """Keys that also tell what `look` sees of each image; one that cannot be read equals none."""

    def key_of(one: Stored, key: Key | None) -> Key | None:
        try:
            return None if key is None else (key[0], look(one))
        except (OSError, BadImageError):
            return None

    return {name: [key_of(one, key) for one, key in zip(splits[name], keys[name], strict=True)] for name in splits}


def size_of(stored: Stored) -> int:
    """Bytes of an image; -1 where its file is not there."""
    try:
        return stored.size if stored.member else os.stat(stored.file).st_size
    except OSError:
        return -1


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
