"""Where features come from: igpt's own networks, other families of models, and those of plug-ins (docs/families.md)."""

from igpt.families.contract import FeatureSource, checked_features, checked_layers
from igpt.families.flow import Flow
from igpt.families.opening import known_sources, open_checkpoint, open_source, open_subject
from igpt.families.probed import LoadedSource, ProbedSource
from igpt.families.simclr import SimCLR
from igpt.families.vae import VAE

__all__ = [
    "VAE", "FeatureSource", "Flow", "LoadedSource", "ProbedSource", "SimCLR", "checked_features", "checked_layers",
    "known_sources", "open_checkpoint", "open_source", "open_subject",
]  # fmt: skip
