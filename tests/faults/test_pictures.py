"""Pictures that are none, given to `igpt surprise`, and found by the data modules that read folders and tars."""

import io
import os
import struct
import tarfile
import zlib

import pytest
from PIL import Image

from tests.datamodules.pictures import bomb, encoded, picture
from tests.faults.conftest import patience


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width, height, body, depth=8, colour=2, extra=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def gif(width, height):
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + b"," + struct.pack(
        "<HHHHB", 0, 0, width, height, 0
    ) + b"\x02\x02\x4c\x01\x00;"  # fmt: skip


WHOLE, JPEG = encoded(picture(0), "PNG"), encoded(picture(0, (160, 120)))
TEXT_BOMB = chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(2**26)))
NO_PICTURES = {
    "zero bytes": b"",
    "one byte": b"\x89",
    "text": b"not a picture at all",
    "HTML": b"<html>404 not found</html>",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'><rect width='8' height='8'/></svg>",
    "PDF": b"%PDF-1.4\n1 0 obj<<>>endobj trailer<<>>",
    "EPS that runs a program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(%pipe%mkdir executed)(w)file\n",
    "a signature alone": b"\x89PNG\r\n\x1a\n",
    "half a PNG": WHOLE[: len(WHOLE) // 2],
    "half a JPEG": JPEG[: len(JPEG) // 2],
    "a JPEG without its end and middle": JPEG[:200],
    "a damaged PNG": WHOLE[:60] + bytes([WHOLE[60] ^ 255]) + WHOLE[61:],
    "PNG of no size": png(0, 0, zlib.compress(b"")),
    "PNG of 65535 x 65535": png(65535, 65535, zlib.compress(bytes(1000))),
    "PNG of 2^31 x 2^31": png(2**31 - 1, 2**31 - 1, zlib.compress(bytes(1000))),
    "PNG of 30000 x 30000 that is whole": bomb(),
    "PNG between Pillow's warning and its error": bomb(10_000),
    "PNG whose comment unpacks to 64 MB": png(8, 8, zlib.compress(bytes(8 * 25)), extra=TEXT_BOMB),
    "PNG with pixels of another program's depth": png(8, 8, b"", depth=77),
    "GIF of 65535 x 65535": gif(65535, 65535),
    "BMP of 2^30 x 2^30": b"BM"
    + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
    "PPM of 65535 x 65535": b"P6 65535 65535 255\n" + bytes(100),
    "PPM of a number too long": b"P6 " + b"9" * 5000 + b" 8 255\n",
    "TIFF that points at itself": b"II*\0\x08\0\0\0\x01\0"
    + struct.pack("<HHII", 0x100, 4, 1, 8)
    + struct.pack("<I", 8),
    "TIFF cut short": encoded(picture(0), "TIFF")[:100],
    "WebP cut short": encoded(picture(0), "WEBP")[:60],
    "ZIP": b"PK\x03\x04" + bytes(100),
}
GOOD_BUT_ODD = {
    "CMYK": encoded(picture(1).convert("CMYK")),
    "16 bit": encoded(Image.new("I;16", (9, 9), 40_000), "PNG"),
    "one pixel": encoded(Image.new("RGB", (1, 1)), "PNG"),
    "one row": encoded(Image.new("L", (5_000, 1)), "PNG"),
    "animated GIF": encoded(picture(1), "GIF", save_all=True, append_images=[picture(2), picture(3)]),
    "animated PNG": encoded(picture(1), "PNG", save_all=True, append_images=[picture(2)]),
    "transparent": encoded(Image.new("RGBA", (8, 8), (9, 9, 9, 0)), "PNG"),
    "black and white": encoded(Image.new("1", (8, 8)), "PNG"),
}


@pytest.mark.parametrize("name", NO_PICTURES)
def test_what_is_no_picture_is_refused_by_name(refused, digits_run, tmp_path, name):
    (tmp_path / "bad.png").write_bytes(NO_PICTURES[name])
    options = ["--ckpt", digits_run.checkpoint, "--out", "s.png", "--accelerator", "cpu"]
    refused("surprise", "bad.png", *options, words=["bad.png is not a picture"])
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("place", ["folder", "pipe", "/dev/zero", "loop", "broken link", "n" * 300, "ü\n\x1b[2J.png"])
def test_what_is_no_file_is_refused_by_name(refused, digits_run, tmp_path, place):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "broken link").symlink_to("gone")
    word = "ü" if place[0] == "ü" else place[:30]
    refused("surprise", place, "--ckpt", digits_run.checkpoint, "--out", "s.png", words=[word])


@pytest.mark.parametrize("name", GOOD_BUT_ODD)
def test_an_odd_picture_is_a_picture_whatever_its_suffix(igpt, digits_run, tmp_path, name):
    (tmp_path / "odd.txt").write_bytes(GOOD_BUT_ODD[name])
    out = tmp_path / "s.png"
    code, _, err = igpt("surprise", tmp_path / "odd.txt", "--ckpt", digits_run.checkpoint, "--out", out)
    assert (code, err) == (0, "")
    assert out.is_file()


@pytest.fixture
def tree(tmp_path):
    """A folder of two classes with a few good pictures each."""
    for index in range(24):
        folder = tmp_path / "images" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.png").write_bytes(encoded(picture(index), "PNG"))
    return tmp_path / "images"


FIND = ["--data.root", "images", "--data.resolution", 8, "--colors", 4, "--out", "p.npy"]


@pytest.mark.parametrize("name", ["zero bytes", "half a PNG", "PNG of 2^31 x 2^31", "TIFF cut short"])
def test_a_class_folder_with_a_file_that_is_no_picture(refused, tree, name):
    for folder in "ab":
        for index in range(50):  # so that some are drawn into the training split
            (tree / folder / f"bad{index}.png").write_bytes(NO_PICTURES[name])
    refused("palette", "--data", "ImageFolder", *FIND, words=["bad", ".png", "mend or remove"])


def test_web_images_of_which_too_many_are_none(refused, tree):
    for index, content in enumerate(NO_PICTURES.values()):
        (tree / f"bad{index}.png").write_bytes(content)
    refused("palette", "--data", "WebImages", *FIND, words=[f"{len(NO_PICTURES)} skipped", "max_bad_share"])


@pytest.mark.parametrize("kind", ["a pipe", "a pipe for a tar", "/dev/zero", "a link to itself", "a folder"])
def test_web_images_wait_for_nothing(refused, tree, kind):
    if kind == "a folder":
        (tree / "x.tar").mkdir()
        (tree / "x.tar" / "bad.png").write_bytes(b"")
    elif kind.startswith("a pipe"):
        os.mkfifo(tree / ("x.tar" if kind.endswith("tar") else "x.png"))
    else:
        (tree / "x.png").symlink_to("/dev/zero" if kind == "/dev/zero" else "x.png")
    refused("palette", "--data", "WebImages", "--data.max_bad_share", 0, *FIND, words=["1 skipped", "images/x."])


def test_a_folder_that_contains_itself_is_read_once(tree):
    from igpt_datamodules.files import files_below

    (tree / "again").symlink_to(".")
    found, unused = files_below(tree)
    assert len(found) == 24
    assert unused == [(str(tree / "again"), "link to a folder that is read already")]


def member(name, data=b"", kind=tarfile.REGTYPE, link="", size=None):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data) if size is None else size
    return info, data


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))


GOOD = encoded(picture(0), "PNG")
HOSTILE = {  # a member: what it must be skipped or listed as, None where it must not be looked at
    "a link out": (member("x.png", kind=tarfile.SYMTYPE, link="/etc/passwd"), None),
    "a hard link out": (member("x.png", kind=tarfile.LNKTYPE, link="../../secret.png"), None),
    "a device": (member("x.png", kind=tarfile.CHRTYPE), None),
    "a pipe": (member("x.png", kind=tarfile.FIFOTYPE), None),
    "a folder with a picture's name": (member("x.png", kind=tarfile.DIRTYPE), None),
    "a name that leaves": (member("../../x.png", GOOD), "good"),
    "an absolute name": (member("/tmp/igpt_evil.png", GOOD), "good"),
    "a name with a null byte": (member("x\0y.png", GOOD), None),
    "a name a terminal obeys": (member("\x1b[2J.png", b""), "zero bytes"),
    "a bomb": (member("x.png", bomb()), "decompression bomb"),
    "no picture": (member("x.png", b"%!PS-Adobe-3.0 EPSF-3.0"), "not an image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_tars_members_are_only_bytes_and_never_leave_it(tmp_path, name):
    from igpt.data import BadImageError
    from igpt_datamodules.files import read_rgb, stored_images

    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.png").write_bytes(GOOD)
    entry, reason = HOSTILE[name]
    write_tar(tmp_path / "inside" / "x.tar", [member("first.png", GOOD), entry, member("last.png", GOOD)])
    with patience():
        found, skipped, unused = stored_images(tmp_path / "inside")
    assert skipped == []
    counted = not reason and not entry[0].isdir()
    assert [why in ("no plain file", "no suffix") for _, why in unused] == [True] * counted
    assert [one.member for one in found if one.member in ("first.png", "last.png")] == ["first.png", "last.png"]
    others = [one for one in found if one.member not in ("first.png", "last.png")]
    assert len(others) == (reason is not None)
    for one in others:
        assert one.name.isprintable()
        if reason == "good":
            assert read_rgb(one).size == (40, 30)
        else:
            with pytest.raises(BadImageError, match=f"^{reason}"):
                read_rgb(one)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inside", "secret.png", "x.tar"]


def test_a_member_that_says_it_is_larger_than_its_tar_takes_no_memory(tmp_path):
    from igpt.data import BadImageError
    from igpt_datamodules.files import read_rgb, stored_images

    info, _ = member("x.png", size=2**40)
    (tmp_path / "x.tar").write_bytes(info.tobuf() + GOOD[: len(GOOD) // 2])
    (one,), _, _ = stored_images(tmp_path)
    assert one.size == 2**40
    with pytest.raises(BadImageError, match="truncated"):
        read_rgb(one)


def test_a_sparse_member_is_left_out(tmp_path):
    from igpt_datamodules.files import stored_images

    info = tarfile.TarInfo("x.png")
    info.pax_headers = {"GNU.sparse.map": "0,512", "GNU.sparse.size": str(2**40), "GNU.sparse.numblocks": "1"}
    info.size = 512
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(bytes(512)))
    assert stored_images(tmp_path) == ([], [], [(f"{tmp_path}/x.tar:x.png", "no plain file")])


def test_a_missing_picture_stays_missing_when_it_is_a_broken_link(refused, digits_run, tmp_path):
    (tmp_path / "x.png").symlink_to("gone.png")
    refused("sample", "--complete", "[x.png]", "--ckpt", digits_run.checkpoint, "--out", "s.png", words=["x.png"])
