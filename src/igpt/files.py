"""Writing files so that nothing half-written is ever left behind (standard library only)."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from igpt.errors import UserError


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


@contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """Yield a new folder beside `target`; on a clean exit it takes `target`'s place, otherwise it is removed.

    What a killed process left behind is removed when the same folder is next written.

    Raises:
        UserError: the folder cannot be made, or `target` is a file.
    """
    target = Path(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    aside = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        with _explained(target):
            if target.is_file():
                raise UserError(f"cannot write {target}: it is a file; name a folder")
            for left in target.parent.glob(f".{escape(target.name)}.*"):
                owner = re.fullmatch(r"(\d+)\.(partial|old)", left.name.removeprefix(f".{target.name}."))
                if owner and (left == temporary or not _runs(int(owner[1]))):
                    shutil.rmtree(left, ignore_errors=True)
            temporary.mkdir(parents=True)
        yield temporary
        with _explained(target):
            if target.exists():
                os.replace(target, aside)
            os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    """The operating system's complaint as one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}; choose another folder") from error


def _runs(process: int) -> bool:
    """Whether the process that a temporary folder is named after still runs."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def sha256_of(path: str | Path) -> str:
    """Checksum of a file's bytes, read piece by piece."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
