"""Fitting classifiers on fixed features, and the protocol around it (paper, section 2.4)."""

from igpt.probing.layer_features import LayerFeatures
from igpt.probing.lbfgs import fit_probes, probing_device
from igpt.probing.methods import (
    Asked,
    features_for,
    forget_training,
    low_data_row,
    run_method,
    subset_indices,
    subsets_of,
)
from igpt.probing.protocol import HOW, Method, accuracy, standardise
from igpt.probing.results import ProbeReport, Written, check_results
from igpt.probing.store import FeatureType

__all__ = [
    "HOW", "Asked", "FeatureType", "LayerFeatures", "Method", "ProbeReport", "Written", "accuracy", "check_results",
    "features_for", "fit_probes", "forget_training", "low_data_row", "probing_device", "run_method", "standardise",
    "subset_indices", "subsets_of",
]  # fmt: skip
