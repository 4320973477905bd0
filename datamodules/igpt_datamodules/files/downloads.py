"""Downloads through torchvision, one process at a time, with one-line errors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from torchvision.datasets.utils import check_integrity

from igpt.data import UserError

Parts = TypeVar("Parts")


def find_or_download(kind: Any, root: str, download: bool, read: Callable[[bool], Parts]) -> Parts:
    """What `read(False)` gives, or `read(True)` where the files are not there and may be fetched.

    One process at a time fetches and unpacks: those that srun or torchrun starts all come here at once, and the others
    find the files when their turn comes.

    Args:
        kind: torchvision's class, which names the archive and its md5.
        root: folder of the archive or of the unpacked files.
        download: fetch the archive if it is not there; else a UserError says where to put which file.
        read: opens the data set, with torchvision's `download` as its argument.
    """
    name = kind.__name__
    mend = f"put {kind.filename} (md5 {kind.tgz_md5}) into {root}/ or name its folder with --data.init_args.root"
    try:
        return read(False)
    except RuntimeError as error:
        archive = Path(root) / kind.filename
        if not download and not archive.is_file():
            raise UserError(f"{name} is not in {root}/ and download is false; {mend}") from error
        if not download and not check_integrity(archive, kind.tgz_md5):  # one that is whole is only unpacked
            raise UserError(
                f"{archive} is damaged: its md5 is not {kind.tgz_md5}, and download is false; copy it again, or let "
                "igpt fetch it with --data.init_args.download true"
            ) from error
    made = not Path(root).exists()
    try:
        with alone(Path(root), kind.filename):
            return read(True)
    except (OSError, RuntimeError) as error:
        if made:
            with suppress(OSError):  # torchvision makes the folder before it downloads
                Path(root).rmdir()
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{name} is not in {root}/ and cannot be downloaded ({reason}); {mend}") from error


@contextmanager
def alone(folder: Path, archive: str) -> Iterator[None]:
    """Wait until no other process that fetches or unpacks this archive is at work in the folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{archive}.lock"
    with FileLock(path):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows keeps a file that is open; who waits makes it anew elsewhere
                path.unlink()
