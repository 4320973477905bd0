"""Data sets that torchvision knows how to find, check and download, with one-line errors."""

from collections.abc import Callable
from typing import Any, TypeVar

from igpt.data import UserError

Parts = TypeVar("Parts")


def find_or_download(kind: Any, root: str, download: bool, read: Callable[[bool], Parts]) -> Parts:
    """What `read(False)` gives, or `read(True)` where the files are not there and may be fetched.

    Args:
        kind: torchvision's class, which names the archive and its md5.
        root: folder of the archive or of the unpacked files.
        download: fetch the archive if it is not there.
        read: opens the data set, with torchvision's `download` as its argument.

    Raises:
        UserError: the files are not there and cannot be had; says where to put which file.
    """
    name = kind.__name__
    mend = f"put {kind.filename} (md5 {kind.tgz_md5}) into {root}/ or name its folder with --data.init_args.root"
    try:
        return read(False)
    except RuntimeError as error:
        if not download:
            raise UserError(f"{name} is not in {root}/ and download is false; {mend}") from error
    try:
        return read(True)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{name} is not in {root}/ and cannot be downloaded ({reason}); {mend}") from error
