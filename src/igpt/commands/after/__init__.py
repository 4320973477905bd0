"""Verbs that judge, scale and show what was trained."""
