"""Bad input to `igpt probe`: one line that names the option or file, exit 2, and nothing left behind or touched."""

import shutil

import pytest
import torch
from PIL import Image

ONE_CLASS, UNLABELLED = "--data: all images have the same label", "--data: some images have no label"


@pytest.fixture(name="refused")
def probe_refused(refused, digits_run):
    """`igpt probe` of the digits' checkpoint, or of another one, is refused."""

    def check(*options, words, ckpt=digits_run.checkpoint):
        refused("probe", "--ckpt", ckpt, "--out", "p", *options, words=words)

    return check


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "guess"], ["--method guess", "lbfgs, sgd, knn"]),
        (["--method", "lbfgs,guess,all"], ["--method guess,all"]),
        (["--method", ""], ["--method"]),
        (["--method", "attentive", "--concat", "2"], ["--concat", "attentive"]),
        (["--method", "knn,attentive", "--grid", "2"], ["--grid 2", "attentive"]),
        (["--method", "lbfgs,"], ["--method"]),
        (["--method", "LBFGS"], ["--method LBFGS"]),
        (["--layers", "4"], ["--layers 4", "0 to 3"]),
        (["--layers", "0,1,-1"], ["--layers -1", "0 to 3"]),
        (["--layers", "1-3"], ["--layers", "1-3"]),
        (["--layers", "1.5"], ["--layers", "1.5"]),
        (["--layers", ","], ["--layers"]),
        (["--concat", "1"], ["--concat 1", "between 2 and 4"]),
        (["--concat", "5"], ["--concat 5", "between 2 and 4"]),
        (["--concat", "-3"], ["--concat -3"]),
        (["--concat", "three"], ["--concat", "three"]),
        (["--concat", "2", "--layers", "0,1"], ["--concat", "--layers"]),
        (["--labels_per_class", "0"], ["--labels_per_class", "at least 1"]),
        (["--labels-per-class", "4", "-25"], ["--labels_per_class", "at least 1"]),
        (["--labels-per-class", "4,25"], ["--labels_per_class", "4,25"]),
        (["--labels-per-class", "4", "many"], ["--labels_per_class", "many"]),
        (["--labels_per_class", "[]"], ["--labels_per_class"]),
        (["--labels_per_class"], ["--labels_per_class"]),
        (["--labels_per_class", "4", "1000"], ["--labels_per_class 1000", "has only 1"]),
        (["--labels_per_class", "4", "--subsets", "0"], ["--subsets"]),
        (["--subsets", "-1"], ["--subsets"]),
        (["--epochs", "0", "--method", "sgd"], ["--epochs"]),
        (["--norm", "batch"], ["--norm", "batch"]),
        (["--grid", "0"], ["--grid 0", "1 and 8"]),
        (["--grid", "9"], ["--grid 9", "1 and 8"]),
        (["--grid", "2x2"], ["--grid", "2x2"]),
        (["--masks", "1"], ["--masks 1", "only BERT"]),
        (["--masks", "-1"], ["--masks -1"]),
        (["--standardise", "perhaps"], ["--standardise", "perhaps"]),
        (["--dtype", "float64"], ["--dtype", "float64"]),
        (["--precision", "16-mixed"], ["--precision", "16-mixed"]),
        (["--accelerator", "abacus"], ["--accelerator abacus"]),
        (["--accelerator", "gpu"], ["--accelerator gpu", "no GPU"]),
        (["--label-per-class", "4"], ["--label-per-class"]),
        (["stray"], ["stray"]),
        (["--config", "gone.yaml"], ["gone.yaml"]),
        (["--data", "Digit"], ["--data", "Digits"]),
        (["--data", "Digits", "--data.split.val_share", "2"], ["val_share"]),
        (["--data", "Digits", "--data.split.labels_per_class", "500"], ["labels_per_class 500"]),
        (["--data", "Digits", "--data.resolution", "16"], ["16x16", "8x8"]),
        (["--data", "SamplePhotos"], ["32x32", "8x8"]),
    ],
    ids=lambda value: " ".join(value) if value and (value[0][:2] == "--" and " " not in value[0]) else "",
)
def test_one_option_that_is_off(refused, options, words):
    if options == ["--accelerator", "gpu"] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    refused(*options, words=words)


def test_more_labels_than_a_class_has_names_the_option_that_was_given(refused):
    refused("--labels-per-class", 126, words=["--labels_per_class 126", "training images"])


def test_masks_of_bert_below_zero(refused, digits_bert_run):
    refused("--masks", -2, ckpt=digits_bert_run.checkpoint, words=["--masks -2"])


@pytest.mark.parametrize(("data", "words"), [("ImageFolder", ONE_CLASS), ("WebImages", UNLABELLED)])
def test_images_of_one_class_or_of_none_cannot_be_probed(refused, tmp_path, data, words):
    (tmp_path / "images" / "only").mkdir(parents=True)
    for index in range(24):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / "images" / "only" / f"{index}.png")
    refused("--data", data, "--data.root", "images", "--data.resolution", 8, words=[words])


@pytest.fixture
def store(igpt, digits_run, tmp_path):
    """A store that fits, of layers 1 and 2."""
    words = ["--method", "knn", "--layers", "1,2", "--out", tmp_path / "made", "--store", tmp_path / "mine"]
    assert igpt("probe", "--ckpt", digits_run.checkpoint, *words)[0] == 0
    shutil.rmtree(tmp_path / "made")
    return tmp_path / "mine"


def test_a_store_that_is_none(refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "manifest.json").write_text("{}")
    for name, words in {
        "file": "no feature store",
        ".": "no manifest.json",
        "pictures": "manifest.json is damaged",
        "file/store": "file/store: Not a directory",
    }.items():
        refused("--store", name, words=[name, words])


def test_a_store_that_was_damaged(refused, store):
    train, labels, manifest = (store / name for name in ("train_features.npy", "val_labels.npy", "manifest.json"))
    for path, change, words in [
        (train, lambda whole: whole[:-1], "train_features.npy is"),
        (train, lambda whole: whole + whole, "train_features.npy is"),
        (train, lambda whole: whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:], "train_features.npy was changed"),
        (labels, lambda whole: whole[:-8] + bytes(8), "val_labels.npy was changed"),
        (manifest, lambda whole: whole.replace(b'"float16"', b'"float32"', 1), "manifest.json is damaged"),
        (manifest, lambda whole: whole[:100], "manifest.json is damaged"),
        (manifest, lambda whole: b"", "manifest.json is damaged"),
    ]:
        whole = path.read_bytes()
        changed = change(whole)
        assert changed != whole
        path.write_bytes(changed)
        refused("--store", "mine", "--layers", "1,2", words=["--store mine", words])
        path.write_bytes(whole)
    labels.unlink()
    refused("--store", "mine", "--layers", "1,2", words=["--store mine", "val_labels.npy is missing"])


def test_a_store_of_other_layers_options_or_data(refused, store, digits_run):
    other = "something else"
    refused("--store", "mine", words=["--store mine", "lacks layers 0,3"])
    refused("--store", "mine", "--layers", 3, words=["--store mine", "lacks layers 3"])
    refused("--store", "mine", "--layers", 1, "--grid", 2, words=["--store mine", other, "features"])
    refused("--store", "mine", "--layers", 1, "--dtype", "float32", words=["--store mine", other, "dtype"])
    seeded = ["--data", "Digits", "--data.seed", 4]
    refused("--store", "mine", "--layers", 1, *seeded, words=["--store mine", other, "data, images"])
    earlier = digits_run.folder / "checkpoints" / "step=0000020.ckpt"
    refused("--store", "mine", "--layers", 1, ckpt=earlier, words=["--store mine", other, "checkpoint_sha256"])


def test_an_out_that_is_a_file(refused, tmp_path):
    (tmp_path / "p").write_text("mine")
    refused("--layers", 1, words=["p", "choose another"])
