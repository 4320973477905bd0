"""`igpt classify` and `igpt embed`, and that the API gives what the verbs give, bit for bit."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

import igpt as api
from igpt.data import rng_of
from igpt.modules import EVALUATE
from igpt_datamodules import Digits
from tests.modules.test_finetune import fit, joint_model


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The digits' test images as files, in their order, and the labels."""
    folder, images = tmp_path_factory.mktemp("pictures"), Digits().images("test")
    for index in range(len(images)):
        Image.fromarray(images[index][0].permute(1, 2, 0).numpy()).save(folder / f"{index:03}.png")
    return folder, torch.as_tensor(images.labels).numpy()


@pytest.fixture(scope="module")
def command():
    """The real command in this process, for fixtures that outlive a test."""
    from igpt.cli import main

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, "", "see stderr"

    return run


@pytest.fixture(scope="module", params=["digits_run", "digits_bert_run"])
def joint(request, command, tmp_path_factory):
    """A fine-tuned AR or BERT and the accuracy that `igpt test` gives it."""
    run, place = request.getfixturevalue(request.param), tmp_path_factory.mktemp("joint")
    folder = fit(command, run, place, "joint", model=joint_model(pretrained=str(run.checkpoint)))
    checkpoint = folder / "checkpoints" / "last.ckpt"
    assert command("test", "--config", folder / "config.yaml", "--ckpt_path", checkpoint)[0] == 0
    return folder, json.loads((folder / "scores.json").read_text())


@pytest.fixture(scope="module")
def probe(digits_run, command, tmp_path_factory):
    """A probe of the digits run that was kept, and its record."""
    out = tmp_path_factory.mktemp("kept") / "probe"
    assert command("probe", "--ckpt", digits_run.checkpoint, "--out", out, "--save")[0] == 0
    return out, json.loads((out / "probe.json").read_text())


def test_accuracy_on_the_test_splits_files_is_that_of_igpt_test(joint, pictures, igpt, tmp_path):
    (run, scores), (folder, labels) = joint, pictures
    code, out, err = igpt("classify", folder, "--ckpt", run, "--out", tmp_path / "found.csv")
    assert (code, out) == (0, ""), err
    rows = rows_of(tmp_path / "found.csv")
    assert [row["file"] for row in rows] == sorted(map(str, folder.iterdir()))
    right = np.mean([int(row["class"]) for row in rows] == labels)
    (tested,) = (value for name, value in flat(scores) if name.endswith("test/accuracy"))
    assert np.float32(right) == pytest.approx(tested, abs=1e-7)
    assert "classified 359 of 359 pictures" in err


def rows_of(path):
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_vote_over_masks_is_that_of_the_test_of_every_batch(joint, pictures):
    model, data = api.load(joint[0]), Digits(batch_size=32)
    expected = []
    with torch.inference_mode():
        for number, (images, _) in enumerate(data.test_dataloader()):
            rng = rng_of(EVALUATE, 0, number)
            expected.append(model.module.predict_classes(model.module.core.encode(images), rng))
    found = model.predict(sorted(pictures[0].iterdir()))
    assert (found.labels == torch.cat([labels for labels, _ in expected]).numpy()).all()
    assert (found.probs == torch.cat([logits for _, logits in expected]).softmax(1).numpy()).all()


def flat(value, name=""):
    """Numbers in nested plain data, by their paths."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from flat(inner, name)
    elif isinstance(value, float):
        yield name, value


def test_by_a_probe_the_accuracy_is_that_of_probe_json(digits_run, probe, pictures, igpt):
    (out, record), (folder, labels) = probe, pictures
    model = api.load(digits_run.folder, probe=out)
    found = model.predict(sorted(folder.iterdir()))
    assert np.float32((found.labels == labels).mean()) == np.float32(record["best_test_accuracy"])
    assert found.names == tuple("0123456789")
    assert np.allclose(found.probs.sum(1), 1)
    code, table, err = igpt("classify", folder, "--ckpt", digits_run.checkpoint, "--probe", out, "--top", 2)
    assert code == 0, err
    lines = [line.split() for line in table.splitlines()]
    assert [line[2] for line in lines] == found.classes
    told = [[f"{100 * value:.1f} % {name}" for name, value in row] for row in found.top(2)]
    assert [[" ".join(line[:3]), " ".join(line[3:6])] for line in lines] == told


def test_a_probe_is_kept_by_lbfgs_alone_and_serves_its_own_checkpoint_alone(digits_run, digits_bert_run, probe, igpt):
    code, _, err = igpt("probe", "--ckpt", digits_run.checkpoint, "--method", "knn", "--save")
    assert (code, "--save" in err) == (2, True)
    with pytest.raises(api.UserError, match="of another checkpoint"):
        api.load(digits_bert_run.checkpoint, probe=probe[0])


def test_a_kept_probe_goes_aside_with_the_results_it_belongs_to_and_no_other_file_is_replaced(
    digits_run, digits_bert_run, igpt, tmp_path
):
    options, out = ["--layers", 1, "--out", tmp_path / "probe"], tmp_path / "probe"
    assert igpt("probe", "--ckpt", digits_run.checkpoint, *options, "--save")[0] == 0
    assert igpt("probe", "--ckpt", digits_bert_run.checkpoint, *options)[0] == 0
    assert not (out / "probe.safetensors").exists()
    assert api.load(digits_run.checkpoint, probe=tmp_path / "probe.1").class_names == tuple("0123456789")
    (out / "probe.safetensors").write_bytes(b"foreign")
    code, _, err = igpt("probe", "--ckpt", digits_bert_run.checkpoint, *options, "--save")
    assert (code, (out / "probe.safetensors").read_bytes()) == (2, b"foreign")
    assert "probe.safetensors" in err


def test_a_damaged_probe_is_refused_in_one_line(digits_run, probe, tmp_path):
    whole = (probe[0] / "probe.safetensors").read_bytes()
    for content in (b"", whole[:100], whole[:-5], whole.replace(b"layer", b"lawyer")):
        (tmp_path / "probe.safetensors").write_bytes(content)
        with pytest.raises(api.UserError, match="no probe that igpt kept"):
            api.load(digits_run.checkpoint, probe=tmp_path)


def test_an_exported_model_predicts_the_same_classes_by_their_names(joint, igpt, pictures, tmp_path):
    paths, whole = sorted(pictures[0].iterdir())[:20], api.load(joint[0])
    places = {"checkpoint": "model.ckpt"} | ({"huggingface": "."} if whole.module.core.causal else {})
    for format, place in places.items():
        out = tmp_path / format
        assert igpt("export", "--ckpt", whole.path, "--out", out, "--format", format)[0] == 0
        exported = api.load(out / place)
        if format == "huggingface":
            assert igpt("import", "--path", out, "--out", tmp_path / "back.ckpt")[0] == 0
            assert api.load(tmp_path / "back.classes.ckpt").class_names == whole.class_names
        assert exported.class_names == whole.class_names == tuple("0123456789")
        assert np.allclose(exported.predict(paths), whole.predict(paths), atol=1e-5)
        assert np.allclose(exported.nll(paths), whole.nll(paths), rtol=1e-4)


def test_of_a_thousand_files_ten_broken_ones_are_named_and_the_rest_classified(joint, igpt, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (1000, 8, 8, 3)).astype(np.uint8)
    for number in range(1000):
        Image.fromarray(picture[number]).save(tmp_path / f"{number:04}.bmp")
    lost = [tmp_path / f"{number:04}.bmp" for number in range(0, 1000, 100)]
    for number, path in enumerate(lost):
        path.write_bytes(path.read_bytes()[: 10 * number])
    (tmp_path / "notes.txt").write_text("no picture")
    code, out, err = igpt("classify", tmp_path, "--ckpt", joint[0], "--workers", 2)
    assert code == 0
    assert len(out.splitlines()) == 990
    assert not {str(path) for path in lost} & {line.split()[-1] for line in out.splitlines()}
    named = [line for line in err.splitlines() if line.startswith("igpt classify: ")]
    assert len(named) == 10
    assert all(str(path) in line for path, line in zip(lost, named, strict=True))
    assert "classified 990 of 1,000 pictures; 10 cannot be read" in err
    code, out, err = igpt("classify", *lost, "--ckpt", joint[0])
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "igpt classify: none of the 10 pictures can be read, as listed"
    assert len(err.splitlines()) == 12


def test_json_has_the_classes_and_what_cannot_be_read(digits_run, probe, pictures, igpt, tmp_path):
    files = [pictures[0] / "000.png", tmp_path / "x.png"]
    files[1].write_bytes(b"x")
    options = ["--ckpt", digits_run.folder, "--probe", probe[0], "--out", tmp_path / "found.json"]
    for _ in range(2):  # an earlier table is replaced
        assert igpt("classify", *files, *options, "--top", 3)[0] == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["classes"] == list("0123456789")
    (picture,) = found["pictures"]
    assert picture["file"] == str(files[0])
    assert [picture["class"], picture["probability"]] == picture["top"][0]
    assert len(picture["top"]) == 3
    assert [one["file"] for one in found["unreadable"]] == [str(files[1])]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["classify", "--ckpt", "{ckpt}"], "required: --files"),
        (["classify", "nowhere.png", "--ckpt", "{ckpt}"], "nowhere.png does not exist"),
        (["classify", "{home}/palettes/digits.png", "--ckpt", "{ckpt}"], "--probe FOLDER"),
        (["classify", "{home}/palettes/digits.png", "--ckpt", "{ckpt}", "--probe", "none"], "--probe none"),
        (["classify", "{home}/palettes/digits.png", "--ckpt", "{ckpt}", "--out", "x.txt"], "--out x.txt"),
        (["classify", "{home}/palettes/digits.png", "--ckpt", "{ckpt}", "--top", "0"], "--top 0"),
        (["classify", "{home}/palettes/digits.png", "--ckpt", "{home}/palettes"], "folder without a checkpoint"),
        (["classify", "{home}/runs/mini/checkpoints", "--ckpt", "{ckpt}"], "has no pictures"),
        (["embed", "{home}/palettes/digits.png", "--ckpt", "{ckpt}", "--out", "x.npy"], "--layers"),
        (["embed", "{home}/palettes", "--ckpt", "{ckpt}", "--layers", "9", "--out", "x.npy"], "--layers 9"),
        (["embed", "{home}/palettes", "--ckpt", "{ckpt}", "--layers", "x", "--out", "x.npy"], "--layers 'x'"),
        (["embed", "{home}/palettes", "--ckpt", "{ckpt}", "--layers", "1,2", "--out", "x.npy"], ".npz"),
        (["embed", "{home}/palettes", "--ckpt", "{ckpt}", "--layers", "1", "--out", "x.csv"], ".npy"),
        (["embed", "{home}/palettes", "--ckpt", "{ckpt}", "--layers", "1", "--out", "{home}/palettes/digits.npy"],
         "digits.npy"),
    ],
)  # fmt: skip
def test_what_is_off_is_said_in_one_line_that_names_the_option(digits_run, igpt, arguments, words):
    filled = [word.format(ckpt=digits_run.checkpoint, home=digits_run.home) for word in arguments]
    code, out, err = igpt(*filled)
    lines = [line for line in err.splitlines() if not line.startswith("precision ")]
    assert (code, out, len(lines)) == (2, "", 1), err
    assert words in err


def test_embeddings_are_the_features_of_the_api_with_the_file_of_each_row(digits_run, pictures, igpt, tmp_path):
    folder, _ = pictures
    code, _, err = igpt("embed", folder, "--ckpt", digits_run.folder, "--layers", 2, "--out", tmp_path / "emb.npy")
    assert code == 0, err
    found = np.load(tmp_path / "emb.npy")
    paths = (tmp_path / "emb.txt").read_text().splitlines()
    assert paths == sorted(map(str, folder.iterdir()))
    model = api.load(digits_run.folder)
    assert (found == model.features(paths, [2])[2]).all()
    options = ["--ckpt", digits_run.folder, "--layers", "2,-1", "--out", tmp_path / "emb.npz"]
    assert igpt("embed", *paths[:5], *options)[0] == 0
    with np.load(tmp_path / "emb.npz") as several:
        assert sorted(several.files) == ["files", "layer_2", "layer_3"]
        assert (several["files"] == paths[:5]).all()
        assert several["layer_2"].shape == (5, 32)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_features_are_those_that_a_probe_extracts_in_the_same_precision(
    digits_run, pictures, igpt, tmp_path, precision
):
    options = ["--out", tmp_path / "p", "--store", tmp_path / "store", "--dtype", "float32", "--precision", precision]
    assert igpt("probe", "--ckpt", digits_run.checkpoint, "--layers", "1,2", "--method", "knn", *options)[0] == 0
    model = api.load(digits_run.checkpoint, precision=precision)
    found = model.features(sorted(pictures[0].iterdir()), layers=[1, 2])
    assert (np.load(tmp_path / "store" / "test_features.npy") == np.stack([found[1], found[2]])).all()


def test_the_nll_is_that_of_igpt_test_and_of_igpt_surprise(digits_run, pictures, igpt, tmp_path):
    model, paths = api.load(digits_run.folder), sorted(pictures[0].iterdir())
    code, _, err = igpt("test", "--config", digits_run.folder / "config.yaml", "--runs_dir", tmp_path, "--ckpt_path",
                        digits_run.checkpoint)  # fmt: skip
    assert code == 0, err
    rows = rows_of(tmp_path / "mini" / "likelihood" / "test.csv")
    tested = np.array([row["nats_per_pixel"] for row in rows], dtype=np.float32)
    assert (model.nll(paths) / np.float32(64) == tested).all()
    assert igpt("surprise", *paths[:20], "--ckpt", digits_run.checkpoint, "--out", tmp_path / "s.png")[0] == 0
    assert (model.nll(paths[:20], per_pixel=True) == np.load(tmp_path / "s.npy")).all()


@pytest.mark.parametrize("name", ["digits_run", "digits_bert_run"])
def test_samples_and_completions_are_those_of_igpt_sample(request, pictures, igpt, tmp_path, name):
    run, paths = request.getfixturevalue(name), sorted(pictures[0].iterdir())[:3]
    model = api.load(run.checkpoint)
    options = ["--ckpt", run.checkpoint, "--top_k", 5, "--seed", 3]
    assert igpt("sample", *options, "--num", 6, "--out", tmp_path / "new.png")[0] == 0
    assert (model.palette.encode(model.sample(6, top_k=5, seed=3)) == np.load(tmp_path / "new.npy")).all()
    assert igpt("sample", *options, "--complete", *paths, "--num", 2, "--out", tmp_path / "done.png")[0] == 0
    done = model.complete(paths, num=2, top_k=5, seed=3)
    assert (done == model.palette.decode(np.load(tmp_path / "done.npy"))).all()
