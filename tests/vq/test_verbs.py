"""VQ tokens through the verbs, from images to a probe, and what they cannot do."""

import json
import re

import pytest
import torch

from igpt.cli import main
from igpt.modules import load
from igpt.palette import open_tokens

CONFIG = """
model:
  class_path: igpt.modules.Autoregressive
  init_args:
    transformer: {n_layers: 1, d_model: 16, n_heads: 2}
    palette: q.safetensors
data:
  class_path: igpt_datamodules.SamplePhotos
  init_args: {resolution: 16, batch_size: 16, stride: 64}
trainer: {max_steps: 2, precision: 32-true, enable_progress_bar: false, log_every_n_steps: 1, accelerator: cpu}
samples: {num: 1, completions: 1}
"""
CKPT = "runs/tiny/checkpoints/last.ckpt"
PALETTE = "palette --kind vq --data SamplePhotos --data.resolution 16 --data.stride 64 --colors 16 --steps 3 --out"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    pytest.importorskip("vector_quantize_pytorch")
    folder = tmp_path_factory.mktemp("vq")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "c.yaml").write_text(CONFIG)
        assert main([*PALETTE.split(), "q.safetensors"]) == 0
        assert main(["fit", "--config", "c.yaml", "--name", "tiny"]) == 0
        (folder / "q.safetensors").unlink()  # the checkpoint stands alone
    return folder


def test_a_network_of_a_grid_of_a_quarter_draws_completes_and_probes(run, monkeypatch, capsys):
    monkeypatch.chdir(run)
    report = json.loads((run / "q.json").read_text())
    core = load(run / "runs/tiny/checkpoints/last.ckpt").module.core
    assert (core.shape, core.pixels, core.config.vocab_size) == ((4, 4), (16, 16), 16)
    assert core.palette.sha256 == report["sha256"]
    assert (
        main(["sample", "--ckpt", "runs/tiny", "--rows", "2", "--num", "1", "--out", "s.png", "--accelerator", "cpu"])
        == 0
    )
    assert "drew 16 VQ tokens of 2 images" in capsys.readouterr().out  # half of 16 each
    assert (
        main(
            [
                "test",
                "--config",
                "c.yaml",
                "--ckpt_path",
                CKPT,
                "--model.init_args.transformer.vocab_size",
                "16",
                "--name",
                "t",
            ]
        )
        == 0
    )
    assert "bits of VQ tokens" in capsys.readouterr().out
    assert main(["probe", "--ckpt", "runs/tiny", "--method", "knn", "--out", "p", "--accelerator", "cpu"]) == 0
    found, tested = (json.loads((run / name).read_text()) for name in ("p/probe.json", "runs/t/scores.json"))
    assert found["likelihood"]["of"] == "VQ tokens"
    assert f"{found['likelihood']['mean_nats']:.4f} nats per token" in capsys.readouterr().out
    assert found["likelihood"]["mean_nats"] == pytest.approx(tested[0]["likelihood"]["mean_nats"], rel=1e-5)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("sample --ckpt runs/tiny --rows 1 --mask q.png --out m.png --accelerator cpu", "VQ tokens"),
        ("sample --ckpt runs/tiny --resolution 32 --out m.png --accelerator cpu", "VQ tokens"),
        ("export --ckpt runs/tiny --format huggingface --out h", "VQ tokens"),
        (f"{PALETTE} x.npy", "safetensors"),
        (f"{PALETTE} x.safetensors --levels [8,1]", "at least 2"),
        ("palette --data SamplePhotos --levels [8,8] --out x.npy", "--kind vq"),
        ("palette --data SamplePhotos --steps 3 --out x.npy", "--kind vq"),
        ("fit --config c.yaml --data.init_args.resolution 18 --name no", "VQ tokens|palette"),
    ],
)
def test_what_cannot_be_is_one_line(run, monkeypatch, capsys, command, said):
    monkeypatch.chdir(run)
    assert main(command.split()) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1, error
    assert re.search(said, error[0]), error


def test_an_export_carries_the_tokeniser_and_comes_back_with_it(run, monkeypatch):
    monkeypatch.chdir(run)
    assert main(["export", "--ckpt", "runs/tiny", "--format", "safetensors", "--out", "exported"]) == 0
    card = (run / "exported/README.md").read_text()
    assert "over VQ tokens" in card
    assert "| images | 4x4 VQ tokens, raster order |" in card
    assert "| codes | 16 |" in card
    assert main(["import", "--path", "exported", "--out", "back.ckpt"]) == 0
    before, after = load(CKPT).module, load("back.ckpt").module
    assert before.palette.sha256 == after.palette.sha256
    assert all(torch.equal(one, after.state_dict()[name]) for name, one in before.state_dict().items())
    assert main(["sample", "--ckpt", "back.ckpt", "--num", "1", "--out", "back.png", "--accelerator", "cpu"]) == 0


def test_codes_may_be_the_points_of_a_grid(run, monkeypatch, capsys):
    monkeypatch.chdir(run)
    assert main(f"{PALETTE} grid.safetensors --levels [5,3]".split()) == 0
    assert "of 15 codes" in capsys.readouterr().out
    assert json.loads((run / "grid.json").read_text())["tokens"] == "vq:15,64,2,2,5x3"
    assert open_tokens("grid.safetensors").k == 15
