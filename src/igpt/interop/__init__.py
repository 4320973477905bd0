"""Weights of others: reading the released files, and writing what `transformers` reads."""

from igpt.interop.alignment import Alignment, aligned_nll, score
from igpt.interop.export import check_exportable, huggingface_config, processor_config, to_huggingface
from igpt.interop.huggingface import PROCESSOR, clusters_of, read_huggingface
from igpt.interop.imported import Imported, check_state
from igpt.interop.openai import is_openai, read_openai
from igpt.interop.weights import read_json

__all__ = [
    "PROCESSOR", "Alignment", "Imported", "aligned_nll", "check_exportable", "check_state", "clusters_of",
    "huggingface_config", "is_openai", "processor_config", "read_huggingface", "read_json", "read_openai",
    "score", "to_huggingface",
]  # fmt: skip
