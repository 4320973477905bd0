"""Image files: decoding any format to RGB, opening the pictures and masks that a user names, and saving."""

import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageColor, UnidentifiedImageError
from torch import Tensor

from igpt.system import UserError, atomic_path, check_not_read, check_own

MAX_PIXELS = 89_478_485  # Pillow's own limit of suspicion: 256 MiB of RGB
MAX_TILE = 4 * MAX_PIXELS  # bytes that a tile of a TIFF unpacks to, which may be larger than the picture
BAND = 1 << 22  # pixels that are converted at once
ORIENTATION, BITS, SAMPLES, TILE = 274, 258, 277, (322, 323)  # tags of TIFF and EXIF
WHITE = "white"  # what transparent pictures are laid on, unless their data say otherwise
WRITTEN = (".png", ".jpg", ".jpeg", ".bmp", ".webp")  # suffixes of pictures that are written
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # others, such as EPS, would start foreign programs
PLUGINS = {  # formats that Pillow reads once a package is installed: the package, and the module to import
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
Box = tuple[float, float, float, float]
Resolution = int | tuple[int, int]  # side of a square, or rows and columns
CROP = 224  # shorter side of the paper's crop, at whatever resolution the network works
FILTER = Image.Resampling.BICUBIC
REDUCING_GAP = 3.4  # sizes above the target down to which whole pixels are averaged first, which is quicker
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
                plugin = import_module(module)  # most register themselves
                if hasattr(plugin, "register_heif_opener"):
                    plugin.register_heif_opener()
    return (*FORMATS, *(name for name in PLUGINS if name in Image.OPEN))


def picture_suffixes() -> set[str]:
    """The suffixes, in small letters, of files that are pictures by their name, whether or not a decoder is there."""
    known = formats()
    return {end for end, name in Image.registered_extensions().items() if name in known} | set(SUFFIXES)


def missing_decoder(suffix: str) -> str:
    """What must be installed to read files with this suffix, in small letters; an empty string where nothing must."""
    name = SUFFIXES.get(suffix, "JPEG")
    return "" if name in formats() else f"no decoder for {suffix}: install {PLUGINS[name][0]}"


def decode_rgb(stream: BinaryIO, background: str = WHITE) -> Image.Image:
    """Decode to RGB, upright by its EXIF orientation, transparency on the background, 16 bits to 8.

    Raises:
        BadImageError: zero bytes, truncated, no image, no decoder, more than `MAX_PIXELS` (nothing is unpacked then),
            see `to_rgb`, or what the decoder says.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata is no fault of the pixels
            return _decoded(stream, background)
    except BadImageError:
        raise
    except Exception as error:  # on broken files decoders raise anything, from SyntaxError to struct.error
        raise BadImageError(_reason(error)) from error


def _decoded(stream: BinaryIO, background: str) -> Image.Image:
    head = stream.read(16)
    if not head:
        raise BadImageError("zero bytes")
    for name, (place, known) in BEGINNINGS.items():
        if name not in formats() and head.startswith(known, place):
            raise BadImageError(f"no decoder for {name}: install {PLUGINS[name][0]}")
    stream.seek(0)
    return upright_rgb(Image.open(stream, formats=formats()), background)


def upright_rgb(image: Image.Image, background: str = WHITE) -> Image.Image:
    """An image of Pillow as RGB, upright by its EXIF orientation; a BadImageError where it is too large or odd."""
    check_size(image)
    image.load()
    turn = TURNS.get(_orientation(image))
    rgb = to_rgb(image, background)
    return rgb if turn is None else rgb.transpose(turn)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError):
        return "decompression bomb: " + text.partition(".")[0]
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "truncated"
    return f"cannot be decoded: {text or type(error).__name__}"


def check_size(image: Image.Image) -> None:
    """Raise a BadImageError for a picture, of which only the head has been read, that would unpack to too much."""
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(
            f"decompression bomb: {image.width} x {image.height} pixels, more than the {MAX_PIXELS:,} that are unpacked"
        )
    width, height = (tag(image, number, 0) for number in TILE)
    if width * height * tag(image, SAMPLES, 1) * tag(image, BITS, 8) // 8 > MAX_TILE:
        raise BadImageError(f"decompression bomb: tiles of {width} x {height} pixels")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing about orientation; the pixels are good
        return 1


def to_rgb(image: Image.Image, background: str = WHITE) -> Image.Image:
    """Any mode of Pillow to RGB, by the rules of `rgb_of`; a large picture in bands, so that none is held thrice."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    shift = shift_of(image)
    rows = max(1, BAND // image.width)
    if rows >= image.height:
        return rgb_of(image, shift, background)
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        rgb.paste(rgb_of(image.crop(box), shift, background), box)
    return rgb


def rgb_of(image: Image.Image, shift: int, background: str = WHITE) -> Image.Image:
    """A picture, or a band of one, as RGB.

    | mode | rule |
    |---|---|
    | 1, L, P, RGB, RGBX, YCbCr, HSV, CMYK | as Pillow converts them |
    | LA, La, PA, RGBA, RGBa, or a transparent colour | laid on the background |
    | LAB | to sRGB by ICC, from the standard white of D50 |
    | I;16, I;16L, I;16B, I;16N | the upper eight of the bits that `shift_of` finds |
    | I | the same, what is negative as 0 |
    | F | refused |
    """
    if is_deep(image):
        deep = np.asarray(image)
        return Image.fromarray((np.clip(deep, 0, None) >> shift).clip(max=255).astype(np.uint8)).convert("RGB")
    if image.mode == "LAB":
        change = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return cast(Image.Image, ImageCms.applyTransform(image, change))
    if has_alpha(image):
        paper = Image.new("RGBA", image.size, background)
        return Image.alpha_composite(paper, rgba_of(image)).convert("RGB")
    return image.convert("RGB")


def has_alpha(image: Image.Image) -> bool:
    """Whether a picture, of which the head has been read, can have pixels that are not opaque."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def rgba_of(image: Image.Image) -> Image.Image:
    """A picture that `has_alpha`, as RGBA."""
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def is_transparent(stream: BinaryIO) -> bool:
    """Whether pixels of a picture are not opaque; only one that `has_alpha` is decoded. False if it is broken."""
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(stream, formats=formats())
        check_size(image)
        return has_alpha(image) and np.asarray(rgba_of(image).getchannel("A")).min().item() < 255
    return False


def is_deep(image: Image.Image) -> bool:
    """Whether the pixels are whole numbers of more than eight bits."""
    return image.mode == "I" or image.mode.startswith("I;16")


def shift_of(image: Image.Image) -> int:
    """Bits by which a picture's whole numbers are shifted to become eight: their depth less 8; 0 for other pixels.

    Of modes I;16 the depth is what a TIFF says (12 or 16), else 16. Mode I holds files of 16 bits (PNG, PPM, which
    Pillow brings to that range) and TIFFs of 32, in which programs keep numbers of any depth without saying which: it
    is 8, 16 or 31, whichever is the least that holds the largest pixel. Floating-point pixels raise a BadImageError.
    """
    if image.mode == "F":
        raise BadImageError("floating-point pixels")
    if not is_deep(image):
        return 0
    if image.mode != "I":
        return 4 if tag(image, BITS, 16) == 12 else 8
    if image.format in ("PNG", "PPM"):
        return 8
    highest = int(image.getextrema()[1])  # type: ignore[arg-type]  # of one channel a pair of numbers
    return next(depth for depth in (8, 16, 31) if highest < 2**depth) - 8


def tag(image: Image.Image, number: int, default: int) -> int:
    """The first value of a TIFF's tag; of other pictures, and where it is missing or damaged, the default."""
    value = getattr(image, "tag_v2", {}).get(number, default)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else default


def check_background(name: str) -> None:
    """Raise a UserError unless Pillow knows the colour, such as white, grey or #ffcc00."""
    try:
        ImageColor.getrgb(name)
    except ValueError as error:
        raise UserError(
            f"data.background {name!r} is no colour; give a name such as white or black, or #rrggbb"
        ) from error


def shape_of(resolution: Resolution) -> tuple[int, int]:
    """Rows and columns of pictures of a resolution; a UserError where it is none, such as a list of three numbers."""
    sides = list(resolution) if isinstance(resolution, list | tuple) else [resolution, resolution]
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise UserError(
            f"resolution {resolution!r} must be a whole number above 0, or two, rows and columns, such as [48, 64]"
        )
    return sides[0], sides[1]


def crop_size(resolution: Resolution, shorter: int = CROP) -> tuple[int, int]:
    """Width and height of the aspect of a resolution, the shorter of them `shorter` pixels."""
    rows, columns = shape_of(resolution)
    least = min(rows, columns)
    return round(shorter * columns / least), round(shorter * rows / least)


def resized(size: tuple[int, int], shorter: int, resolution: Resolution = 1) -> tuple[int, int]:
    """Width and height of an image of `size`, scaled to cover a crop (`crop_size`): a square if no resolution is given.

    The side that exceeds it is rounded down, as in torchvision.
    """
    width, height = size
    across, down = crop_size(resolution, shorter)
    if width * down < height * across:
        return across, max(down, across * height // width)
    return max(across, down * width // height), down


def source_box(size: tuple[int, int], scaled: tuple[int, int], left: int, top: int, resolution: Resolution = 1) -> Box:
    """The part of an image of `size` that a crop at (left, top) of its `scaled` version shows: 224x224 for a square."""
    across, down = size[0] / scaled[0], size[1] / scaled[1]
    width, height = crop_size(resolution)
    return left * across, top * down, (left + width) * across, (top + height) * down


def centre_crop_box(size: tuple[int, int], resolution: Resolution = 1) -> Box:
    """What evaluation sees of an image: shorter side 224, then the centre 224x224 crop (paper, section 3.1).

    Of a resolution that is no square, the centre crop of its aspect whose shorter side is 224.
    """
    width, height = scaled = resized(size, CROP, resolution)
    across, down = crop_size(resolution)
    return source_box(size, scaled, round((width - across) / 2), round((height - down) / 2), resolution)


def resample(image: Image.Image, box: Box, resolution: Resolution) -> Tensor:
    """The box of an RGB image as uint8 `(3, R, R)`: whole pixels averaged, then one bicubic antialiased pass."""
    rows, columns = shape_of(resolution)
    small = image.resize((columns, rows), FILTER, box=box, reducing_gap=REDUCING_GAP)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()


def open_picture(path: str | Path, resolution: Resolution, background: str = WHITE) -> Tensor:
    """Any image file as uint8 `(3, R, R)`, as data modules read theirs for evaluation; see `open_rgb`."""
    image = open_rgb(path, background)
    return resample(image, centre_crop_box(image.size, resolution), resolution)


def open_mask(path: str | Path, resolution: Resolution) -> Tensor:
    """Any image file as bool `(R, R)`, True where it is lighter than medium grey; hard edges stay hard."""
    image = open_rgb(path).convert("L")
    rows, columns = shape_of(resolution)
    small = image.resize((columns, rows), Image.Resampling.NEAREST, box=centre_crop_box(image.size, resolution))
    return torch.from_numpy(np.array(small)) > 255 / 2


def open_rgb(path: str | Path, background: str = WHITE) -> Image.Image:
    """Any image file that a user names, as RGB; a UserError where there is no such file, or it is not a picture."""
    if not os.path.lexists(path):
        raise UserError(f"picture {path} does not exist")
    wrong = f"{path} is not a picture that can be read"
    if not os.path.isfile(path):  # opening a pipe would wait for its other end
        raise UserError(f"{wrong}; give a PNG or JPEG file")
    try:
        with open(path, "rb") as stream:
            return decode_rgb(stream, background)
    except (OSError, BadImageError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{wrong} ({why}); mend it, or leave it out") from error


def check_pair(
    picture: str | Path, made: Callable[[NDArray[np.generic]], bool], read: Iterable[str | Path | None]
) -> None:
    """Look whether --out and the array of the same name, ending in .npy, may be written; for use before any work.

    Args:
        picture: that is to be written.
        made: whether the command writes such arrays; a picture is known by the array beside it.
        read: files that the command is given.

    Raises:
        UserError: the suffix is of no format, or one of the two files is read by this command, or is not of it.
    """
    if Path(picture).suffix.lower() not in WRITTEN:
        raise UserError(f"--out {picture} names no picture format; give a file name that ends in .png")
    array = Path(picture).with_suffix(".npy")
    check_not_read((picture, array), read)
    for target in (array, picture):
        check_own(target, lambda _: made(np.load(array, mmap_mode="r")))


def save_picture(picture: Tensor, path: str | Path) -> None:
    """Write uint8 `(3, H, W)` as an image file; the suffix, one of `WRITTEN`, chooses the format."""
    with atomic_path(path) as temporary:
        Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(temporary)
