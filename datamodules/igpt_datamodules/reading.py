"""From the bytes of any picture file to RGB pixels, or a reason why not."""

import os
import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 89_478_485  # Pillow's own limit of suspicion: 256 MiB of RGB
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # others, such as EPS, would start foreign programs
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
ORIENTATION_TAG = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImageError(Exception):
    """A file that gives no picture; the message is the reason."""


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
        name = f"{self.file}:{self.member}" if self.member else self.file
        return "".join(letter if letter.isprintable() else "?" for letter in name)

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
            return _decode(stream)
    except BadImageError:
        raise
    except Exception as error:  # on broken files decoders raise anything, from SyntaxError to struct.error
        raise BadImageError(_reason(error)) from error


def _decode(stream: BinaryIO) -> Image.Image:
    if not stream.read(1):
        raise BadImageError("zero bytes")
    stream.seek(0)
    image = Image.open(stream, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(f"decompression bomb: {image.width} x {image.height} pixels")
    image.load()
    turn = TURNS.get(_orientation(image))
    rgb = to_rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF says nothing about orientation; the pixels are good
        return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow to RGB.

    Raises:
        BadImageError: floating-point pixels, whose scale nobody states.
    """
    if image.mode == "F":
        raise BadImageError("floating-point pixels")
    if image.mode == "I" or image.mode.startswith("I;16"):
        deep = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        if image.mode in ("PA", "La"):
            image = image.convert("LA" if image.mode == "La" else "RGBA")
        paper = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


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
