"""The data modules that come with igpt. They use `igpt.data` and nothing else of igpt, like any plug-in."""

from igpt_datamodules.cifar import CIFAR10, CIFAR100
from igpt_datamodules.digits import Digits
from igpt_datamodules.folder import ImageFolder
from igpt_datamodules.hub import HuggingFace
from igpt_datamodules.imagenet import ImageNet
from igpt_datamodules.mnist import Mnist5k
from igpt_datamodules.photos import SamplePhotos
from igpt_datamodules.stl import STL10
from igpt_datamodules.tokens import TokenShards
from igpt_datamodules.vision import TorchVision
from igpt_datamodules.web import WebImages

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "STL10",
    "Digits",
    "HuggingFace",
    "ImageFolder",
    "ImageNet",
    "Mnist5k",
    "SamplePhotos",
    "TokenShards",
    "TorchVision",
    "WebImages",
]
