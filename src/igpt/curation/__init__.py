"""Which images of a large set to keep: near a reference set, each once, and none of the test set (docs/curate.md)."""

from igpt.curation.blocks import Blocks
from igpt.curation.curating import STATES, Curation, curate_images
from igpt.curation.embedding import Embedding, embedded
from igpt.curation.neighbours import Effort, Neighbours, index_of
from igpt.curation.options import CurationOptions
from igpt.curation.pictures import Downsampled, differences, thumbnails
from igpt.curation.pool import Pool
from igpt.curation.results import check_name, drawn, is_manifest, rows, write
from igpt.curation.tasks import Engine, Making, Task

__all__ = [
    "STATES", "Blocks", "Curation", "CurationOptions", "Downsampled", "Effort", "Embedding", "Engine", "Making",
    "Neighbours", "Pool", "Task", "check_name", "curate_images", "differences", "drawn", "embedded", "index_of",
    "is_manifest", "rows", "thumbnails", "write",
]  # fmt: skip
