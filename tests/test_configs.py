"""Every config: its header, that it parses, and that what it describes can be built (on the meta device)."""

import pytest
import torch

from igpt.commands.trainer import TrainerCLI, run
from igpt.data import ImageDataModule
from igpt.modules import PixelModule
from tests.conftest import REPO

CONFIGS = sorted((REPO / "configs").glob("*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_opens_with_its_command_hardware_time_and_result(config):
    header = [line for line in config.read_text().splitlines()[:8] if line.startswith("#")]
    assert header[0].startswith(f"# igpt fit --config configs/{config.name}")
    for word in ("Hardware:", "Expected:", "Measured:"):
        assert any(word in line for line in header), word


class Unrun(TrainerCLI):
    """Parses and builds model and data; trains nothing."""

    def instantiate_trainer(self, **kwargs):
        return None

    def _run_subcommand(self, subcommand):
        return None


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_parses_and_builds(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no palettes and no data here: building must not need them
    with torch.device("meta"):
        cli = run("fit", ["--config", str(config)], Unrun)
    assert isinstance(cli.model, PixelModule)
    assert isinstance(cli.datamodule, ImageDataModule)
    assert cli.model.transformer.config.n_positions == cli.datamodule.resolution**2
    assert cli.config.fit.trainer.max_steps > 0
