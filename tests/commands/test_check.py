"""`igpt check`: every image is read once, and what is broken is listed."""

import tarfile

import pytest

from tests.datamodules.pictures import bad_files, class_tree, encoded, picture


@pytest.fixture
def tree(tmp_path):
    """Two classes of twenty pictures, each another."""
    for index in range(40):
        folder = tmp_path / "images" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.png").write_bytes(encoded(picture(index), "PNG"))
    return tmp_path / "images"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["ImageFolder", "WebImages"])
def test_every_broken_image_is_listed_with_its_reason_and_the_exit_code_is_two(igpt, tree, kind, workers):
    for name, data in bad_files().items():
        (tree / "a" / f"{name}.png").write_bytes(data)
    code, out, err = igpt("check", "--data", kind, "--data.root", tree, "--workers", workers)
    assert code == 2
    for name in bad_files():
        [line] = [line for line in out.splitlines() if line.startswith(f"image {tree}/a/{name}.png: ")]
        assert name in line.partition(": ")[2]
    assert f"44 images read in {out.rpartition('read in ')[2]}" in out
    assert "4 broken" in out
    assert err == "igpt check: --data: 4 of 44 images are broken, as listed; mend or remove them\n"


def test_whole_data_are_said_to_be_whole(igpt, tree):
    (tree / "a" / ".hidden.png").write_bytes(b"")
    code, out, err = igpt("check", "--data", "ImageFolder", "--data.root", tree, "--data.on_error", "skip")
    assert (code, err) == (0, "")
    assert "40 images read in" in out
    assert "0 broken; 1 files are left out" in out


def test_a_damaged_tar_is_broken(igpt, tree):
    with tarfile.open(tree / "x.tar", "w") as tar:
        tar.add(tree / "a", "a")
    whole = (tree / "x.tar").read_bytes()
    (tree / "x.tar").write_bytes(whole[: len(whole) // 2])
    code, out, _ = igpt("check", "--data", "WebImages", "--data.root", tree)
    assert code == 2
    assert f"{tree}/x.tar: damaged tar" in out


def test_pictures_that_are_equal_to_the_network_are_counted(igpt, tmp_path):
    for split in ("train", "test"):
        class_tree(tmp_path / split, {"a": 10, "b": 10})
    for index in range(3):
        (tmp_path / "test" / "a" / f"own{index}.png").write_bytes(encoded(picture(50 + index), "PNG"))
    code, out, _ = igpt("check", "--data", "ImageFolder", "--data.root", tmp_path, "--data.resolution", 8)
    assert code == 0
    assert "20 of 23 test images equal one of train at 8x8 pixels" in out


def test_data_in_memory_are_checked_too(igpt):
    code, out, err = igpt("check", "--data", "Digits", "--workers", 0)
    assert (code, err) == (0, "")
    assert "1,797 images read" in out
