"""Atomic writes: a file or folder is written beside its place, then renamed; and checks against overwriting."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from igpt.system.errors import UserError


@contextmanager
def replacing(target: Path, durable: bool = False) -> Iterator[Path]:
    """Yield a path beside `target` for a new file or folder; on a clean exit it is renamed to `target`, else removed.

    Args:
        target: see `take_place` for what had the name.
        durable: first wait until all is on the disk, so that even a crash of the machine leaves the old or the new one.

    Raises:
        OSError: as the operating system says it.
    """
    written = partial_path(target)
    remove(written)  # of a killed process that had the same id
    try:
        yield written
        take_place(written, target, durable)
    finally:
        remove(written)


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """`replacing` for a file that the user names: its folder is made, and errors are one line.

    Raises:
        UserError: the folder cannot be made or written to, or `target` is a folder.
    """
    target = Path(target)
    with _explained(target, "another --out"):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise UserError(f"cannot write {target}: it is a folder; name a file")
        with replacing(target) as written:
            yield written


@contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """`replacing` for a folder that the user names; yields the new one, which is there and empty.

    What is there is lost: see `check_own`. A link to a folder, on another disk perhaps, stays a link. What killed
    processes left of the same folder is removed.

    Raises:
        UserError: the folder cannot be made, or `target` is a file.
    """
    target = Path(os.path.realpath(target))
    written = partial_path(target)
    try:
        with _explained(target, "another folder"):
            if target.is_file():
                raise UserError(f"cannot write {target}: it is a file; name a folder")
            remove_partial(target.parent, target.name)
            remove(written)
            written.mkdir(parents=True)
        yield written
        with _explained(target, "another folder"):
            take_place(written, target)
    finally:
        remove(written)


@contextmanager
def _explained(target: Path, other: str) -> Iterator[None]:
    """OSError as a UserError of one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}; choose {other}") from error


def take_place(written: Path, target: Path, durable: bool = False) -> None:
    """Give a file or folder the name `target`, and remove what had it.

    A file replaces a file in one move. A folder that has the name steps aside first, and comes back where the move
    fails.
    """
    folder, aside = written.is_dir() and not written.is_symlink(), _beside(target, "old")
    if durable:
        for path in (*(written.iterdir() if folder else ()), written):
            sync(path)
    try:
        if folder and target.exists():
            os.replace(target, aside)
        os.replace(written, target)
    except BaseException:
        if aside.exists() and not target.exists():
            os.replace(aside, target)
        raise
    if durable:
        sync(target.parent)
    if folder:
        remove(aside)


def partial_path(target: Path) -> Path:
    """Where this process writes what is to become `target`, with its suffix: many writers choose the format by it."""
    return _beside(target, "partial")


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.stem}.{os.getpid()}.{kind}{target.suffix}")


def final_name(text: str) -> str:
    """A path, or a message with paths, with final names in place of this process' temporary ones."""
    return re.sub(rf"(?<![\w.])\.([^/\\]+?)\.{os.getpid()}(\.partial|\.old)?(?!\w)", r"\1", text)


def remove_partial(folder: Path, name: str | None = None) -> None:
    """Remove temporary files of processes that have ended from a folder: those of the file or folder `name`, or all."""
    for left in folder.glob(".*"):
        found = re.fullmatch(r"\.(.+)\.(\d+)\.(?:partial|old)(\.[^.]*)?", left.name)
        if found and name in (None, found[1] + (found[3] or "")) and not is_running(int(found[2])):
            remove(left)


def remove(path: Path) -> None:
    """Remove a file or a folder if it is there; where that fails, it stays."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def remove_folder(folder: Path) -> None:
    """Take a folder's name away in one move, then its content."""
    aside = _beside(folder, "old")
    os.replace(folder, aside)
    shutil.rmtree(aside)


def is_running(process: int) -> bool:
    """Whether a process still runs; true where nobody can tell (Windows, where `os.kill(process, 0)` interrupts it)."""
    with suppress(PermissionError, AttributeError):
        try:
            os.getpgid(process)
        except (ProcessLookupError, OverflowError):
            return False
    return True


def sync(path: Path) -> None:
    """fsync: wait until a file's bytes, or a folder's names where the system can do that, are on the disk."""
    folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)  # Windows brings only what is written there
    except PermissionError:
        if folder:  # which Windows does not open
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_last(target: Path, link: Path) -> None:
    """Have `link` stand for `target` beside it, at every moment for the old one or the new one.

    A symbolic link. Where the system makes none (Windows, for most users) a second name of the same file, and on disks
    that know none of these either (memory sticks) a copy; of a folder, neither can be made.

    Raises:
        OSError: it cannot be made; what was there is untouched.
    """
    with replacing(link, durable=True) as name:
        try:
            name.symlink_to(target.name, target_is_directory=target.is_dir())
        except OSError:
            if target.is_dir():
                raise
            try:
                os.link(target, name)
            except OSError:
                shutil.copyfile(target, name)


def check_own(
    target: str | Path, made: Callable[[Path], bool], names: tuple[str, ...] = (), option: str = "--out"
) -> None:
    """Refuse to replace or remove what the verb did not write itself; nothing there, or an empty folder, is free.

    Args:
        target: file or folder.
        made: whether this verb wrote what stands there, by its content; where looking fails, it did not.
        names: of a folder, all that may be in it, as patterns such as "*.npy".
        option: that the user can give another value.

    Raises:
        UserError: names what would be lost.
    """
    target = Path(target)
    if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        return
    own = False
    with suppress(Exception):  # on another program's file, anything
        own = made(target)
    lost = foreign_entry(target, names) if names and target.is_dir() else None
    if lost or not own:
        lost = lost or target
        raise UserError(f"{lost} is not of this command and would be lost; move it away, or give another {option}")


def check_not_read(written: Iterable[str | Path], read: Iterable[str | Path | None], option: str = "--out") -> None:
    """Refuse to write over a file that the same command reads, by whatever name.

    Raises:
        UserError: names what would be lost, and the option that needs another value.
    """
    given = [Path(file) for file in read if file is not None]
    for target in map(Path, written):
        for lost in given:
            if same_file(lost, target):
                raise UserError(
                    f"{option}: {target} would be written over {lost}, which is read; give another {option}"
                )


def foreign_entry(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Something in a folder that is no plain file of one of these names (patterns); None where there is none."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file() or not any(fnmatchcase(path.name, name) for name in names):
            return path
    return None


def remove_own(folder: Path, names: tuple[str, ...]) -> None:
    """Remove the plain files of these names (patterns) from a folder, and the folder if nothing is left in it."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_file() and any(fnmatchcase(path.name, name) for name in names):
                path.unlink()
        folder.rmdir()


def move_aside(folder: Path, names: list[str]) -> Path:
    """Move files out of a folder into a new one beside it, FOLDER.1 or the next that is free, in the order given.

    Raises:
        OSError: the new folder cannot be made.
    """
    folder, number = Path(os.path.realpath(folder)), 1
    while os.path.lexists(aside := folder.with_name(f"{folder.name}.{number}")):
        number += 1
    aside.mkdir()
    for name in names:
        if os.path.lexists(folder / name):
            os.replace(folder / name, aside / name)
    return aside


def lies_in(file: Path, folder: Path) -> bool:
    """Whether a file, or the link that it is named by, lies in a folder, whatever links lead there."""
    real = os.path.realpath  # unlike Path.resolve, it takes a loop of links
    places = (Path(real(file)), Path(real(file.parent)) / file.name)
    return any(place.is_relative_to(real(folder)) for place in places)


def same_file(one: Path, other: Path) -> bool:
    """Whether both are there and one file or folder, by links or by several names."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes, read piece by piece."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(value: Any) -> str:
    """SHA-256 of plain data, as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
