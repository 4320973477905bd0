"""Which files are taken for pictures, and what is said about those that are not."""

import os

import pytest

from igpt.data import SplitOptions
from igpt.system.errors import UserError
from igpt_datamodules import ImageFolder, ImageNet, WebImages
from igpt_datamodules.files import files_below
from tests.datamodules.pictures import class_tree, encoded, picture

HALF = SplitOptions(val_share=0.3)
LITTER = [
    *(".ipynb_checkpoints/a-checkpoint.png", ".hidden.png", "._a.png", ".git/objects/a.png"),
    *("@eaDir/a.png", "__MACOSX/a.png", "Thumbs.db", "deeper/.cache/deeper/a.png", "#recycle/a.png"),
]


@pytest.fixture
def tree(tmp_path):
    """Two classes of ten pictures, each another."""
    for index in range(20):
        folder = tmp_path / "tree" / ("cat", "dog")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.png").write_bytes(encoded(picture(index), "PNG"))
    return tmp_path / "tree"


def put(path, seed=99, kind="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(picture(seed), kind))


def total(data):
    return sum(data.size(name) for name in ("train", "val", "test"))


@pytest.mark.parametrize("kind", [ImageFolder, WebImages])
def test_what_is_hidden_or_of_the_system_is_left_out_at_every_depth_and_counted(tree, capsys, kind):
    for name in LITTER:
        put(tree / "cat" / name)
    data = kind(root=str(tree), split=HALF, test_share=0.2)
    data.prepare_data()
    said = capsys.readouterr().out
    assert total(data) == 20
    assert {path for path, _ in data.skipped} == {str(tree / "cat" / name) for name in LITTER}
    assert f"{kind.__name__}: 20 images; 9 skipped: 5 hidden, 4 of the system; first: " in said
    assert said.count("\n") == 1


def test_an_official_split_leaves_them_out_too(tree, tmp_path):
    (tmp_path / "net").mkdir()
    os.rename(tree, tmp_path / "net" / "Train")
    class_tree(tmp_path / "net" / "VAL", {"cat": 3, "dog": 3})
    put(tmp_path / "net" / "Train" / "cat" / ".ipynb_checkpoints" / "a.png")
    data = ImageNet(root=str(tmp_path / "net"), split=HALF)
    data.prepare_data()
    assert total(data) == 26
    assert [reason for _, reason in data.skipped] == ["hidden"]


def test_files_that_are_no_pictures_by_their_names_are_counted_by_reason(tree, capsys):
    for name in ("a.txt", "b.TXT", "c", "d.zip", "../readme.png"):
        (tree / "dog" / name).write_bytes(b"x")
    data = ImageFolder(root=str(tree), split=HALF)
    data.prepare_data()
    assert dict(data.skipped) == {
        str(tree / "dog" / "a.txt"): "unknown suffix .txt",
        str(tree / "dog" / "b.TXT"): "unknown suffix .txt",
        str(tree / "dog" / "c"): "no suffix",
        str(tree / "dog" / "d.zip"): "archive .zip: unpack it",
        str(tree / "readme.png"): "outside of the class folders",
    }
    assert "5 skipped: 1 archive .zip, 1 no suffix, 1 outside of the class folders, 2 unknown suffix .txt" in (
        capsys.readouterr().out
    )


def test_nothing_is_said_where_everything_is_used(tree, capsys):
    ImageFolder(root=str(tree), split=HALF).prepare_data()
    assert capsys.readouterr().out == ""


def test_linked_folders_are_read_whether_they_are_a_class_or_lie_in_one(tree, tmp_path):
    put(tmp_path / "store" / "bird" / "1.png", 50)
    put(tmp_path / "store" / "more" / "deep" / "2.png", 51)
    (tree / "bird").symlink_to(tmp_path / "store" / "bird")
    (tree / "cat" / "more").symlink_to(tmp_path / "store" / "more")
    (tree / "cat" / "one.png").symlink_to(tmp_path / "store" / "bird" / "1.png")
    found, unused = files_below(tree)
    assert len(found) == 23
    assert not unused
    assert str(tree / "cat" / "more" / "deep" / "2.png") in found


@pytest.mark.parametrize("target", [".", "..", "../..", "../dog", "inside", "/"])
def test_a_link_to_what_is_read_already_or_lies_around_it_is_not_followed(tree, target):
    (tree / "cat" / "inside").mkdir()
    (tree / "cat" / "again").symlink_to(target)
    found, unused = files_below(tree)
    assert len(found) == 20
    assert unused == [(str(tree / "cat" / "again"), "link to a folder that is read already")]


def test_a_hidden_link_hides_nothing_of_what_it_points_to(tree):
    (tree / ".all").symlink_to("cat")
    (tree / "aaa").mkdir()
    (tree / "aaa" / ".cat").symlink_to("../cat")
    found, unused = files_below(tree)
    assert len(found) == 20
    assert [reason for _, reason in unused] == ["hidden", "hidden"]


@pytest.mark.parametrize(("suffix", "kind"), [(".jfif", "JPEG"), (".JPE", "JPEG"), (".avif", "AVIF"), (".pbm", "PPM")])
def test_pictures_of_less_common_suffixes_are_read(tree, suffix, kind):
    if kind == "AVIF":
        pytest.importorskip("PIL._avif", reason="Pillow 11.3 and later read AVIF")
    put(tree / "cat" / f"x{suffix}", kind=kind)
    data = ImageFolder(root=str(tree), split=HALF, resolution=8)
    data.prepare_data()
    assert total(data) == 21
    assert sum(len(labels) for name in ("train", "val", "test") for _, labels in data.loader(name)) == 21


def test_one_picture_in_two_splits_is_counted_and_named(tree, tmp_path, capsys):
    root = tmp_path / "root"
    root.mkdir()
    os.rename(tree, root / "train")
    class_tree(root / "test", {"cat": 1})
    for name in ("7.png", "9.png"):
        put(root / "test" / "dog" / name, int(name[0]))
    put(root / "test" / "dog" / "own.png", 77)
    ImageFolder(root=str(root), split=HALF).prepare_data()
    said = capsys.readouterr().out
    assert said.startswith("ImageFolder: 24 images; ")
    assert " of 4 test images are also in " in said
    assert f"{root}/test/dog/7.png = {root}/train/dog/7.png" in said
    assert f"{root}/test/dog/9.png = {root}/train/dog/9.png" in said
    assert "own.png" not in said


def test_an_image_that_is_folded_into_training_is_no_twin_of_its_own(tree, capsys):
    data = ImageFolder(root=str(tree), split=SplitOptions(val_share=0.3, fold_validation=True))
    data.prepare_data()
    assert data.size("train") == 18
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("Train", "Val", "Test"), ("training", "validation", "testing"), ("TRAIN", "valid", "TEST")],
)
def test_split_folders_are_found_as_people_name_them(tmp_path, train, val, test):
    for name, count in ((train, 8), (val, 3), (test, 2)):
        class_tree(tmp_path / name, {"cat": count, "dog": count})
    data = ImageFolder(root=str(tmp_path))
    assert [data.size(name) for name in ("train", "val", "test")] == [16, 6, 4]


def test_two_folders_for_one_split_are_refused(tmp_path):
    for name in ("train", "test", "val", "valid"):
        class_tree(tmp_path / name, {"cat": 2})
    with pytest.raises(UserError, match="has val and valid; keep one as its val split"):
        ImageFolder(root=str(tmp_path)).setup()


def test_a_folder_beside_the_splits_is_named(tmp_path, capsys):
    for name in ("train", "test", "holdout"):
        class_tree(tmp_path / name, {"cat": 20})
    (tmp_path / "notes.txt").write_text("x")
    data = ImageFolder(root=str(tmp_path))
    data.prepare_data()
    assert "folders beside the splits that are not used: holdout" in capsys.readouterr().out
    assert (str(tmp_path / "holdout"), "folder beside the splits") in data.skipped
    assert (str(tmp_path / "notes.txt"), "unknown suffix .txt") in data.skipped


def test_splits_without_classes_are_no_classes(tmp_path):
    for name in ("train", "test"):
        put(tmp_path / name / "1.png")
    with pytest.raises(UserError, match=r"train has no class folders; sort its images into .*WebImages"):
        ImageFolder(root=str(tmp_path)).setup()
