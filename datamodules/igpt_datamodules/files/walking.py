"""Walks folder trees and tars for image files, in the same order on every machine; says what is left out and why."""

import heapq
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from igpt.data import UserError, missing_decoder
from igpt_datamodules.files.stored import SUFFIXES, Stored, shown

Skipped = list[tuple[str, str]]  # (path, reason); what stands before a colon in a reason is its kind

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
NAMED = 3  # skipped files that the one-line summary names
SYSTEM = (  # what systems and tools put into folders, in small letters
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "lost+found", "system volume information"),
    *("__macosx", "__pycache__", "@eadir", "#recycle", "#snapshot", "@recycle", "$recycle.bin"),
)
TAR = ".tar"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
RECORDS = (".json", ".jsonl", ".txt", ".cls", ".cls2", ".id", ".key", ".url", ".csv", ".tsv", ".md", ".npy", ".npz")


def left_out(name: str) -> str:
    """Why a file or folder of this name is no part of the data, or an empty string."""
    if name.startswith(".") and name not in (".", ".."):
        return "hidden"
    return "of the system" if name.lower() in SYSTEM else ""


def refuse_folder(error: OSError) -> None:
    """Raise a UserError about a folder whose files cannot be listed."""
    raise UserError(f"folder {error.filename} cannot be read ({error.strerror}); mend or remove it") from error


def files_below(
    folder: str | Path,
    suffixes: tuple[str, ...] = SUFFIXES,
    unreadable: Callable[[OSError], None] = refuse_folder,
) -> tuple[list[str], Skipped]:
    """Paths of all files with one of these suffixes, sorted by their path below the folder, and all others with why.

    Left out is what a person would leave out: what is hidden or of the system, at every depth, and what lies in such a
    folder. Links are followed; a folder that was read already, or in which `folder` lies, is not read again. Of each
    folder that cannot be listed `unreadable` is told.
    """
    used: list[str] = []
    unused: Skipped = []
    seen = {identity(place) for place in Path(os.path.realpath(folder)).parents}
    folders = [(str(folder), "")]
    links: list[str] = []  # read after all real folders, so that what has two paths is found by its own
    while folders or links:
        place, reason = folders.pop() if folders else (heapq.heappop(links), "")
        try:
            here = identity(place)
            if here in seen:
                unused.append((shown(place), "link to a folder that is read already"))
                continue
            seen.add(here)
            entries = list(os.scandir(place))
        except OSError as error:
            if reason:
                unused.append((shown(place), reason))
            else:
                unreadable(error)
            continue
        for entry in entries:
            why = reason or left_out(entry.name)
            if is_folder(entry) and not (why and entry.is_symlink()):
                if entry.is_symlink():
                    heapq.heappush(links, entry.path)
                else:
                    folders.append((entry.path, why))
            elif why := why or unreadable_name(entry.name, suffixes):
                unused.append((shown(entry.path), why))
            else:
                used.append(entry.path)
    return sorted(used, key=by_parts), sorted(unused)


def identity(place: str | Path) -> tuple[int, int]:
    """Device and number of a folder, the same by whatever path it is reached."""
    status = os.stat(place)
    return status.st_dev, status.st_ino


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def unreadable_name(name: str, suffixes: tuple[str, ...] = SUFFIXES) -> str:
    """Why a file of this name is taken for no picture, or an empty string."""
    suffix = os.path.splitext(name)[1].lower()
    if name.lower().endswith(suffixes):
        return missing_decoder(suffix)
    if suffix in ARCHIVES:
        return f"archive {suffix}: unpack it"
    return f"unknown suffix {shown(suffix)}" if suffix else "no suffix"


def by_parts(path: str) -> str:
    """What paths are sorted by: part by part, so that all of a folder stands together."""
    return path.replace(os.sep, "\0")


def summary(skipped: Iterable[tuple[str, str]]) -> str:
    """One line: how many were skipped, why, and the first few."""
    known = list(skipped)
    kinds = Counter(reason.partition(":")[0] for _, reason in known)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
    first = ", ".join(f"{path} ({reason})" for path, reason in known[:NAMED])
    return f"{len(known):,} skipped: {counts}; first: {first}"


def tar_members(path: str) -> Iterator[tuple[Stored, str]]:
    """The members of an uncompressed tar as offsets, each with why it is left out, an empty string for the pictures.

    Folders, and what webdatasets keep beside each picture, such as its caption, are passed over. Of a damaged tar, what
    comes before an error is yielded.
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
