"""What curation leaves: a manifest and a picture."""

from igpt.curation.results.manifest import SUFFIXES, check_name, is_manifest, rows, write
from igpt.curation.results.picture import drawn

__all__ = ["SUFFIXES", "check_name", "drawn", "is_manifest", "rows", "write"]
