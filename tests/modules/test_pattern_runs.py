"""Networks with patterns, offsets and hashing go through every command."""

import json

import numpy as np
import pytest
import torch
import yaml

import igpt as api

SHAPES = {
    "patterns": {
        "positions": "bias",
        "attention": [
            {"pattern": "rows", "k": 2},
            [{"pattern": "window", "k": 2}, {"pattern": "strided", "part": "row"}],
        ],
    },
    "hashed": {"attention": ["lsh", "axial"]},
    "turning": {"positions": "rope"},
}
FEW = ["--trainer.max_steps", 4, "--trainer.val_check_interval", 4, "--samples.num", 0, "--samples.completions", 0,
       "--checkpoint.at_steps", "[2]"]  # fmt: skip


@pytest.fixture(scope="module")
def made(digits_run, tmp_path_factory):
    """`made(name)` is the folder of a short run of that shape, trained once."""
    from igpt.cli import main

    home, done = tmp_path_factory.mktemp("patterns"), {}

    def of(name):
        if name not in done:
            config = yaml.safe_load(digits_run.config.read_text())
            config["model"]["init_args"]["transformer"] |= SHAPES[name]
            (home / f"{name}.yaml").write_text(yaml.safe_dump(config))
            assert (
                main(list(map(str, ["fit", "--config", home / f"{name}.yaml", "--runs_dir", home / "runs", *FEW]))) == 0
            )
            done[name] = home / "runs" / name
        return done[name]

    return of


@pytest.mark.parametrize("name", ["patterns", pytest.param("hashed", marks=pytest.mark.slow), "turning"])
def test_a_run_that_goes_on_ends_with_the_weights_of_one_that_was_not_interrupted(made, igpt, name):
    folder = made(name)
    middle = folder / "checkpoints" / "step=0000002.ckpt"
    common = ["--config", folder.parents[1] / f"{name}.yaml", "--runs_dir", folder.parent, *FEW]
    code, _, err = igpt("fit", *common, "--name", f"{name}_again", "--ckpt_path", middle)
    assert code == 0, err
    again = folder.with_name(f"{name}_again")
    one, other = (api.load(run, device="cpu").module.state_dict() for run in (folder, again))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["patterns", pytest.param("hashed", marks=pytest.mark.slow), "turning"])
def test_it_is_probed_and_draws(made, igpt, tmp_path, name):
    code, _, err = igpt("probe", "--ckpt", made(name), "--method", "knn", "--out", tmp_path / "probe")
    assert code == 0, err
    layers = json.loads((tmp_path / "probe" / "probe.json").read_text())["layers"]
    assert [row["layer"] for row in layers] == [0, 1, 2, 3]
    code, _, err = igpt("sample", "--ckpt", made(name), "--rows", 2, "--num", 1, "--out", tmp_path / "drawn.png")
    assert code == 0, err
    assert np.load(tmp_path / "drawn.npy").shape[-1] == 64
    model = api.load(made(name), device="cpu")
    tokens = torch.from_numpy(np.load(tmp_path / "drawn.npy")).reshape(-1, 64)[:2].long()
    nats = model.module.surprise(tokens)
    assert torch.isfinite(nats).all()


def test_another_pattern_is_refused_where_a_run_goes_on_or_begins(made, igpt):
    folder = made("patterns")
    common = ["--config", folder.parents[1] / "patterns.yaml", "--runs_dir", folder.parent]
    code, _, err = igpt("fit", *common, "--ckpt_path", "last", "--model.transformer.attention", "[rows]")
    assert code == 2
    assert "the checkpoint has transformer attention" in err
    last = folder / "checkpoints" / "last.ckpt"
    code, _, err = igpt(
        "fit", *common, "--name", "new", "--model.start_from", last, "--model.transformer.positions", "rope"
    )
    assert code == 2
    assert "its transformer.positions is bias, this model's rope; make them equal" in err
    assert err.count("\n") == 1
    assert not (folder.parent / "new").exists()


def test_a_larger_picture_keeps_what_was_learned_about_offsets(made, igpt):
    folder = made("patterns")
    common = ["--config", folder.parents[1] / "patterns.yaml", "--runs_dir", folder.parent, *FEW]
    code, _, err = igpt("fit", *common, "--name", "larger", "--trainer.max_steps", 1, "--checkpoint.at_steps", "[]",
                        "--model.start_from", folder / "checkpoints" / "last.ckpt", "--model.learning_rate", 1e-9,
                        "--model.transformer.n_positions", 144, "--data.resolution", 12)  # fmt: skip
    assert code == 0, err
    small, large = (
        api.load(folder.with_name(name), device="cpu").module.transformer for name in ("patterns", "larger")
    )
    for one, other in zip(small.blocks, large.blocks, strict=True):
        table, more = one.attn.bias.columns, other.attn.bias.columns
        assert (table.shape[1], more.shape[1]) == (15, 23)
        torch.testing.assert_close(more[:, 4:19], table, atol=1e-6, rtol=0)
        torch.testing.assert_close(more[:, :4], table[:, :1].expand(-1, 4), atol=1e-6, rtol=0)


def test_an_export_that_cannot_hold_it_is_one_line(made, igpt, tmp_path):
    for name, words in (("patterns", "has patterns of attention"), ("turning", "has transformer.positions rope")):
        code, _, err = igpt("export", "--ckpt", made(name), "--out", tmp_path / name)
        assert (code, err.count("\n")) == (2, 1)
        assert words in err
    code, _, err = igpt("export", "--ckpt", made("patterns"), "--format", "safetensors", "--out", tmp_path / "plain")
    assert code == 0, err


@pytest.mark.parametrize("name", ["patterns", "turning"])
def test_a_model_of_offsets_draws_at_another_size_than_it_was_trained_at(made, igpt, tmp_path, name):
    code, _, err = igpt(
        "sample", "--ckpt", made(name), "--num", 2, "--resolution", "[6, 10]", "--out", tmp_path / "a.png"
    )
    assert code == 0, err
    assert np.load(tmp_path / "a.npy").shape == (2, 60)
    small = api.load(made(name), device="cpu").module.core
    large = small.at_resolution((8, 12))
    tokens = torch.randint(17, (2, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # the first row up to its eighth pixel is the same in both
        found, expected = (
            model.transformer(torch.nn.functional.pad(tokens, (0, model.config.n_positions - 8)), causal=True)[:, :8]
            for model in (large, small)
        )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_model_of_learned_positions_draws_at_its_own_size_alone(made, igpt, tmp_path):
    code, _, err = igpt("sample", "--ckpt", made("hashed"), "--num", 1, "--resolution", 12, "--out", tmp_path / "a.png")
    assert (code, err.count("\n")) == (2, 1)
    assert "this model knows positions of 8x8 pictures alone" in err
