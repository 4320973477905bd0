"""Weights of others: reading the released files, and writing what `transformers` reads."""

from igpt.interop.alignment import Alignment, aligned_nll
from igpt.interop.huggingface import PROCESSOR, clusters_of, read_huggingface
from igpt.interop.imagegpt import check_exportable, huggingface_config, processor_config, to_huggingface
from igpt.interop.imported import Imported, check_state
from igpt.interop.openai import is_openai, read_openai
from igpt.interop.weights import open_weights, read_json

__all__ = [
    "PROCESSOR", "Alignment", "Imported", "aligned_nll", "check_exportable", "check_state", "clusters_of",
    "huggingface_config", "is_openai", "open_weights", "processor_config", "read_huggingface", "read_json",
    "read_openai", "to_huggingface",
]  # fmt: skip
