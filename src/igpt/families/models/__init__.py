"""The families that `igpt fit` trains, one file each, on what `FamilyModule` shares."""

from igpt.families.models.cpc import CPC
from igpt.families.models.flow import Flow
from igpt.families.models.glow import Glow
from igpt.families.models.mae import MAE
from igpt.families.models.moco import MoCo
from igpt.families.models.pixelcnn import PixelCNN
from igpt.families.models.simclr import SimCLR
from igpt.families.models.vae import VAE

__all__ = ["CPC", "MAE", "VAE", "Flow", "Glow", "MoCo", "PixelCNN", "SimCLR"]
