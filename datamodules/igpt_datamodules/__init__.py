"""The data modules that come with igpt. They use `igpt.data` and nothing else of igpt, like any plug-in."""

from igpt_datamodules.cifar import CIFAR10, CIFAR100
from igpt_datamodules.digits import Digits
from igpt_datamodules.photos import SamplePhotos

__all__ = ["CIFAR10", "CIFAR100", "Digits", "SamplePhotos"]
