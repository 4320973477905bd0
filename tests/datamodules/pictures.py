"""Picture files of every good and bad kind, written by the tests."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A colour gradient with a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    base = rng.integers(0, 150, 3) + np.stack([x, y, x + y], -1) + rng.integers(0, 20, (size[1], size[0], 3))
    return Image.fromarray(np.clip(base, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def bomb(side: int = 30_000) -> bytes:
    """A PNG of a few hundred kB that says, truthfully or not, that it has side x side pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def rotated(image: Image.Image, orientation: int = 6) -> bytes:
    """A JPEG whose pixels lie on their side and whose EXIF says so."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, exif=exif.tobytes(), quality=95)


def palette_png() -> bytes:
    """Left half transparent, right half green."""
    image = Image.new("P", (40, 30), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (20, 0, 40, 30))
    return encoded(image, "PNG", transparency=0)


def sixteen_bit(value: int = 0x8123) -> bytes:
    return encoded(Image.fromarray(np.full((30, 40), value, np.uint16)), "PNG")


def bad_files() -> dict[str, bytes]:
    """Files that give no picture, by the reason they must be listed with."""
    jpeg = encoded(picture(0, (160, 120)))
    return {
        "truncated": jpeg[: len(jpeg) // 2],
        "zero bytes": b"",
        "not an image": b"<html>404 not found</html>",
        "decompression bomb": bomb(),
    }


def odd_files() -> dict[str, bytes]:
    """Files that are unusual and good, by name."""
    return {
        "cmyk.jpg": encoded(picture(1).convert("CMYK")),
        "deep.png": sixteen_bit(),
        "palette.png": palette_png(),
        "turned.jpg": rotated(picture(2)),
    }


def class_tree(root: Path, counts: dict[str, int], size: tuple[int, int] = (40, 30)) -> None:
    """`counts[CLASS]` JPEGs in ROOT/CLASS/."""
    for seed, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        data = encoded(picture(seed, size))
        for index in range(count):
            (root / name / f"{name}_{index}.JPEG").write_bytes(data)


def unreadable_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders within folders below `root`, until a path is too long for the system: nobody, not even root, reads it."""
    with monkeypatch.context() as patch:
        patch.chdir(root)
        for _ in range(21):
            os.mkdir("a" * 200)
            os.chdir("a" * 200)
