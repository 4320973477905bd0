"""VQ tokens in shards: those of the pictures, known by their tokeniser's checksum, and trained from without it."""

import json
import shutil

import numpy as np
import pytest
import torch

from igpt.cli import main
from igpt.data import SPLITS, Index, rng_of
from igpt.data.shards.index import as_text, digest
from igpt.modules import load
from igpt.palette import VQShape, VQTokens
from igpt.system import UserError
from igpt.testing import check_data_module
from igpt_datamodules import ImageFolder, SamplePhotos, TokenShards
from tests.conftest import REPO
from tests.datamodules.pictures import picture

DATA = ["--data", "SamplePhotos", "--data.resolution", "16", "--data.stride", "64"]
CONFIG = """
model:
  class_path: igpt.modules.{model}
  init_args:
    transformer: {{n_layers: 1, d_model: 16, n_heads: 2}}
    palette: {palette}
data: {{class_path: igpt_datamodules.TokenShards, init_args: {{folder: shards, batch_size: 16}}}}
trainer: {{max_steps: 2, precision: 32-true, enable_progress_bar: false, log_every_n_steps: 1, accelerator: cpu}}
samples: {{num: 1, completions: 1}}
"""


def tokeniser(seed=0):
    """One whose codes lie amid what its encoder gives, so that many are used."""
    torch.manual_seed(seed)
    made = VQTokens(VQShape(codes=16, width=8, latent=4, blocks=1))
    some = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    made.codebook.copy_(made.encoder(some.float() / 127.5 - 1)[0].flatten(1).T)
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vq_shards")
    tokeniser().save(folder / "q.safetensors")
    tokeniser(1).save(folder / "other.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["tokenize", *DATA, "--palette", "q.safetensors", "--shard_images", "64", "--workers", "1"]
        assert main([*words, "--out", "shards"]) == 0
    return folder


@pytest.fixture
def folder(written, tmp_path, monkeypatch):
    shutil.copytree(written, tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    return tmp_path / "own"


def refused(capsys, *words):
    capsys.readouterr()
    assert main(list(map(str, words))) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_every_split_holds_the_tokens_that_the_tokeniser_gives_its_pictures(written):
    pictures, shards, index = SamplePhotos(16, stride=64), TokenShards(str(written / "shards")), Index.read(
        written / "shards"
    )  # fmt: skip
    assert index.tokens.sha256 == tokeniser().sha256
    assert (shards.resolution, shards.token_stride) == (16, 4)
    for split in SPLITS:
        images = pictures.images(split)
        wanted = tokeniser().encode(torch.stack([images[at][0] for at in range(len(images))]))
        assert len(wanted.unique()) > 3
        files = [np.load(written / "shards" / shard.file)[0]["tokens"] for shard in index.shards[split]]
        assert np.array_equal(np.concatenate(files)[:, 0], wanted.numpy())
        found = torch.cat([batch for batch, _ in shards.loader(split)])
        assert (found.dtype, found.shape[1:]) == (torch.int16, (1, 4, 4))
        assert torch.equal(tokeniser().encode(found), wanted)


def test_they_keep_the_contract_of_a_data_module(written):
    check_data_module(lambda: TokenShards(str(written / "shards"), batch_size=16))


def test_two_processes_write_the_same_bytes_as_one(folder):
    words = ["tokenize", *DATA, "--palette", "q.safetensors", "--shard_images", "64", "--workers", "2"]
    assert main([*words, "--out", "again"]) == 0
    files = sorted(path.name for path in (folder / "shards").iterdir())
    assert files == sorted(path.name for path in (folder / "again").iterdir())
    assert all((folder / "shards" / name).read_bytes() == (folder / "again" / name).read_bytes() for name in files)


@pytest.mark.parametrize("model", ["Autoregressive", "BERT"])
def test_a_network_trains_completes_and_is_probed_from_them(folder, capsys, model):
    heads = "n_heads: 2, sos: false" if model == "BERT" else "n_heads: 2"
    config = CONFIG.format(model=model, palette="q.safetensors").replace("n_heads: 2", heads)
    (folder / "c.yaml").write_text(config)
    assert main(["fit", "--config", "c.yaml", "--name", "run"]) == 0
    core = load(folder / "runs/run/checkpoints/last.ckpt").module.core
    assert (core.pixels, core.shape, core.palette.sha256) == ((16, 16), (4, 4), tokeniser().sha256)
    assert (
        main(["sample", "--ckpt", "runs/run", "--rows", "2", "--num", "1", "--out", "s.png", "--accelerator", "cpu"])
        == 0
    )
    drawn, test = np.load("s.npy"), TokenShards("shards").images("test")
    kept = [test[at][0].flatten()[:8].tolist() for at in range(len(test))]
    assert all(row[:8].tolist() in kept for row in drawn.reshape(-1, 16)), "the upper half is that of a test picture"
    capsys.readouterr()
    probe = "probe --ckpt runs/run --method knn --labels_per_class 3 --subsets 2 --out p --accelerator cpu"
    assert main([*probe.split(), "--method", "knn,lbfgs"]) == 0
    found = json.loads((folder / "p/probe.json").read_text())["methods"]
    assert {name: one["raw_pixels"] for name, one in found.items()} == {"knn": None, "lbfgs": None}
    assert main(["report", "runs/run", "p", "--out", "r.html"]) == 0


def test_the_loss_is_that_of_the_pictures_themselves(folder):
    (folder / "c.yaml").write_text(CONFIG.format(model="Autoregressive", palette="q.safetensors"))
    assert main(["fit", "--config", "c.yaml", "--name", "run"]) == 0
    core = load(folder / "runs/run/checkpoints/last.ckpt").module.core
    pictures = torch.stack([SamplePhotos(16, stride=64).images("test")[at][0] for at in range(20)])
    tokens = torch.stack([TokenShards("shards").images("test")[at][0] for at in range(20)])
    with torch.no_grad():
        assert torch.equal(core.surprise(core.encode(pictures)), core.surprise(core.encode(tokens)))


def test_a_network_of_another_tokeniser_is_told_the_names_of_both(folder, capsys):
    (folder / "c.yaml").write_text(CONFIG.format(model="Autoregressive", palette="other.safetensors"))
    line = refused(capsys, "fit", "--config", "c.yaml", "--name", "no")
    assert tokeniser().sha256[:12] in line
    assert tokeniser(1).sha256[:12] in line
    line = refused(capsys, "fit", "--config", REPO / "configs/digits_ar.yaml", "--data", "TokenShards",
                   "--data.init_args.folder", "shards", "--model.init_args.transformer.n_positions", 256,
                   "--model.init_args.palette", REPO / "palettes/digits.npy", "--name", "no")  # fmt: skip
    assert tokeniser().sha256[:12] in line
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    "verb",
    [
        "palette --out x.npy",
        "palette --kind vq --out x.safetensors",
        "tokenize --palette q.safetensors --out x",
        "curate --out x.json",
        "probe --source pixels --out x",
        f"fit --config {REPO}/configs/families/vae_digits.yaml --model.init_args.resolution 16 --name x",
    ],
)
def test_what_needs_pictures_says_so_in_one_line(folder, capsys, verb):
    before = sorted(path.name for path in folder.iterdir())
    words, option = verb.split(), "--data.init_args.folder" if "fit" in verb else "--data.folder"
    line = refused(capsys, words[0], *words[1:], "--data", "TokenShards", option, "shards")
    assert "pictures are needed" in line
    assert sorted(path.name for path in folder.iterdir()) == before


def test_every_image_of_whole_shards_is_found_whole(folder, capsys):
    assert main(["check", "--data", "TokenShards", "--data.folder", "shards", "--workers", "0"]) == 0
    assert "0 broken" in capsys.readouterr().out


def test_a_token_beyond_the_codes_and_a_changed_index_are_noticed(folder):
    path, index = folder / "shards/train-00000.npy", folder / "shards/index.json"
    record = np.load(path)
    record["tokens"][0, 5, 0, 3] = 16
    np.save(path, record)
    images = TokenShards("shards").images("train")
    assert images[4]
    with pytest.raises(UserError, match=r"train-00000\.npy is damaged: image 5"):
        images[5]
    text = index.read_text()
    for old, new in (("vq:16,", "vq:17,"), ("vq:16,", "vq:,"), ('"format": 2', '"format": 1'), ("tokeniser", "x")):
        assert old in text
        index.write_text(text.replace(old, new))
        with pytest.raises(UserError, match="damaged"):
            TokenShards("shards")
    forged = json.loads(text)
    for written in ("vq:0,8,4,1", "palette.npy", 16, None):
        forged["tokeniser"]["written"] = written
        index.write_text(as_text(forged | {"sha256": digest(forged)}))
        with pytest.raises(UserError, match="damaged"):
            TokenShards("shards")


def test_sides_that_tokens_do_not_divide_are_named(folder, capsys):
    words = ["tokenize", "--data", "SamplePhotos", "--data.resolution", 18, "--palette", "q.safetensors", "--out", "x"]
    assert "multiples of 4, not 18x18" in refused(capsys, *words)
    assert not (folder / "x").exists()


def test_rectangles_and_their_random_variants_are_kept_row_by_row(folder):
    for number in range(24):
        path = folder / "pets" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, (60, 40)).save(path)
    words = [
        "--data",
        "ImageFolder",
        "--data.root",
        "pets",
        "--data.resolution",
        "[8, 12]",
        "--palette",
        "q.safetensors",
    ]
    assert main(["tokenize", *words, "--variants", "2", "--out", "pets_vq", "--workers", "1"]) == 0
    pictures, shards = ImageFolder("pets", (8, 12)), TokenShards("pets_vq")
    assert (shards.shape, Index.read(folder / "pets_vq").grid) == ((8, 12), (2, 3))
    train, found = pictures.images("train"), shards.images("train")
    for at in range(len(train)):
        assert torch.equal(found[at][0].long().flatten(), tokeniser().encode(train[at][0][None])[0])
        variants = [tokeniser().encode(train.draw(at, rng_of(0, one, at))[0][None])[0].tolist() for one in (0, 1)]
        drawn = {tuple(found.draw(at, rng_of(seed))[0].flatten().tolist()) for seed in range(20)}
        assert drawn == set(map(tuple, variants))
    assert found.augments
