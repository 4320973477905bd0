"""Lightning callbacks: what happens beside training."""

from igpt.callbacks.catch_up import CatchUp
from igpt.callbacks.layer_features import LayerFeatures
from igpt.callbacks.learning_rate import LearningRate
from igpt.callbacks.likelihood import Likelihood
from igpt.callbacks.loss_guard import LossGuard
from igpt.callbacks.online_probe import OnlineProbe
from igpt.callbacks.preemption import Preemption
from igpt.callbacks.progress import ProgressLine
from igpt.callbacks.sample_grid import SampleGrid
from igpt.callbacks.step_checkpoint import StepCheckpoint
from igpt.callbacks.throughput import ImagesPerSecond

__all__ = [
    "CatchUp",
    "ImagesPerSecond",
    "LayerFeatures",
    "LearningRate",
    "Likelihood",
    "LossGuard",
    "OnlineProbe",
    "Preemption",
    "ProgressLine",
    "SampleGrid",
    "StepCheckpoint",
]
