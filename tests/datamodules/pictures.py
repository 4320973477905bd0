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


def tiff_of(side: int, tile: int | None = None) -> bytes:
    """A packed grey TIFF of some hundred bytes that says it has side x side pixels, in one strip or one tile."""
    body = zlib.compress(bytes(1000)).ljust(64, b"\0")
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    if tile is None:
        tags += [(273, 4, 8), (278, 4, side), (279, 4, len(body))]
    else:
        tags += [(322, 4, tile), (323, 4, tile), (324, 4, 8), (325, 4, len(body))]
    entries = b"".join(struct.pack("<HHII", number, kind, 1, value) for number, kind, value in sorted(tags))
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(tags)) + entries + bytes(4)


def webp_of(side: int) -> bytes:
    """An animated WebP of one small frame whose canvas has side x side pixels."""
    frame = encoded(picture(0, (8, 8)), "WEBP", lossless=True)[12:]
    size = struct.pack("<I", side - 1)[:3]
    body = bytes(6) + bytes([7, 0, 0, 7, 0, 0, 100, 0, 0, 0]) + frame
    chunks = b"VP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0]) + size + size
    chunks += b"ANIM" + struct.pack("<IIH", 6, 0, 0) + b"ANMF" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def bombs() -> dict[str, bytes]:
    """Files of a few hundred bytes that would unpack to gigabytes, one of each format that can."""
    gif = struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + bytes(6) + b"," + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0)
    return {
        "png.png": bomb(),
        "strip.tif": tiff_of(30_000),
        "tile.tif": tiff_of(64, tile=32_000),
        "canvas.webp": webp_of(30_000),
        "frame.gif": b"GIF89a" + gif + b"\x02\x02\x4c\x01\x00;",
        "head.bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, *[0] * 6),
        "head.ppm": b"P6 60000 60000 255\n" + bytes(100),
    }


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
