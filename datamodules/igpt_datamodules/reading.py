"""Images stored as files or inside tars: their RGB pixels, or a reason why not."""

import os
import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from igpt.data import BadImageError, decode_rgb

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".jxl"),
)


def shown(name: str) -> str:
    """A path as messages show it: unprintable characters as '?'."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


@dataclass(frozen=True, slots=True)
class Stored:
    """Where an image's bytes are: a file, or `size` bytes from `offset` on inside a tar."""

    file: str
    member: str = ""
    offset: int = 0
    size: int = 0

    @property
    def name(self) -> str:
        """What reports call it: FILE, or TAR:MEMBER; unprintable characters are shown as '?'."""
        return shown(f"{self.file}:{self.member}" if self.member else self.file)

    def open(self) -> BinaryIO:
        """The bytes as a stream; nothing of a tar is ever unpacked to disk.

        Raises:
            BadImageError: it is a pipe or a device, whose opening or reading would never end.
        """
        if os.path.exists(self.file) and not os.path.isfile(self.file):
            raise BadImageError("no regular file")
        if not self.member:
            return open(self.file, "rb")
        with open(self.file, "rb") as tar:
            tar.seek(self.offset)
            there = os.fstat(tar.fileno()).st_size - self.offset  # a header may announce more than there is
            return BytesIO(tar.read(max(0, min(self.size, there))))


def read_rgb(stored: Stored) -> Image.Image:
    """Decode to RGB, upright by its EXIF orientation, transparency on white, 16 bits to 8.

    Raises:
        BadImageError: zero bytes, truncated, not an image, decompression bomb, or what the decoder says.
    """
    try:
        with stored.open() as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata is no fault of the pixels
            return decode_rgb(stream)
    except BadImageError:
        raise
    except Exception as error:  # on broken files decoders raise anything, from SyntaxError to struct.error
        raise BadImageError(_reason(error)) from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError):
        return "decompression bomb: " + text.partition(".")[0]
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "truncated"
    if isinstance(error, OSError) and error.errno:
        return f"cannot be opened: {error.strerror}"
    return f"cannot be decoded: {text or type(error).__name__}"
