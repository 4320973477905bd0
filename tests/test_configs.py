"""Every config: its header, that it parses and builds at its sizes, and one step of it at a toy size."""

import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.strategies import ModelParallelStrategy

from igpt.data import ImageDataModule
from igpt.families import open_checkpoint
from igpt.model.transformer import PRESETS, TransformerConfig
from igpt.modules import BERT, Autoregressive, Joint, PixelModule
from igpt.modules.loading import load
from igpt.palette import Palette, VQShape, VQTokens, stride_of
from igpt.parsing import config_name
from igpt.runs.folders import run_dir
from igpt.runs.trainer import TrainerCLI, run
from tests.conftest import REPO

CONFIGS = sorted(path for path in (REPO / "configs").rglob("*.yaml") if path.parent.name not in ("scale", "families"))
FAMILIES = sorted((REPO / "configs" / "families").glob("*.yaml"))
OVERLAYS = sorted((REPO / "configs" / "scale").glob("*.yaml"))
every_config = pytest.mark.parametrize("config", CONFIGS, ids=config_name)
COLORS = 16
SIDE = 16  # pixels, where a step is taken quickly: whole sizes are built on the meta device, or slow
TINY = {"n_layers": 1, "d_model": 16, "n_heads": 2, "vocab_size": COLORS}


def pretrained(config: Path, folder: Path, most: int = 1024) -> list[str]:
    """For a joint config the option that names a tiny checkpoint of the right kind and resolution; else nothing.

    Args:
        most: pixels a side.
    """
    content = yaml.safe_load(config.read_text())
    source = content["model"]["init_args"].get("pretrained")
    if source is None:
        return []
    side = min(most, content["data"]["init_args"].get("resolution", 8))
    kind = BERT if "bert" in source else Autoregressive
    module = kind(TransformerConfig(**TINY, n_positions=side * side, sos=kind is Autoregressive))
    module.palette.load_state_dict(Palette(torch.linspace(-1, 1, COLORS)[:, None].expand(-1, 3)).state_dict())
    path = folder / "pretrained.ckpt"
    torch.save({"state_dict": module.state_dict(), "igpt": {"format": 1, "model": module.spec(), "data": None}}, path)
    return ["--model.init_args.pretrained", str(path)]


def tiny_tokens(palette: str, content: dict) -> str:
    """The palette, or VQ tokens of as many codes where the config is of those."""
    if not content["model"]["init_args"].get("palette", "").endswith(".safetensors"):
        return palette
    tokens = VQTokens(VQShape(codes=COLORS, width=8, latent=4, blocks=1))
    tokens.codebook.copy_(torch.randn(COLORS, 4, generator=torch.Generator().manual_seed(0)))
    tokens.save(Path("try.safetensors"))
    return "try.safetensors"


def test_a_config_is_named_with_its_folder_in_configs():
    assert config_name("configs/cifar10/ar_small.yaml") == "cifar10_ar_small"
    assert config_name(REPO / "configs" / "digits_ar.yaml") == "digits_ar"
    assert config_name("/mine/ar.yaml") == config_name("/ar.yaml") == "ar"


def test_the_run_of_a_config_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.device("meta"):
        cli = run("fit", ["--config", str(REPO / "configs" / "digits" / "bert.yaml")], Unrun)
    assert run_dir(cli.config.fit) == Path("runs/digits_bert")


@pytest.mark.parametrize(
    ("given", "words", "expected"),
    [
        ("{preset: L}", [], PRESETS["L"]),
        ("{preset: XL, n_layers: 2, norm: layer}", [], replace(PRESETS["XL"], n_layers=2, norm="layer")),
        ("{preset: L, n_positions: 2304}", ["n_layers", "1"], replace(PRESETS["L"], n_positions=2304, n_layers=1)),
        ("{n_layers: 1, norm: layer}", ["preset", "M"], replace(PRESETS["M"], norm="layer")),
        ("{n_layers: 1}", [".=", "{preset: M, d_model: 64}"], replace(PRESETS["M"], d_model=64)),
    ],
)
def test_a_preset_stands_for_its_sizes_in_a_config_and_on_the_command_line(
    given, words, expected, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    text = (REPO / "configs" / "cifar10_ar.yaml").read_text().replace("{preset: S}", given)
    text = text.replace("resolution: 32", f"resolution: {math.isqrt(expected.n_positions)}")
    Path("mine.yaml").write_text(text)
    if words:
        words = [f"--model.init_args.transformer{'' if words[0] == '.=' else '.' + words[0]}", words[1]]
    with torch.device("meta"):
        cli = run("fit", ["--config", "mine.yaml", *words], Unrun)
    assert cli.model.transformer.config == expected
    assert cli.model.spec()["init_args"]["transformer"] == expected.to_dict()
    assert cli.config.fit.model.init_args.transformer.as_dict() == asdict(expected)


def test_an_unknown_preset_is_refused_in_one_line(igpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = REPO / "configs" / "cifar10_ar.yaml"
    code, _, err = igpt("fit", "--config", config, "--model.init_args.transformer.preset", "XXL")
    assert (code, err.strip()) == (2, "igpt fit: transformer.preset is 'XXL'; choose S, M, L, XL")
    Path("mine.yaml").write_text(config.read_text().replace("{preset: S}", "{preset: XXL}"))
    code, _, err = igpt("fit", "--config", "mine.yaml")
    assert (code, err.strip()) == (2, "igpt fit: transformer.preset is 'XXL'; choose S, M, L, XL")


@pytest.mark.parametrize("config", [*CONFIGS, *FAMILIES], ids=config_name)
def test_a_config_opens_with_its_command_hardware_time_and_result(config):
    header = [line for line in config.read_text().splitlines()[:8] if line.startswith("#")]
    assert header[0].startswith(f"# igpt fit --config {config.relative_to(REPO).as_posix()}")
    for word in ("Hardware:", "Expected:", "Measured:"):
        assert any(word in line for line in header), word


class Unrun(TrainerCLI):
    """Parses and builds model and data; trains nothing."""

    def instantiate_trainer(self, **kwargs):
        return None

    def _run_subcommand(self, subcommand):
        return None


@every_config
@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
def test_a_config_parses_and_builds_on_the_meta_device(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no palettes and no data here: building must not need them
    options = pretrained(config, tmp_path)
    with torch.device("meta"):
        cli = run("fit", ["--config", str(config), *options], Unrun)
    assert isinstance(cli.model, PixelModule)
    assert isinstance(cli.datamodule, ImageDataModule)
    assert cli.model.core.pixels == (cli.datamodule.resolution,) * 2
    assert cli.config.fit.trainer.max_steps > 0


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_an_overlay_for_many_devices_builds_over_the_config_that_its_header_names(overlay, tmp_path, monkeypatch):
    header = [line for line in overlay.read_text().splitlines() if line.startswith("#")]
    for word in ("Hardware:", "Expected:", "Measured:"):
        assert any(word in line for line in header), word
    command = header[0].removeprefix("# igpt fit ").split()
    arguments = [str(REPO / word) if word.startswith("configs/") else word for word in command]
    assert str(overlay) in arguments
    monkeypatch.chdir(tmp_path)
    with torch.device("meta"):
        cli = run("fit", arguments, Unrun)
    trainer = cli.config.fit.trainer
    processes = trainer.devices * trainer.num_nodes
    base = yaml.safe_load(Path(arguments[1]).read_text())
    published = base["data"]["init_args"]["batch_size"] * base["trainer"]["devices"]
    assert cli.datamodule.batch_size * processes == published
    strategy = cli.config_init.fit.trainer.strategy
    if isinstance(strategy, ModelParallelStrategy):
        assert strategy._data_parallel_size == processes
        assert cli.model.core.transformer.activation_checkpointing


@pytest.mark.parametrize("most", [SIDE, pytest.param(1024, marks=pytest.mark.slow, id="whole")])
@every_config
def test_a_shrunk_config_takes_a_step(config, most, tmp_path, monkeypatch, igpt):
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load(config.read_text())
    side = min(most, content["data"]["init_args"].get("resolution", 8))
    palette = Palette(torch.linspace(-1, 1, COLORS)[:, None].expand(-1, 3))
    palette.save("try.npy")
    shrunk = pretrained(config, tmp_path, most)
    if not shrunk:
        prefix = "--model.init_args."
        if "generative" in content["model"]["init_args"]:
            prefix += "generative.init_args."
        tokens = (side // stride_of(content["model"]["init_args"].get("palette"))) ** 2
        small = TINY | {"n_positions": tokens}
        shrunk = [word for name, value in small.items() for word in (f"{prefix}transformer.{name}", value)]
        if not content["model"]["class_path"].endswith("ByteAutoregressive"):
            shrunk += [f"{prefix}palette", tiny_tokens("try.npy", content)]
    if "labels_per_class" in content["data"]["init_args"].get("split", {}):
        shrunk += ["--data.init_args.split.labels_per_class", 3]
    code, _, err = igpt(
        *("fit", "--config", config, "--name", "try", *shrunk, "--model.init_args.compile", "false"),
        *("--data", "Digits", "--data.init_args.resolution", side, "--data.init_args.batch_size", 2),
        *("--data.init_args.num_workers", 0),
        *(
            "--trainer.devices",
            1,
            "--trainer.max_steps",
            1,
            "--trainer.val_check_interval",
            1,
            "--trainer.limit_val_batches",
            1,
        ),
        *("--trainer.precision", "32-true", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        *("--trainer.num_sanity_val_steps", 0, "--samples.num", 0, "--samples.completions", 0),
    )
    assert code == 0, err
    assert (tmp_path / "runs" / "try" / "checkpoints" / "last.ckpt").exists()
    if content["model"]["class_path"].endswith("Joint"):
        assert isinstance(load("runs/try/checkpoints/last.ckpt").module, Joint)


@pytest.mark.parametrize("config", FAMILIES, ids=config_name)
def test_a_config_of_another_family_takes_a_step_and_is_named_after_its_class(config, tmp_path, monkeypatch, igpt):
    monkeypatch.chdir(tmp_path)
    quick = ("--trainer.max_steps", 1, "--trainer.val_check_interval", 1, "--trainer.num_sanity_val_steps", 0)
    where = ("--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--samples.num", 0)
    code, _, err = igpt("fit", "--config", config, "--name", "try", *quick, *where, "--trainer.limit_val_batches", 1)
    assert code == 0, err
    kind = yaml.safe_load(config.read_text())["model"]["class_path"].rpartition(".")[2]
    assert type(open_checkpoint("runs/try/checkpoints/last.ckpt").module.source).__name__ == kind
    assert kind.lower() in config.name
