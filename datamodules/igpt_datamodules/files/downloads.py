"""Downloads through torchvision, one process at a time, with one-line errors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from torchvision.datasets.utils import check_integrity

from igpt.data import UserError

Parts = TypeVar("Parts")
REASON = 200  # letters of what a library says of a failed download; of several mirrors it says much


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
    return downloaded(name, root, read, mend)


def downloaded(name: str, root: str, read: Callable[[bool], Parts], mend: str) -> Parts:
    """What `read(True)` gives, which fetches and unpacks; a UserError that ends in `mend` where that fails."""
    made = not Path(root).exists()
    try:
        with alone(Path(root), name):
            return read(True)
    except Exception as error:  # of archives and files that are off, torchvision raises anything
        if made:
            remove_empty(Path(root))  # torchvision makes folders before it downloads
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name} is not in {root}/ and cannot be downloaded ({reason[:REASON]}); {mend}") from error


def remove_empty(folder: Path) -> None:
    """Remove a folder and those below it, as far as they hold no file."""
    for path in (*sorted(folder.rglob("*"), reverse=True), folder):
        with suppress(OSError):
            path.rmdir()


@contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Wait until no other process that fetches or unpacks this data set is at work in the folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{name}.lock"
    with FileLock(path):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows keeps a file that is open; who waits makes it anew elsewhere
                path.unlink()
