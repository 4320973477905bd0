"""Fitting classifiers on fixed features, and the protocol around it (paper, section 2.4)."""

from igpt.probing.extract import LayerFeatures, count_classes, stored_features, worth_compiling
from igpt.probing.likelihood import image_likelihood
from igpt.probing.methods import METHODS, low_data, methods_named, run_method, subset_indices, subsets_of
from igpt.probing.methods.lbfgs import fit_probes, probing_device
from igpt.probing.methods.sgd import SGDRecipe
from igpt.probing.methods.sgd_training import StoredFeatures, sgd_probe
from igpt.probing.protocol import ProbeMethod, ProbeOptions, ProbeTask, accuracy, standardise
from igpt.probing.results import NOTHING, ProbeReport, asked_for, check_results, earlier_report, measured
from igpt.probing.saved import SavedProbe, check_saving, saved_probe
from igpt.probing.store import FeatureStore, FeatureType

__all__ = [
    "METHODS", "NOTHING", "FeatureStore", "FeatureType", "LayerFeatures", "ProbeMethod", "ProbeOptions", "ProbeReport",
    "ProbeTask", "SGDRecipe", "SavedProbe", "StoredFeatures", "accuracy", "asked_for", "check_results", "check_saving",
    "count_classes", "earlier_report", "fit_probes", "image_likelihood", "low_data", "measured", "methods_named",
    "probing_device", "run_method", "saved_probe", "sgd_probe", "standardise", "stored_features", "subset_indices",
    "subsets_of", "worth_compiling",
]  # fmt: skip
