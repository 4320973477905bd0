"""Fixtures that many tests share: a tiny transformer, and one real run made by the real commands."""

import gc
import getpass
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes share two cores, and so do commands they start
if os.environ.get("IGPT_TEST_DEVICE", "cpu") == "cpu":  # what is expected of the commands is what a CPU computes
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
if capability := os.environ.get("ATEN_CPU_CAPABILITY"):  # kernels compiled for another give NaN, or end the process
    own = os.path.join(tempfile.gettempdir(), f"torchinductor_{getpass.getuser()}_{capability}")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", own)
os.environ.setdefault("IGPT_ALLOW_IMPORTS", "tests")  # callbacks that tests put into runs
os.environ.setdefault("IGPT_CPU_BF16_RATIO", "9")  # "auto" is float32 on every CPU; tests of bfloat16 ask for it

import numpy as np
import pytest
import torch

from igpt.cli import main
from igpt.model.transformer import PixelTransformer, TransformerConfig
from igpt.palette import palette

REPO = Path(__file__).resolve().parents[1]

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's background job; commands that tests start inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Modules and tests stay to the end: the collector need not go through them, nor a forked loader copy them."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Libraries count at the end what was not collected."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # also where OMP_NUM_THREADS says otherwise, and after a test that takes more


@pytest.fixture(scope="session", autouse=True)
def _one_table_a_palette() -> Iterator[None]:
    """A palette's table of 2^24 colours takes a second to make: tests whose palettes are equal share it."""
    made = lru_cache(maxsize=8)(lambda colors: make(np.frombuffer(colors, np.float32).reshape(-1, 3)))
    make = palette.nearest_table
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(palette, "nearest_table", lambda colors: made(colors.astype(np.float32).tobytes()))
        yield


@pytest.fixture
def tiny() -> TransformerConfig:
    """Small enough for float64 and finite differences, odd enough that swapped sizes show."""
    return TransformerConfig(n_layers=3, d_model=12, n_heads=3, n_positions=9, vocab_size=7)


def randomised(config: TransformerConfig, seed: int = 0, scale: float = 0.4) -> PixelTransformer:
    """A transformer whose every parameter is random and large enough to matter (the head is zero at first)."""
    torch.manual_seed(seed)
    model = PixelTransformer(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=scale)
            if "ln_" in name and name.endswith("weight"):
                parameter.add_(1.0)
    return model.eval()


@dataclass(frozen=True)
class Run:
    """A finished run of the real commands on the digits."""

    home: Path
    palette: Path
    folder: Path
    checkpoint: Path
    config: Path


def small_model(palette: object) -> str:
    """The part of a config that is about the model: a small one for 8x8 images of 17 colours."""
    return f"""
model:
  class_path: igpt.modules.Autoregressive
  init_args:
    transformer: {{n_layers: 3, d_model: 32, n_heads: 4, n_positions: 64, vocab_size: 17}}
    palette: {palette}
    learning_rate: 0.01"""


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`igpt palette` and `igpt fit` on the digits, 30 steps of a small network, in a folder of their own."""
    home = tmp_path_factory.mktemp("digits")
    palette, config = home / "palettes" / "digits.npy", home / "mini.yaml"
    config.write_text(
        f"""{small_model(palette)}
data:
  class_path: igpt_datamodules.Digits
  init_args: {{batch_size: 32}}
trainer:
  max_steps: 30
  val_check_interval: 15
  check_val_every_n_epoch: null
  log_every_n_steps: 5
  enable_progress_bar: false
  accelerator: cpu
  precision: 32-true
samples: {{num: 4, completions: 2}}
checkpoint: {{every_n_train_steps: 20}}
"""
    )
    assert main(["palette", "--data", "Digits", "--colors", "17", "--out", str(palette)]) == 0
    assert main(["fit", "--config", str(config), "--runs_dir", str(home / "runs")]) == 0
    folder = home / "runs" / "mini"
    return Run(home, palette, folder, folder / "checkpoints" / "last.ckpt", config)


@pytest.fixture(scope="session")
def digits_bert_run(digits_run: Run) -> Run:
    """`igpt fit` of a small BERT on the same digits with the same palette, in the same folder of runs."""
    config = digits_run.home / "mini_bert.yaml"
    text = digits_run.config.read_text().replace("igpt.modules.Autoregressive", "igpt.modules.BERT")
    config.write_text(text.replace("vocab_size: 17", "vocab_size: 17, sos: false"))
    assert main(["fit", "--config", str(config), "--runs_dir", str(digits_run.home / "runs")]) == 0
    folder = digits_run.home / "runs" / "mini_bert"
    return replace(digits_run, folder=folder, checkpoint=folder / "checkpoints" / "last.ckpt", config=config)


@pytest.fixture
def igpt(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The real command in this process: `igpt("probe", "--ckpt", ...)` gives exit code, stdout, stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return command
