import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from igpt.data import imagefile
from igpt.data.imagefile import BadImageError, to_rgb
from igpt_datamodules.files import Stored, read_rgb
from tests.datamodules import pictures


def read(tmp_path, data, name="image.jpg"):
    (tmp_path / name).write_bytes(data)
    return read_rgb(Stored(str(tmp_path / name)))


@pytest.mark.parametrize("reason", list(pictures.bad_files()))
def test_a_file_without_a_picture_is_refused_with_its_reason(tmp_path, reason):
    with pytest.raises(BadImageError, match=f"^{reason}"):
        read(tmp_path, pictures.bad_files()[reason])


def test_a_truncated_png_and_one_with_a_broken_checksum_are_refused(tmp_path):
    png = pictures.encoded(pictures.picture(0), "PNG")
    with pytest.raises(BadImageError, match="truncated"):
        read(tmp_path, png[: len(png) // 2])
    damaged = bytearray(png)
    damaged[60] ^= 255
    with pytest.raises(BadImageError, match=r"cannot be decoded|truncated"):
        read(tmp_path, bytes(damaged))


def test_a_missing_file_says_what_the_system_says(tmp_path):
    with pytest.raises(BadImageError, match="cannot be opened: No such file"):
        read_rgb(Stored(str(tmp_path / "nowhere.jpg")))


def test_formats_that_start_other_programs_are_not_images(tmp_path):
    with pytest.raises(BadImageError, match="not an image"):
        read(tmp_path, pictures.encoded(pictures.picture(0), "EPS"))


@pytest.mark.parametrize("side", [9_460, 13_500, 30_000])
def test_bombs_are_refused_from_pillows_own_limit_on(tmp_path, side):
    with pytest.raises(BadImageError, match="decompression bomb"):
        read(tmp_path, pictures.bomb(side))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(tmp_path, orientation, kind):
    upright = Image.new("RGB", (48, 32), "white")
    upright.paste((255, 0, 0), (0, 0, 16, 16))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what a camera held that way would have stored
    stored = upright.transpose(Image.Transpose(back[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read(tmp_path, pictures.encoded(stored, kind, exif=exif.tobytes()))
    assert image.size == (48, 32)
    difference = np.asarray(image, int)[4:12, 4:12] - np.array([255, 0, 0])
    assert np.abs(difference).max() < 16


def test_transparency_is_laid_on_white(tmp_path):
    image = read(tmp_path, pictures.palette_png(), "p.png")
    assert image.getpixel((5, 5)) == (255, 255, 255)
    assert image.getpixel((30, 5)) == (0, 255, 0)
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert read(tmp_path, pictures.encoded(half, "PNG"), "a.png").getpixel((0, 0)) == (127, 127, 127)


def test_sixteen_bits_become_the_upper_eight(tmp_path):
    assert read(tmp_path, pictures.sixteen_bit(0x8123), "d.png").getpixel((3, 3)) == (0x81,) * 3
    assert read(tmp_path, pictures.sixteen_bit(0x00FF), "d.png").getpixel((3, 3)) == (0,) * 3


def test_cmyk_keeps_its_colours(tmp_path):
    red = Image.new("RGB", (32, 32), (200, 40, 40))
    found = read(tmp_path, pictures.encoded(red.convert("CMYK"), quality=95))
    assert np.abs(np.asarray(found, int) - [200, 40, 40]).max() < 12


@pytest.mark.parametrize("mode", Image.MODES)
def test_every_mode_of_pillow_becomes_rgb_or_is_refused(mode):
    image = Image.new(mode, (5, 4))
    if mode == "F":
        with pytest.raises(BadImageError, match="floating-point"):
            to_rgb(image)
    else:
        assert (to_rgb(image).mode, to_rgb(image).size) == ("RGB", (5, 4))


GREY = {"1": 255, "L": 200, "LA": (200, 255), "La": (200, 255), "RGB": (200,) * 3, "RGBA": (200, 200, 200, 255)}
GREY |= {"RGBa": (200, 200, 200, 255), "RGBX": (200,) * 4, "CMYK": (0, 0, 0, 55), "YCbCr": (200, 128, 128)}
GREY |= {"HSV": (0, 0, 200), "LAB": (205, 128, 128), "I": 200, "I;16": 200 << 8, "I;16L": 200 << 8, "I;16B": 200 << 8}
GREY |= {"I;16N": 200 << 8}


@pytest.mark.parametrize("mode", sorted(set(Image.MODES) - {"F", "P", "PA"}))
def test_a_light_grey_of_every_mode_is_a_light_grey(mode):
    image = Image.new(mode, (5, 4), GREY[mode])
    expected = 255 if mode == "1" else 200
    assert np.abs(np.asarray(to_rgb(image), int) - expected).max() <= 2


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 200, 255], [0, 100, 200, 255]),
        ([0, 256, 0x8123, 65535], [0, 1, 0x81, 255]),
        ([0, 65536, 2**30, 2**31 - 1], [0, 0, 128, 255]),
        ([-5, 0, 9, 255], [0, 0, 9, 255]),
    ],
)
def test_whole_numbers_of_32_bits_have_the_least_of_8_16_and_31_bits_that_holds_them(tmp_path, values, expected):
    data = pictures.encoded(Image.fromarray(np.array([values] * 3, np.int32)), "TIFF")
    assert [read(tmp_path, data, "x.tif").getpixel((x, 1)) for x in range(4)] == [(value,) * 3 for value in expected]


def test_twelve_bits_of_a_tiff_become_the_upper_eight():
    deep = Image.fromarray(np.full((2, 2), 0xABC, np.uint16))
    deep.tag_v2 = {258: (12,)}
    assert to_rgb(deep).getpixel((0, 0)) == (0xAB,) * 3


@pytest.mark.parametrize("mode", ["I", "I;16", "RGBA", "LA", "CMYK", "LAB"])
def test_a_large_picture_is_converted_in_bands_as_if_it_were_small(mode, monkeypatch):
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (40, 30, 4), dtype=np.uint8)
    image = Image.frombytes(mode, (30, 40), raw.tobytes()[: 1200 * len(Image.new(mode, (1, 1)).tobytes())])
    whole = to_rgb(image)
    monkeypatch.setattr(imagefile, "BAND", 100)
    assert np.array_equal(np.asarray(whole), np.asarray(to_rgb(image)))


def test_a_picture_that_unpacks_to_much_is_refused_with_the_limit_before_it_is_unpacked(tmp_path):
    for name, data in pictures.bombs().items():
        with pytest.raises(BadImageError, match=r"^(decompression bomb: |not an image)"):
            read(tmp_path, data, name)
    with pytest.raises(BadImageError, match="10000 x 10000 pixels, more than the 89,478,485 that are unpacked"):
        read(tmp_path, pictures.bomb(10_000))


def test_no_bomb_takes_memory(tmp_path):
    for name, data in pictures.bombs().items():
        (tmp_path / name).write_bytes(data)
    script = f"""
import resource
from pathlib import Path
from igpt.data import BadImageError
from igpt_datamodules.files import Stored, read_rgb
read_rgb(Stored(r"{tmp_path}/small.png"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in Path(r"{tmp_path}").iterdir():
    try:
        read_rgb(Stored(str(path)))
    except BadImageError:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    (tmp_path / "small.png").write_bytes(pictures.encoded(pictures.picture(0), "PNG"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50_000  # KiB


def test_what_only_a_plug_in_reads_is_named_with_the_plug_in(tmp_path):
    heic = b"\0\0\0\x18ftypheic" + bytes(100)
    if "no decoder" in imagefile.missing_decoder(".heic"):
        with pytest.raises(BadImageError, match="no decoder for HEIF: install pillow-heif"):
            read(tmp_path, heic, "x.heic")


PLUGIN = """
from PIL import Image, PngImagePlugin
def accept(prefix):
    return prefix[4:12] == b"ftypheic"
class File(PngImagePlugin.PngImageFile):
    format = "HEIF"
    def _open(self):
        self.fp.seek(24)
        import io
        self.fp = io.BytesIO(self.fp.read())
        super()._open()
def register_heif_opener():
    Image.register_open("HEIF", File, accept)
"""


@pytest.mark.slow  # an interpreter of its own; what is said where there is no plug-in is above
def test_a_plug_in_that_is_installed_is_found(tmp_path):
    (tmp_path / "pillow_heif.py").write_text(PLUGIN)
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(12) + pictures.encoded(pictures.picture(0), "PNG"))
    script = f"""
from igpt.data import missing_decoder
from igpt_datamodules.files import Stored, read_rgb
print(read_rgb(Stored(r"{tmp_path}/x.heic")).size, repr(missing_decoder(".heic")))
"""
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "(40, 30) ''\n"
