"""Writing files so that nothing half-written is ever left behind (standard library only)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
