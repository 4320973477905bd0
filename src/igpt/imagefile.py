"""From the bytes of any picture file to RGB pixels, the same wherever pictures are read."""

from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import BinaryIO

import numpy as np
from PIL import Image

MAX_PIXELS = 89_478_485  # Pillow's own limit of suspicion: 256 MiB of RGB
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # others, such as EPS, would start foreign programs
PLUGINS = {  # formats that Pillow reads once a package is installed: how it is called, and what is imported
    "AVIF": ("pillow-avif-plugin", "pillow_avif"),  # Pillow 11.3 and later read it as they are
    "HEIF": ("pillow-heif", "pillow_heif"),
    "JXL": ("pillow-jxl-plugin", "pillow_jxl"),
}
SUFFIXES = {".avif": "AVIF", ".heic": "HEIF", ".heif": "HEIF", ".jxl": "JXL"}
BEGINNINGS = {  # of files of these formats: where, and with which bytes
    "AVIF": (4, (b"ftypavif", b"ftypavis")),
    "HEIF": (4, (b"ftypheic", b"ftypheix", b"ftypheim", b"ftyphevc", b"ftypmif1", b"ftypmsf1")),
    "JXL": (0, (b"\xff\x0a", b"\0\0\0\x0cJXL ")),
}
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


@cache
def formats() -> tuple[str, ...]:
    """The formats that are read here; the plug-ins that are installed are found when first asked for."""
    Image.init()
    for name, (_, module) in PLUGINS.items():
        if name not in Image.OPEN:
            with suppress(ImportError):
                plugin = import_module(module)
                getattr(plugin, "register_heif_opener", bool)()
    return (*FORMATS, *(name for name in PLUGINS if name in Image.OPEN))


def missing_decoder(suffix: str) -> str:
    """What must be installed to read files with this suffix, in small letters; an empty string where nothing must."""
    name = SUFFIXES.get(suffix, "JPEG")
    return "" if name in formats() else f"no decoder for {suffix}: install {PLUGINS[name][0]}"


def decode_rgb(stream: BinaryIO) -> Image.Image:
    """Decode to RGB, upright by its EXIF orientation, transparency on white, 16 bits to 8.

    Raises:
        BadImageError: zero bytes, too many pixels, or see `to_rgb`.
        Exception: on broken files decoders raise anything, from SyntaxError to struct.error.
    """
    head = stream.read(16)
    if not head:
        raise BadImageError("zero bytes")
    for name, (place, known) in BEGINNINGS.items():
        if name not in formats() and head.startswith(known, place):
            raise BadImageError(f"no decoder for {name}: install {PLUGINS[name][0]}")
    stream.seek(0)
    image = Image.open(stream, formats=formats())
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
