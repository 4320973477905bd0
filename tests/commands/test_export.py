"""`igpt export`: what `transformers` loads of it, offline, and what a model card says."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import ImageGPTForCausalImageModeling, ImageGPTForImageClassification, ImageGPTImageProcessor

import igpt as api
from igpt.checkpoints.format import CHECKPOINT_KEY, read_checkpoint
from igpt.checkpoints.spec import build
from igpt.modules import PixelModule
from igpt_datamodules import Digits
from tests.interop.models import begun, save, theirs


@pytest.fixture(scope="module")
def exported(digits_run, tmp_path_factory):
    """The digits' run, tested and probed by the real commands, as a folder for Hugging Face."""
    from igpt.cli import main

    run, out = digits_run, tmp_path_factory.mktemp("export") / "digits"
    where = ["--config", str(run.config), "--runs_dir", str(run.home / "runs"), "--ckpt_path", str(run.checkpoint)]
    assert main(["test", *where]) == 0
    assert main(["probe", "--ckpt", str(run.checkpoint), "--layers", "0,2"]) == 0
    assert main(["export", "--ckpt", str(run.checkpoint), "--out", str(out)]) == 0
    return run, out


def test_their_model_loads_all_of_it_and_gives_our_logits(exported):
    run, out = exported
    model, info = ImageGPTForCausalImageModeling.from_pretrained(out, output_loading_info=True)
    assert not any(info.values()), info
    module = api.load(run.checkpoint).module
    tokens = torch.randint(17, (4, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = module.transformer(tokens, causal=True)
        found = model.eval()(begun(tokens, 17)).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_their_processor_gives_the_tokens_of_our_palette(exported):
    run, out = exported
    processor = ImageGPTImageProcessor.from_pretrained(out)
    data = Digits()
    images = torch.stack([data.images("test")[i][0] for i in range(100)])
    tokens = api.load(run.checkpoint).module.palette.encode(images)
    assert torch.equal(processor(list(images), return_tensors="pt").input_ids, tokens)


def test_the_way_back_gives_the_same_bits(exported, igpt, tmp_path):
    run, out = exported
    code, _, err = igpt("import", "--path", out, "--out", tmp_path / "back.ckpt")
    assert code == 0, err
    before = read_checkpoint(run.checkpoint)["state_dict"]
    after = read_checkpoint(tmp_path / "back.ckpt")["state_dict"]
    assert set(before) == set(after)
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name


def test_imported_and_exported_again_their_file_has_the_same_bits(igpt, tmp_path):
    save(theirs("one head"), tmp_path / "theirs")
    for arguments in (["import", "--path", tmp_path / "theirs", "--out", tmp_path / "x.ckpt"],
                      ["export", "--ckpt", tmp_path / "x.ckpt", "--out", tmp_path / "again"]):  # fmt: skip
        code, _, err = igpt(*arguments)
        assert code == 0, err
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "again"))
    assert set(before) == set(after)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    clusters = [json.loads((tmp_path / name / "preprocessor_config.json").read_text())["clusters"]
                for name in ("theirs", "again")]  # fmt: skip
    assert clusters[0] == clusters[1]


def test_the_card_says_how_it_was_trained_and_scored(exported):
    run, out = exported
    card = (out / "README.md").read_text()
    score = json.loads((run.folder / "scores.json").read_text())[-1]["metrics"]["test/loss"]
    probe = json.loads((run.folder / "probe" / "probe.json").read_text())
    best = next(row for row in probe["layers"] if row["layer"] == probe["best_layer"])
    for words in ("# mini", "optimizer steps | 30", "learning_rate | 0.01", "igpt_datamodules", "Digits", "igpt fit",
                  f"test/loss on Digits 8x8 | {score:.4f}", f"{100 * best['test_accuracy']:.1f} % at layer",
                  "from_pretrained", "start = torch.full((1, 1), 17)"):  # fmt: skip
        assert words in card, words


def test_the_card_has_no_probe_of_another_file_at_the_same_step(exported, igpt, tmp_path):
    run, _ = exported
    folder = shutil.copytree(run.folder, tmp_path / "mini", symlinks=True)
    file = folder / "probe" / "probe.json"
    probe = json.loads(file.read_text())
    for checksum, shown in ((probe["checkpoint_sha256"], True), ("0" * 64, False), (None, True)):
        file.write_text(json.dumps(probe | {"checkpoint_sha256": checksum}))
        code, _, err = igpt("export", "--ckpt", folder / "checkpoints" / "last.ckpt", "--out", tmp_path / "out")
        assert code == 0, err
        assert ("linear probe" in (tmp_path / "out" / "README.md").read_text()) == shown


def test_the_card_tells_a_probe_that_was_moved_aside_from_the_last_and_leaves_out_what_is_broken(exported, igpt,
                                                                                                tmp_path):  # fmt: skip
    run, _ = exported
    folder = shutil.copytree(run.folder, tmp_path / "<b>|mini", symlinks=True)
    record = json.loads((folder / "probe" / "probe.json").read_text())
    features = {**record["features"], "norm": "raw"}
    for number, checksum in ((1, record["checkpoint_sha256"]), (2, "0" * 64)):
        (folder / f"probe.{number}").mkdir()
        changed = record | {"features": features, "checkpoint_sha256": checksum}
        (folder / f"probe.{number}" / "probe.json").write_text(json.dumps(changed))
    (folder / "scores.json").write_text("[1, 2")
    code, _, err = igpt("export", "--ckpt", folder / "checkpoints" / "last.ckpt", "--out", tmp_path / "out")
    assert code == 0
    (line,) = err.splitlines()
    assert "left out" in line
    assert "scores.json" in line
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# &lt;b&gt;\\|mini\n" in card
    rows = [line for line in card.splitlines() if "probe" in line and "test accuracy" in line]
    assert [("probe.1" in row, "raw" in row) for row in rows] == [(False, False), (True, True)]


def test_the_cards_own_lines_of_code_run(exported):
    _, out = exported
    card = (out / "README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0].replace("PATH OF THIS FOLDER", str(out))
    image = np.full((20, 20, 3), 200, np.uint8)
    names = {"image": image}
    exec(code, names)
    assert names["logits"].shape == (1, 64, 17)
    assert names["drawn"].shape == (1, 64)


def test_a_card_without_any_record_says_so(digits_run, igpt, tmp_path):
    copied = tmp_path / "alone.ckpt"
    copied.write_bytes(digits_run.checkpoint.read_bytes())
    code, _, err = igpt("export", "--ckpt", copied, "--out", tmp_path / "out")
    assert code == 0, err
    assert "Not yet: `igpt test`" in (tmp_path / "out" / "README.md").read_text()


def joint_of(checkpoint, path, head):
    """A fine-tuned checkpoint: the network of another, and a class head."""
    content = read_checkpoint(checkpoint)
    spec = {"class_path": "igpt.modules.joint.Joint",
            "init_args": {"num_classes": len(head), "generative": content[CHECKPOINT_KEY]["model"]}}  # fmt: skip
    state = {f"generative.{name}": tensor for name, tensor in content["state_dict"].items()}
    torch.save({"state_dict": state | {"classifier.weight": head}, "global_step": 5,
                CHECKPOINT_KEY: {"format": 1, "model": spec, "data": None}}, path)  # fmt: skip
    return path


def test_a_class_head_goes_along_and_their_classifier_gives_our_classes(digits_run, igpt, tmp_path, caplog):
    joint = joint_of(digits_run.checkpoint, tmp_path / "joint.ckpt", torch.randn(10, 32))
    code, _, err = igpt("export", "--ckpt", joint, "--out", tmp_path / "out")
    assert code == 0, err
    caplog.set_level(logging.ERROR)  # they name lm_head as not used, rightly
    model = ImageGPTForImageClassification.from_pretrained(tmp_path / "out").eval()
    tokens = torch.randint(17, (4, 64))
    with torch.inference_mode():
        expected = api.load(joint).module.class_logits(tokens)
        found = model(begun(tokens, 17)).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("run", ["digits_run", "digits_bert_run"])
def test_safetensors_hold_every_tensor_under_our_names_and_build_again(request, igpt, tmp_path, run):
    checkpoint = request.getfixturevalue(run).checkpoint
    code, _, err = igpt("export", "--ckpt", checkpoint, "--out", tmp_path / "out", "--format", "safetensors")
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "igpt.json", "model.safetensors"]
    spec = json.loads((tmp_path / "out" / "igpt.json").read_text())["model"]
    module = build(spec, PixelModule, {"igpt"})
    module.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"))
    expected = read_checkpoint(checkpoint)["state_dict"]
    assert all(torch.equal(tensor, expected[name]) for name, tensor in module.state_dict().items())


def test_an_earlier_export_is_replaced(digits_run, igpt, tmp_path):
    for form in ("safetensors", "huggingface"):
        code, _, err = igpt("export", "--ckpt", digits_run.checkpoint, "--out", tmp_path / "out", "--format", form)
        assert code == 0, err
    assert not (tmp_path / "out" / "igpt.json").exists()


def test_a_folder_from_elsewhere_with_the_same_files_is_not_replaced(digits_run, igpt, tmp_path):
    folder = tmp_path / "downloaded"
    folder.mkdir()
    for name, text in (("config.json", "{}"), ("model.safetensors", "weights"), ("README.md", "# ImageGPT\n")):
        (folder / name).write_text(text)
        code, _, err = igpt("export", "--ckpt", digits_run.checkpoint, "--out", folder)
        assert (code, len(err.splitlines())) == (2, 1)
        assert "--out" in err
    assert (folder / "model.safetensors").read_text() == "weights"
