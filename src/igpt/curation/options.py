"""`CurationOptions`: what counts as near, and what as the same picture."""

from dataclasses import dataclass

from igpt.system import UserError

KEEP = 0.5


@dataclass(frozen=True)
class CurationOptions:
    """What is kept.

    Args:
        keep: share, of the images that are no duplicates, to keep: those nearest to the reference.
        within: largest distance to the reference, in place of `keep`.
        threshold: squared residual of two aligned pictures over their squared slope, up to which they are one picture.
        candidates: nearest images that are compared with each.
        block: images that are embedded, and written, at a time.

    Raises:
        UserError: a value out of range.
    """

    keep: float | None = None
    within: float | None = None
    threshold: float = 0.37
    candidates: int = 16
    block: int = 4096

    def __post_init__(self) -> None:
        if self.keep is not None and self.within is not None:
            raise UserError("give --keep, a share, or --within, a distance, not both")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise UserError(f"--keep {self.keep} must lie above 0, and be 1 at most")
        if self.within is not None and not self.within >= 0:
            raise UserError(f"--within {self.within} must be at least 0")
        if not 0 <= self.threshold < 1:
            raise UserError(f"--threshold {self.threshold} must lie from 0 to 1; 0.37 was measured")
        if self.block < 1 or self.candidates < 1:
            raise UserError("--block and --candidates must be at least 1")
