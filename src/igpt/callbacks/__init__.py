"""Lightning callbacks: what happens beside training."""

from igpt.callbacks.likelihood import Likelihood
from igpt.callbacks.loss_guard import LossGuard
from igpt.callbacks.monitors import GradientNorm, ImagesPerSecond, LearningRate, RunSummary
from igpt.callbacks.online_probe import OnlineProbe
from igpt.callbacks.preemption import Preemption, started_by_another
from igpt.callbacks.progress import ProgressLine
from igpt.callbacks.replay import CatchUp, ReplayHooks
from igpt.callbacks.sample_grid import SampleGrid
from igpt.callbacks.step_checkpoint import StepCheckpoint, stopping_guard
from igpt.probing import LayerFeatures

__all__ = [
    "CatchUp", "GradientNorm", "ImagesPerSecond", "LayerFeatures", "LearningRate", "Likelihood", "LossGuard",
    "OnlineProbe", "Preemption", "ProgressLine", "ReplayHooks", "RunSummary", "SampleGrid", "StepCheckpoint",
    "started_by_another", "stopping_guard",
]  # fmt: skip
