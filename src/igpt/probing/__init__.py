"""Fitting classifiers on fixed features, and the protocol around it (paper, section 2.4)."""
