"""Finding images in folder trees and inside webdataset-style tars, in an order that is the same on every machine."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from igpt_datamodules.reading import SUFFIXES, Stored, shown
from igpt_datamodules.walking import Skipped, files_below, left_out, unreadable_name

TAR = ".tar"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
RECORDS = (".json", ".jsonl", ".txt", ".cls", ".cls2", ".id", ".key", ".url", ".csv", ".tsv", ".md", ".npy", ".npz")


def tar_members(path: str) -> Iterator[tuple[Stored, str]]:
    """The members of an uncompressed tar as offsets, each with why it is left out, an empty string for the pictures.

    Their names are only names, and nothing is unpacked. Folders, and what webdatasets keep beside each picture, such as
    its caption, are passed over.

    Raises:
        tarfile.TarError, EOFError, OSError: the tar is damaged; what came before has been yielded.
    """
    if not os.path.isfile(path):  # opening a pipe would wait for its other end
        raise OSError("no regular file")
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            if not member.isdir() and not member.name.lower().endswith(RECORDS):
                stored = Stored(path, member.name, member.offset_data, member.size)
                yield stored, unsuitable_member(member)


def unsuitable_member(member: tarfile.TarInfo) -> str:
    """Why a member cannot be used, going by its header, or an empty string."""
    if why := next(filter(None, map(left_out, member.name.split("/"))), ""):
        return why
    return unreadable_name(member.name) or ("" if member.isreg() and not member.issparse() else "no plain file")


def stored_images(root: str | Path) -> tuple[list[Stored], Skipped, Skipped]:
    """Every image in a tree and inside its tars; what cannot be read, tars and folders; and what is left out."""
    images: list[Stored] = []
    skipped: Skipped = []

    def skip(error: OSError) -> None:
        skipped.append((shown(str(error.filename)), f"folder cannot be read: {error.strerror}"))

    paths, unused = files_below(root, (*SUFFIXES, TAR, *COMPRESSED), skip)
    for path in paths:
        if path.lower().endswith(COMPRESSED):
            skipped.append((shown(path), "compressed tar: unpack it to a plain .tar"))
        elif not path.lower().endswith(TAR):
            images.append(Stored(path))
        else:
            try:
                for member, why in tar_members(path):
                    if why:
                        unused.append((member.name, why))
                    else:
                        images.append(member)
            except (tarfile.TarError, EOFError, OSError, ValueError) as error:
                skipped.append((shown(path), f"damaged tar: {error}"))
    return images, skipped, unused
