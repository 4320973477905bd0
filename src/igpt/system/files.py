"""Writing files so that nothing half-written is ever left behind (standard library only)."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path

from igpt.system.errors import UserError


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a path beside `target`; on a clean exit it is renamed to `target`, otherwise removed.

    The temporary name keeps the suffix, since many writers choose the format by it.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    target = Path(target)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise UserError(f"cannot write {target}: it is a folder; name a file")
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}; choose another --out") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def final_name(text: str) -> str:
    """A path, or a message with paths, with the names of the files that this process writes first put right."""
    return re.sub(rf"(?<![\w.])\.([^/\\]+?)\.{os.getpid()}(\.partial|\.old)?(?!\w)", r"\1", text)


def check_own(
    target: str | Path, made: Callable[[Path], bool], names: tuple[str, ...] = (), option: str = "--out"
) -> None:
    """Refuse to write over what the verb did not write itself: the one rule of every verb that writes or removes.

    Nothing there, or an empty folder, is free. A file, or a folder as a whole, must be what this verb writes, and a
    folder that is replaced must hold nothing else.

    Args:
        target: file or folder that is to be replaced or removed.
        made: whether this verb wrote what stands there, by its content; where looking fails, it did not.
        names: of a folder that is replaced, the files that the verb puts there, as patterns such as "*.npy".
        option: that the user can give another value.

    Raises:
        UserError: names what would be lost.
    """
    target = Path(target)
    if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        return
    try:
        own = made(target)
    except (OSError, EOFError, UserError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        own = False
    lost = foreign_entry(target, names) if names and target.is_dir() else None
    lost = lost or (None if own else target)
    if lost is not None:
        raise UserError(f"{lost} is not of this command and would be lost; move it away, or give another {option}")


def check_not_read(written: Iterable[str | Path], read: Iterable[str | Path | None], option: str = "--out") -> None:
    """Refuse to write over a file that the same command reads, by whatever name.

    Args:
        written: files that are to be written.
        read: files that the command is given, where it is given them.
        option: that the user can give another value.

    Raises:
        UserError: names what would be lost.
    """
    given = [Path(file) for file in read if file is not None]
    for target in written:
        lost = next((file for file in given if same_file(file, Path(target))), None)
        if lost is not None:
            raise UserError(f"{option}: {target} would be written over {lost}, which is read; give another {option}")


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
    places = (os.path.realpath(file), os.path.join(os.path.realpath(file.parent), file.name))
    return any(Path(place).is_relative_to(os.path.realpath(folder)) for place in places)


@contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """Yield a new folder beside `target`; on a clean exit it takes `target`'s place, otherwise it is removed.

    What is there is lost: see `check_own`. A link to a folder, on another disk perhaps, stays a link. What a killed
    process left behind is removed when the same folder is next written.

    Raises:
        UserError: the folder cannot be made, or `target` is a file.
    """
    target = Path(os.path.realpath(target))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    aside = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        with _explained(target):
            if target.is_file():
                raise UserError(f"cannot write {target}: it is a file; name a folder")
            for left in target.parent.glob(f".{escape(target.name)}.*"):
                owner = re.fullmatch(r"(\d+)\.(partial|old)", left.name.removeprefix(f".{target.name}."))
                if owner and (left == temporary or not is_running(int(owner[1]))):
                    shutil.rmtree(left, ignore_errors=True)
            temporary.mkdir(parents=True)
        yield temporary
        with _explained(target):
            take_place(temporary, target, aside)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if target.exists():  # otherwise what stands aside is all there is
            shutil.rmtree(aside, ignore_errors=True)


def take_place(written: Path, target: Path, aside: Path) -> None:
    """Give a folder the name `target`; one that had it goes to `aside`, and comes back where that fails."""
    try:
        if target.exists():
            os.replace(target, aside)
        os.replace(written, target)
    except BaseException:
        if aside.exists() and not target.exists():
            os.replace(aside, target)
        raise


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    """The operating system's complaint as one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}; choose another folder") from error


def is_running(process: int) -> bool:
    """Whether the process that a temporary folder is named after still runs; true where nobody can tell (Windows)."""
    if not hasattr(os, "getpgid"):  # and os.kill(process, 0) would not ask there, but interrupt
        return True
    try:
        os.getpgid(process)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def durable_path(target: Path) -> Iterator[Path]:
    """Yield a path beside `target`; on a clean exit its bytes are on the disk before it is renamed to `target`.

    Unlike `atomic_path` this outlives a crash of the machine, and the operating system's complaint comes as it is.
    """
    temporary = partial_path(target)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, target)
        sync(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


def partial_path(target: Path) -> Path:
    """Where this process writes what is to become `target`."""
    return target.with_name(f".{target.name}.{os.getpid()}.partial")


def remove_partial(folder: Path) -> None:
    """Remove the partial files and folders of processes that do not run any more."""
    for left in folder.glob(".*.partial"):
        owner = re.fullmatch(r".*\.(\d+)\.partial", left.name)
        if owner and not is_running(int(owner[1])):
            with suppress(OSError):
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def place_folder(written: Path, target: Path) -> None:
    """Give a folder its name once all in it is on the disk; a folder that had the name is then removed."""
    for path in (*written.iterdir(), written):
        sync(path)
    aside = aside_path(target)
    take_place(written, target, aside)
    sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Take a folder's name away in one move, then its content."""
    aside = aside_path(folder)
    os.replace(folder, aside)
    shutil.rmtree(aside)


def aside_path(folder: Path) -> Path:
    """Where this process puts a folder that is to go."""
    return partial_path(folder.with_name(f"{folder.name}.old"))


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names where the system can do that, are on the disk."""
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
    temporary = partial_path(link)
    with suppress(FileNotFoundError):
        temporary.unlink()
    try:
        name_again(target, temporary)
        os.replace(temporary, link)
    finally:
        with suppress(OSError):
            temporary.unlink()  # of two names of one file, neither replaces the other
    sync(link.parent)


def name_again(target: Path, name: Path) -> None:
    """Make `name` a link to a file beside it, or its second name, or a copy."""
    try:
        name.symlink_to(target.name, target_is_directory=target.is_dir())
    except OSError:
        if target.is_dir():
            raise
        try:
            os.link(target, name)
        except OSError:
            shutil.copyfile(target, name)
            sync(name)


def same_file(one: Path, other: Path) -> bool:
    """Whether both are there and one file or folder, by links or by several names."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def sha256_of(path: str | Path) -> str:
    """Checksum of a file's bytes, read piece by piece."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
