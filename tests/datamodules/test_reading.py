import numpy as np
import pytest
from PIL import Image

from igpt.imagefile import BadImageError, to_rgb
from igpt_datamodules.reading import Stored, read_rgb
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


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "I"])
def test_every_mode_becomes_rgb(mode):
    image = to_rgb(Image.new(mode, (5, 4)))
    assert (image.mode, image.size) == ("RGB", (5, 4))


def test_floating_point_pixels_are_refused():
    with pytest.raises(BadImageError, match="floating-point"):
        to_rgb(Image.new("F", (2, 2)))
