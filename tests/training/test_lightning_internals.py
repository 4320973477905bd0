"""What igpt relies on in Lightning without a public name means what it meant in the version that was read."""

import ast
import inspect
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelSummary, RichModelSummary, RichProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.utils.data import DataLoader

from igpt.training import lightning_internals as internals
from tests.conftest import REPO

BATCHES, EVERY = 6, 2  # in an epoch, and in an optimizer step


class Net(pl.LightningModule):
    """One weight; logs its loss at every batch, and `once` in the first."""

    def __init__(self, forgets=True):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.forgets = forgets

    def on_train_batch_start(self, batch, batch_idx):
        if self.forgets:
            internals.forget_logged(self.trainer)

    def training_step(self, batch, batch_idx):
        self.log("train/loss", 1.0)
        if self.global_step == 0:
            self.log("once", 2.0)
        return self.weight * 0

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", 3.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Log(DummyLogger):
    """Remembers what is logged."""

    def __init__(self):
        super().__init__()
        self.found = []

    def log_metrics(self, metrics, step=None):
        self.found += [(name, step) for name in metrics if name != "epoch"]


class Watch(pl.Callback):
    """Remembers what the functions say behind each batch, and what Lightning then does."""

    def __init__(self):
        self.batches, self.states = [], []

    def on_train_batch_end(self, trainer, *args):
        names = ("is_accumulating", "at_log_point", "validation_is_due", "epoch_ends")
        said = {name: getattr(internals, name)(trainer) for name in names}
        self.batches.append(SimpleNamespace(step=trainer.global_step, **said, validated=False, ended=False))
        self.save(trainer)

    def on_validation_end(self, trainer, *args):
        self.batches[-1].validated = True
        self.save(trainer)

    def on_train_epoch_end(self, trainer, *args):
        self.batches[-1].ended = True

    def save(self, trainer):
        """What a checkpoint would hold now, as it is and settled."""
        raw, settled = internals.dump_checkpoint(trainer), internals.dump_checkpoint(trainer)
        internals.normalise_loops(trainer, settled, ended=False)
        settled["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"].pop(
            "is_last_batch"
        )  # Lightning sets it anew
        self.states.append((len(self.batches), *(repr(content["loops"]["fit_loop"]) for content in (raw, settled))))


def fitted(tmp_path, *callbacks, module=None, **options):
    log = Log()
    loader = DataLoader(torch.zeros(BATCHES, 1))
    settings = {"log_every_n_steps": 2, "num_sanity_val_steps": 0, "max_epochs": 2} | options
    trainer = pl.Trainer(accelerator="cpu", callbacks=list(callbacks), logger=log, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
                         **settings)  # fmt: skip
    trainer.fit(module or Net(), loader, loader)
    return trainer, log.found


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Two epochs of three steps of two batches each, with validation behind the second and the third step."""
    watch = Watch()
    options = {"accumulate_grad_batches": EVERY, "val_check_interval": 4}
    _, log = fitted(tmp_path_factory.mktemp("run"), watch, **options)
    assert len(watch.batches) == 2 * BATCHES
    return SimpleNamespace(batches=watch.batches, states=watch.states, log=log)


def test_gradients_are_accumulated_until_the_step_ends(watched):
    before = [0, *(batch.step for batch in watched.batches)]
    assert [batch.is_accumulating for batch in watched.batches] == [
        batch.step == earlier for batch, earlier in zip(watched.batches, before, strict=False)
    ]
    assert sum(not batch.is_accumulating for batch in watched.batches) == 6


def test_a_log_point_is_where_lightning_logs(watched):
    said = {batch.step - 1 for batch in watched.batches if batch.at_log_point}
    assert said == {step for name, step in watched.log if name == "train/loss"} == {1, 3, 5}


def test_validation_and_the_epochs_end_are_due_where_lightning_has_them(watched):
    assert [batch.validation_is_due for batch in watched.batches] == [batch.validated for batch in watched.batches]
    assert [batch.epoch_ends for batch in watched.batches] == [batch.ended for batch in watched.batches]
    assert sum(batch.validated for batch in watched.batches) == sum(batch.ended for batch in watched.batches) == 2


def test_settled_loops_are_the_same_whichever_hook_saves(watched):
    by_batch = {}
    for number, raw, settled in watched.states:
        by_batch.setdefault(number, []).append((raw, settled))
    twice = [states for states in by_batch.values() if len(states) == 2]
    assert len(twice) == 2
    for (raw, settled), (other_raw, other_settled) in twice:
        assert raw != other_raw
        assert settled == other_settled


def test_a_value_that_is_forgotten_is_logged_once_and_known_afterwards(tmp_path):
    trainer, log = fitted(tmp_path, log_every_n_steps=1)
    assert log.count(("once", 0)) == sum(name == "once" for name, _ in log) == 1
    assert trainer.callback_metrics["once"] == 2.0
    _, log = fitted(tmp_path, module=Net(forgets=False), log_every_n_steps=1)
    assert sum(name == "once" for name, _ in log) > 1  # otherwise `forget_logged` can go


def test_a_whole_validation_runs_before_the_first_step_and_training_goes_on(tmp_path):
    seen = []

    class Early(pl.Callback):
        def on_train_start(self, trainer, *args):
            internals.run_validation(trainer)
            assert trainer.training

        def on_validation_batch_end(self, trainer, *args):
            seen.append(trainer.global_step)

    trainer, log = fitted(tmp_path, Early(), max_epochs=1)
    assert seen == [0] * BATCHES + [BATCHES] * BATCHES
    assert trainer.global_step == BATCHES
    assert [name for name, _ in log].count("val/loss") == 2


def test_the_content_of_a_checkpoint_is_what_lightning_writes(tmp_path):
    trainer, _ = fitted(tmp_path, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    written = torch.load(tmp_path / "a.ckpt", weights_only=True)
    content = internals.dump_checkpoint(trainer)
    assert content.keys() == written.keys()
    assert repr(content) == repr(written)


@pytest.mark.parametrize("sharded", [True, False])
def test_a_strategy_that_writes_a_folder_is_known(sharded):
    strategy = ModelParallelStrategy(save_distributed_checkpoint=sharded)
    off = {"logger": False, "enable_checkpointing": False}
    assert internals.saves_sharded(pl.Trainer(accelerator="cpu", devices=2, strategy=strategy, **off)) == sharded
    assert not internals.saves_sharded(pl.Trainer(accelerator="cpu", **off))


def test_processes_do_not_ask_each_other_about_sigterm_at_every_step():
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert "self._broadcast_sigterm_tensor()" in inspect.getsource(_TrainingEpochLoop.advance)
    internals.disable_sigterm_broadcast(trainer)
    assert trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor() is None


def test_tables_are_plain_text_where_rich_is_installed(monkeypatch):
    for module in (internals.callback_connector, internals.evaluation_loop):
        assert hasattr(module, "_RICH_AVAILABLE")
        monkeypatch.setattr(module, "_RICH_AVAILABLE", True)
    internals.disable_rich()
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert not [one for one in trainer.callbacks if isinstance(one, (RichModelSummary, RichProgressBar))]
    assert [one for one in trainer.callbacks if isinstance(one, ModelSummary)]
    assert not internals.evaluation_loop._RICH_AVAILABLE


def test_a_module_without_a_trainer_has_none_and_with_one_has_it(tmp_path):
    module = Net()
    assert internals.trainer_of(module) is None
    trainer, _ = fitted(tmp_path, module=module, max_epochs=1)
    assert internals.trainer_of(module) is trainer


def test_a_silent_experiment_takes_anything_and_precisions_are_named():
    experiment = internals.DummyExperiment()
    experiment.add_scalar("a", 1.0, 0)
    experiment.add_image(name="a")
    assert {"bf16-mixed", "32-true"} <= {name for part in internals.PrecisionInput.__args__ for name in part.__args__}


def test_lightnings_command_line_calls_what_igpts_overrides():
    source = inspect.getsource(LightningCLI)
    for name in ("_parse_ckpt_path", "_run_subcommand", "_prepare_subcommand_kwargs", "_get"):
        assert f"def {name}(" in source
        assert f"self.{name}(" in source


INTERNALS = "lightning_internals.py"
BELOW = {
    "system",
    "palette",
    "model",
    "checkpoints",
}  # rooms that may not import `igpt.training`, and own what they name
NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}  # documented, whatever they look like
KEPT_ELSEWHERE = (
    "workers.py",  # torch's loader processes, by names that its header speaks of
    "vision_sets.py",  # two of torchvision's sets, which take no loader; test_vision.py reads their files
)


def private_names(tree):
    """Private names that a file reads from other objects than its own, or imports from a library."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] in ("lightning", "torch"):
            yield from (name for name in (*node.module.split("."), *(one.name for one in node.names)) if name[0] == "_")
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls", "os", "super()"):
            yield from [node.attr] if node.attr[0] == "_" and not node.attr.startswith("__") else []


def defined(tree):
    """Names of functions, and of attributes that are set."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node.name
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def test_private_names_of_libraries_are_in_one_file():
    paths = [path for root in ("src", "datamodules") for path in sorted((REPO / root).rglob("*.py"))]
    looked_at = [
        path for path in paths if path.name not in KEPT_ELSEWHERE and not BELOW & set(path.relative_to(REPO).parts)
    ]
    trees = {path: ast.parse(path.read_text()) for path in looked_at}
    own = {name for path, tree in trees.items() if path.name != INTERNALS for name in defined(tree)}
    found = {path.name: set(private_names(tree)) - own - NAMED_TUPLE for path, tree in trees.items()}
    assert [name for name, names in found.items() if names] == [INTERNALS], found
