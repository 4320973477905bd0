"""Decodes every image once before training, to find those that are broken."""

import torch
from torch.utils.data import Dataset

from igpt.data import BadImageError, UserError, WatchedLoader, begin_worker
from igpt_datamodules.files.stored import StoredList, read_rgb
from igpt_datamodules.files.walking import Skipped, summary


class _Reasons(Dataset[str]):
    """Why an image is bad, or an empty string."""

    def __init__(self, stored: StoredList) -> None:
        self.stored = stored

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int) -> str:
        try:
            read_rgb(self.stored[index])
        except BadImageError as error:
            return str(error)
        return ""


def bad_images(stored: StoredList, num_workers: int = 0) -> list[str]:
    """For each image why it cannot be used, or an empty string: all of them are decoded, in so many processes."""
    loader = WatchedLoader(
        _Reasons(stored), batch_size=64, num_workers=num_workers, collate_fn=list, worker_init_fn=begin_worker
    )
    state = torch.get_rng_state()  # a loader draws a number; looking at files must not change what training draws
    reasons = [reason for batch in loader for reason in batch]
    torch.set_rng_state(state)
    return reasons


def check_bad(who: str, root: str, bad: Skipped, count: int, most: float) -> None:
    """Raise a UserError where more than a share `most` of `count` files is bad: it is probably the wrong folder."""
    if len(bad) > most * count:
        raise UserError(
            f"{who}: {summary(bad)}, of {count:,} in {root}, more than max_bad_share {most}; mend them or raise "
            "--data.init_args.max_bad_share"
        )
