"""From the bytes of any picture file to RGB pixels, the same wherever pictures are read."""

from typing import BinaryIO

import numpy as np
from PIL import Image

MAX_PIXELS = 89_478_485  # Pillow's own limit of suspicion: 256 MiB of RGB
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # others, such as EPS, would start foreign programs
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


def decode_rgb(stream: BinaryIO) -> Image.Image:
    """Decode to RGB, upright by its EXIF orientation, transparency on white, 16 bits to 8.

    Raises:
        BadImageError: zero bytes, too many pixels, or see `to_rgb`.
        Exception: on broken files decoders raise anything, from SyntaxError to struct.error.
    """
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
