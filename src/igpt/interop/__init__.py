"""Weights of others: reading the released files, and writing what `transformers` reads."""
