import pytest
import torch

from igpt.checkpoints.spec import build
from igpt.data import ImageDataModule, SplitOptions, rng_of
from igpt.system.errors import UserError
from igpt.testing import check_data_module
from igpt_datamodules import ImageFolder, ImageNet, WebImages
from tests.datamodules.pictures import class_tree, encoded, picture, unreadable_folder

SPLITS = ("train", "val", "test")


def files(data, name):
    images = data.images(name)
    if hasattr(images, "indices"):
        return [images.base.stored[index].file for index in images.indices]
    return [stored.file for stored in images.stored]


def sizes(data):
    return [data.size(name) for name in SPLITS]


@pytest.fixture
def imagenet(tmp_path):
    """A small ILSVRC tree: 300 training images in 3 classes of unlike size, 30 official validation images."""
    class_tree(tmp_path / "train", {"n01440764": 150, "n01443537": 100, "n01484850": 50}, size=(50, 38))
    class_tree(tmp_path / "val", {"n01440764": 10, "n01443537": 10, "n01484850": 10})
    return lambda **options: ImageNet(root=str(tmp_path), batch_size=8, **options)


def test_imagenet_keeps_the_contract_and_four_percent_validate_stratified(imagenet):
    check_data_module(imagenet)
    data = imagenet()
    assert sizes(data) == [288, 12, 30]
    assert torch.bincount(data.images("val").labels).tolist() == [6, 4, 2]
    assert (data.num_classes, data.class_names) == (3, ("n01440764", "n01443537", "n01484850"))


def test_imagenet_splits_are_disjoint_and_follow_the_seed_and_the_official_val_is_the_test(imagenet):
    data = imagenet()
    assert not set(files(data, "train")) & set(files(data, "val"))
    assert len(set(files(data, "train") + files(data, "val"))) == 300
    assert all("/val/" in file for file in files(data, "test"))
    assert files(imagenet(), "val") == files(data, "val") != files(imagenet(seed=1), "val")


def test_four_percent_of_the_whole_of_imagenet_are_51247_images():
    assert round(1_281_167 * ImageNet().split.val_share) == 51_247


def test_training_draws_random_crops_and_evaluation_never_does(imagenet):
    train = imagenet().images("train")
    assert train.augments
    crops = [train.draw(0, rng_of(0, epoch, 0))[0] for epoch in (0, 0, 1)]
    assert torch.equal(crops[0], crops[1])
    assert not torch.equal(crops[0], crops[2])
    assert torch.equal(train[0][0], train[0][0])
    plain = imagenet(augment=False).images("train")
    assert torch.equal(plain.draw(0, rng_of(0))[0], train[0][0])


def test_missing_imagenet_folders_are_one_line_that_names_the_archives(tmp_path):
    with pytest.raises(UserError, match=r"no folder .*train; put ILSVRC2012_img_train\.tar") as error:
        ImageNet(root=str(tmp_path)).prepare_data()
    assert "\n" not in str(error.value)


def test_official_validation_images_that_are_not_sorted_into_classes_are_named(imagenet, tmp_path):
    for folder in (tmp_path / "val").iterdir():
        folder.rename(tmp_path / folder.name)
    with pytest.raises(UserError, match="val has no class folders; sort"):
        imagenet().setup()


def test_one_tree_of_classes_gives_stratified_disjoint_splits(tmp_path):
    class_tree(tmp_path, {"cat": 60, "dog": 40})

    def make(**options):
        return ImageFolder(root=str(tmp_path), batch_size=8, **options)

    check_data_module(make)
    data = make()
    assert sizes(data) == [81, 9, 10]
    assert torch.bincount(data.images("test").labels).tolist() == [6, 4]
    assert len({file for name in SPLITS for file in files(data, name)}) == 100
    assert files(make(seed=3), "test") == files(data, "test") != files(make(test_seed=3), "test")
    assert data.class_names == ("cat", "dog")


def test_folders_of_their_own_are_the_splits(tmp_path):
    for name, count in (("train", 20), ("val", 6), ("test", 4)):
        class_tree(tmp_path / name, {"cat": count, "dog": count})

    def make(**options):
        return ImageFolder(root=str(tmp_path), batch_size=8, **options)

    check_data_module(make)
    assert sizes(make()) == [40, 12, 8]
    assert all(f"/{name}/" in file for name in SPLITS for file in files(make(), name))
    folded = make(split=SplitOptions(fold_validation=True))
    assert sizes(folded) == [52, 12, 8]
    assert sizes(make(split=SplitOptions(labels_per_class=3))) == [6, 12, 8]


@pytest.mark.parametrize("kind", [ImageFolder, WebImages])
def test_an_archive_in_place_of_a_folder_is_named_as_what_it_is(tmp_path, kind):
    archive = tmp_path / "pictures.zip"
    archive.write_bytes(b"PK")
    with pytest.raises(UserError, match=r"pictures\.zip is a file, not a folder \(an archive must be unpacked\)"):
        kind(root=str(archive)).setup()


def test_a_class_that_training_lacks_a_missing_test_and_an_empty_class_are_named(tmp_path):
    class_tree(tmp_path / "train", {"cat": 10})
    with pytest.raises(UserError, match=r"folder .*test is missing"):
        ImageFolder(root=str(tmp_path)).setup()
    class_tree(tmp_path / "test", {"dog": 3})
    with pytest.raises(UserError, match=r"test/dog: no class of the training images"):
        ImageFolder(root=str(tmp_path)).setup()
    (tmp_path / "train" / "dog").mkdir()
    with pytest.raises(UserError, match=r"train/dog has no images"):
        ImageFolder(root=str(tmp_path)).setup()


@pytest.mark.parametrize("wrong", [{"root": "nowhere"}, {"test_share": 0.0}, {"test_share": 1.0}])
def test_wrong_options_are_one_line(wrong):
    with pytest.raises(UserError, match=r"nowhere|test_share"):
        ImageFolder(**wrong).prepare_data()


def test_a_broken_labelled_image_is_named(tmp_path):
    class_tree(tmp_path, {"cat": 10})
    (tmp_path / "cat" / "cat_5.JPEG").write_bytes(b"")
    data = ImageFolder(root=str(tmp_path), batch_size=4, split=SplitOptions(val_share=0.2))
    with pytest.raises(UserError, match=r"cat_5\.JPEG: zero bytes; mend or remove"):
        [batch for name in SPLITS for batch in data.loader(name)]


def test_only_images_count(tmp_path):
    class_tree(tmp_path, {"cat": 10})
    (tmp_path / "cat" / "readme.txt").write_text("no image")
    (tmp_path / "cat" / "deeper").mkdir()
    (tmp_path / "cat" / "deeper" / "more.png").write_bytes(encoded(picture(0), "PNG"))
    data = ImageFolder(root=str(tmp_path), split=SplitOptions(val_share=0.2))
    assert sum(sizes(data)) == 11


def test_a_class_with_a_folder_that_cannot_be_read_is_refused_in_one_line(tmp_path, monkeypatch):
    class_tree(tmp_path / "pictures", {"cat": 20, "dog": 20})
    unreadable_folder(tmp_path / "pictures" / "dog", monkeypatch)
    with pytest.raises(UserError, match=r"folder .*/dog/aaa.* cannot be read \(File name too long\)") as error:
        ImageFolder(root=str(tmp_path / "pictures")).prepare_data()
    assert "\n" not in str(error.value)


NUMBERED = {str(number): 12 for number in (1, 2, 10)}


def test_classes_are_ordered_as_people_count_or_by_code_point_or_as_listed(tmp_path):
    class_tree(tmp_path, NUMBERED)
    names = {"natural": ("1", "2", "10"), "sorted": ("1", "10", "2")}
    for order, expected in names.items():
        data = ImageFolder(root=str(tmp_path), classes=order)
        data.setup()
        assert data.class_names == expected
        labels = {files(data, "test")[i]: int(data.images("test").labels[i]) for i in range(data.size("test"))}
        assert all(expected[label] == file.split("/")[-2] for file, label in labels.items())
    listed = ImageFolder(root=str(tmp_path), classes=["10", "2", "1"])
    listed.setup()
    assert listed.class_names == ("10", "2", "1")


def test_the_test_split_is_the_same_whatever_the_order_of_the_classes(tmp_path):
    class_tree(tmp_path, NUMBERED)
    orders = ("natural", "sorted", ["10", "2", "1"])
    tested = [set(files(ImageFolder(root=str(tmp_path), classes=order), "test")) for order in orders]
    assert tested[0] == tested[1] == tested[2]


def test_the_order_of_the_classes_travels_in_the_checkpoint_and_old_ones_keep_theirs(tmp_path):
    class_tree(tmp_path, NUMBERED)
    data = ImageFolder(root=str(tmp_path))
    data.setup()
    spec = data.spec()
    assert spec["init_args"]["classes"] == ["1", "2", "10"]
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "new.png").write_bytes(encoded(picture(0), "PNG"))
    with pytest.raises(UserError, match=r"folder .*/0: no class"):
        build(spec, ImageDataModule, {"igpt_datamodules"}).setup()
    (tmp_path / "0" / "new.png").unlink()
    (tmp_path / "0").rmdir()
    del spec["init_args"]["classes"]  # as it was before there was a choice
    old = build(spec, ImageDataModule, {"igpt_datamodules"})
    old.setup()
    assert old.class_names == ("1", "10", "2")


def test_bad_pictures_can_be_skipped_as_web_images_does(tmp_path, capsys):
    class_tree(tmp_path, {"cat": 30, "dog": 30})
    (tmp_path / "cat" / "cat_5.JPEG").write_bytes(b"")
    data = ImageFolder(root=str(tmp_path), on_error="skip")
    data.prepare_data()
    assert sum(sizes(data)) == 59
    assert data.skipped == [(str(tmp_path / "cat" / "cat_5.JPEG"), "zero bytes")]
    assert "59 images; 1 skipped: 1 zero bytes" in capsys.readouterr().out
    assert sum(len(labels) for name in SPLITS for _, labels in data.loader(name)) == 59
    with pytest.raises(UserError, match=r"1 skipped.*of 60 in .*max_bad_share"):
        ImageFolder(root=str(tmp_path), on_error="skip", max_bad_share=0.01).setup()
