"""Where features come from: igpt's own networks, other families of models, and those of plug-ins (docs/families.md)."""

import sys

from igpt.families.contract import FeatureSource, checked_features, checked_layers, checked_likelihood
from igpt.families.maps import MapSource
from igpt.families.models import CPC, MAE, VAE, Flow, Glow, MoCo, PixelCNN, SimCLR
from igpt.families.opening import known_sources, open_checkpoint, open_source, open_subject, source_of
from igpt.families.probed import LoadedSource, ProbedSource

__all__ = [
    "CPC", "MAE", "VAE", "FeatureSource", "Flow", "Glow", "LoadedSource", "MapSource", "MoCo", "PixelCNN",
    "ProbedSource", "SimCLR", "checked_features", "checked_layers", "checked_likelihood", "known_sources",
    "open_checkpoint", "open_source", "open_subject", "source_of",
]  # fmt: skip

for kind in (VAE, Flow, SimCLR):  # checkpoints name them by the files where they stood first
    sys.modules[f"{__name__}.{kind.__name__.lower()}"] = sys.modules[kind.__module__]
