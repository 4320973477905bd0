"""Palettes, samples and completions as small PNG images for the page."""

import io
from pathlib import Path

import torch
from PIL import Image as Pil
from torch import Tensor

from igpt.data import decode_rgb
from igpt.palette import Palette
from igpt.report.content import Image
from igpt.report.records import Picture, Run
from igpt.system import UserError

BUDGET = 2_500_000  # bytes of all samples and completions together, so that the page stays below 5 MB
COLUMNS, WIDE = 32, 576  # colours in a row of the palette's picture, and its width in pixels at most
LUMA = (0.299, 0.587, 0.114)
NAMES = {"samples": "Samples", "completions": "Completions"}


def palettes(runs: list[Run]) -> list[Image]:
    """One picture for every different palette, colours by lightness."""
    owners: dict[str, list[Run]] = {}
    for run in runs:
        if run.palette is not None:
            owners.setdefault(Palette(run.palette).sha256, []).append(run)
    return [swatch(members) for members in owners.values()]


def swatch(runs: list[Run]) -> Image:
    """The palette that these runs share."""
    assert runs[0].palette is not None
    rgb = Palette(runs[0].palette).rgb()
    ordered = rgb[(rgb.float() @ torch.tensor(LUMA)).argsort(stable=True)]
    names = ", ".join(run.name for run in runs)
    about = f"{len(rgb)} colours by lightness"
    return Image(
        "Palette", png(cells(ordered)), "image/png", f"Palette of {names}: {about}", f"{about}; {names}", crisp=True
    )


def cells(rgb: Tensor) -> Pil.Image:
    """Colours `(k, 3)` as squares in rows; what is left of the last row is transparent."""
    columns = min(COLUMNS, len(rgb))
    rows = -(-len(rgb) // columns)
    canvas = torch.zeros(rows * columns, 4, dtype=torch.uint8)
    canvas[: len(rgb), :3], canvas[: len(rgb), 3] = rgb, 255
    picture = Pil.fromarray(canvas.view(rows, columns, 4).numpy(), "RGBA")
    side = WIDE // COLUMNS if rows > 1 else WIDE // columns
    return picture.resize((columns * side, rows * min(side, WIDE // 12)), Pil.Resampling.NEAREST)


def png(picture: Pil.Image) -> bytes:
    """Encoded, without anything that a file may have carried besides its pixels."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def read_picture(path: Path) -> Picture:
    """A picture file of a run.

    Raises:
        UserError: it cannot be read, or is no picture.
    """
    try:
        picture = Picture(path.read_bytes(), path.name)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); draw it again or remove it") from error
    return checked(picture, str(path))


def checked(picture: Picture, place: str) -> Picture:
    """The picture itself.

    Raises:
        UserError: what lies in this place is no picture.
    """
    try:
        pixels(picture)
        return picture
    except Exception as error:  # on broken files decoders raise anything
        raise UserError(f"{place} is no picture; draw it again or remove it") from error


def pixels(picture: Picture) -> Pil.Image:
    """The picture decoded, of which a page shows pixels alone.

    Raises:
        Exception: anything, where it is none.
    """
    return decode_rgb(io.BytesIO(picture.content))


def drawings(runs: list[Run]) -> list[Image]:
    """Samples, then completions, AR and BERT beside each other; a file in the run's folder goes before the events."""
    found = [
        (run, name, picture)
        for name in NAMES
        for run in runs
        if (picture := run.pictures.get(name) or run.events.pictures.get(name))
    ]
    return [drawing(run, name, picture, BUDGET // len(found)) for run, name, picture in found]


def drawing(run: Run, name: str, picture: Picture, most: int) -> Image:
    """One picture, made smaller until it takes at most so many bytes."""
    shown = pixels(picture)
    content = png(shown)
    while len(content) > most and min(shown.size) > 1:
        shown = shown.resize((max(1, shown.width * 2 // 3), max(1, shown.height * 2 // 3)), Pil.Resampling.BOX)
        content = png(shown)
    title = f"{NAMES[name]} of {run.name}"
    return Image(title, content, "image/png", title, f"{run.core}; {picture.origin}", crisp=True)
