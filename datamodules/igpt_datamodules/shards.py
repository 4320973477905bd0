"""Finding image files in folder trees and in webdataset-style tars, in an order that is the same on every machine."""

import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from igpt.data import UserError
from igpt_datamodules.reading import SUFFIXES, Stored

TAR = ".tar"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

Skipped = list[tuple[str, str]]  # (path, reason)


def refuse_folder(error: OSError) -> None:
    """Raise a UserError about a folder whose files cannot be listed."""
    raise UserError(f"folder {error.filename} cannot be read ({error.strerror}); mend or remove it") from error


def files_below(
    folder: str | Path,
    suffixes: tuple[str, ...] = SUFFIXES,
    unreadable: Callable[[OSError], None] = refuse_folder,
) -> list[str]:
    """Paths of all files with one of these suffixes, sorted by their path below the folder.

    Args:
        folder: where to look.
        suffixes: in small letters.
        unreadable: called for each folder that cannot be listed.
    """
    found = [os.path.join(place, name) for place, _, names in os.walk(folder, onerror=unreadable) for name in names]
    return sorted((path for path in found if path.lower().endswith(suffixes)), key=lambda path: path.split(os.sep))


def tar_members(path: str) -> Iterator[Stored]:
    """The images inside an uncompressed tar as offsets; their names are only names, and nothing is unpacked.

    Raises:
        tarfile.TarError, EOFError, OSError: the tar is damaged; what came before has been yielded.
    """
    if not os.path.isfile(path):  # opening a pipe would wait for its other end
        raise OSError("no regular file")
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            if member.isreg() and not member.issparse() and member.name.lower().endswith(SUFFIXES):
                yield Stored(path, member.name, member.offset_data, member.size)


def stored_images(root: str | Path) -> tuple[list[Stored], Skipped]:
    """Every image in a tree and inside its tars, and the folders and tars that cannot be read to their end."""
    images: list[Stored] = []
    skipped: Skipped = []

    def skip(error: OSError) -> None:
        skipped.append((Stored(str(error.filename)).name, f"folder cannot be read: {error.strerror}"))

    for path in files_below(root, (*SUFFIXES, TAR, *COMPRESSED), skip):
        if path.lower().endswith(COMPRESSED):
            skipped.append((path, "compressed tar: unpack it to a plain .tar"))
        elif not path.lower().endswith(TAR):
            images.append(Stored(path))
        else:
            try:
                images.extend(tar_members(path))
            except (tarfile.TarError, EOFError, OSError, ValueError) as error:
                skipped.append((path, f"damaged tar: {error}"))
    return images, skipped
