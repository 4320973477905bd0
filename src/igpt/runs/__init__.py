"""A training run: its folder, its records, its trainer, and how it goes on after an interruption."""
