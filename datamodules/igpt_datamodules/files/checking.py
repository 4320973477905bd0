"""Looks at every image once before training: those that are broken, and those with transparent pixels."""

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
from torch.utils.data import Dataset

from igpt.data import BadImageError, UserError, WatchedLoader, begin_worker, is_transparent, with_progress
from igpt_datamodules.files.stored import Picture, Pictures, read_rgb
from igpt_datamodules.files.walking import Skipped, summary

T = TypeVar("T")
P = TypeVar("P", bound=Pictures)


class _Looks(Dataset[T]):
    """What a function says of each image."""

    def __init__(self, stored: Pictures, look: Callable[[Picture], T]) -> None:
        self.stored, self.look = stored, look

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int) -> T:
        return self.look(self.stored[index])


def _looked_at(stored: Pictures, look: Callable[[Picture], T], num_workers: int, what: str) -> list[T]:
    loader = WatchedLoader(
        _Looks(stored, look), batch_size=64, num_workers=num_workers, collate_fn=list, worker_init_fn=begin_worker
    )
    state = torch.get_rng_state()  # a loader draws a number; looking at files must not change what training draws
    found = list(with_progress((one for batch in loader for one in batch), len(stored), f"images: {what}", quiet=True))
    torch.set_rng_state(state)
    return found


def bad_images(stored: Pictures, num_workers: int = 0) -> list[str]:
    """For each image why it cannot be used, or an empty string: all of them are decoded, in so many processes."""
    return _looked_at(stored, _reason, num_workers, "broken files")


def without_bad(
    who: str, root: str, parts: Sequence[tuple[P, list[int]]], num_workers: int, most: float
) -> tuple[list[tuple[P, list[int]]], Skipped]:
    """The images and labels of several splits without those that give no picture, and these with why.

    Raises:
        UserError: see `check_bad`.
    """
    bad: Skipped = []
    good = []
    for stored, labels in parts:
        reasons = bad_images(stored, num_workers)
        bad += [(stored[i].name, reason) for i, reason in enumerate(reasons) if reason]
        kept = [i for i, reason in enumerate(reasons) if not reason]
        good.append((cast(P, stored.take(kept)), [labels[i] for i in kept]))
    check_bad(who, root, bad, sum(len(labels) for _, labels in parts), most)
    return good, bad


def transparent_images(stored: Pictures, num_workers: int = 0) -> int:
    """How many images have pixels that are not opaque; only the heads of those that cannot have any are read."""
    return sum(_looked_at(stored, _transparent, num_workers, "transparency"))


def _reason(stored: Picture) -> str:
    try:
        read_rgb(stored)
    except BadImageError as error:
        return str(error)
    return ""


def _transparent(stored: Picture) -> bool:
    with stored.open() as stream:
        return is_transparent(stream)


def check_bad(who: str, root: str, bad: Skipped, count: int, most: float) -> None:
    """Raise a UserError where more than a share `most` of `count` files is bad: it is probably the wrong folder."""
    if len(bad) > most * count:
        raise UserError(
            f"{who}: {summary(bad)}, of {count:,} in {root}, more than max_bad_share {most}; mend them or raise "
            "--data.init_args.max_bad_share"
        )
