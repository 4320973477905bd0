"""A picture of what was kept and what was dropped, and for which reason."""

import numpy as np
import torch
from torch import Tensor

from igpt.curation.curating import STATES, Curation
from igpt.curation.pool import Pool
from igpt.data import enlarge, grid, scale_for, with_headings

COLUMNS, ROWS = 12, 3


def drawn(found: Curation, pool: Pool, tests: Pool | None) -> Tensor:
    """Some images of each state, evenly spaced, uint8 `(3, H, W)`; below dropped ones what they are a picture of."""
    parts = []
    for number, name in enumerate(STATES):
        every = np.flatnonzero(found.state == number)
        if not len(every):
            continue
        paired = name in ("duplicate", "overlap")
        count = min(len(every), COLUMNS * (1 if paired else ROWS))
        shown = [int(index) for index in every[np.linspace(0, len(every) - 1, count).astype(int)]]
        pictures = [pool[index][0] for index in shown]
        empty = [torch.full_like(pictures[0], 255)] * (-count % COLUMNS)
        if paired:
            other = tests if name == "overlap" and tests is not None else pool
            pictures += [*empty, *(other[int(found.partner[index])][0] for index in shown)]
        heading = f"{name}: {len(every):,}" + (" (above), and of what" if paired else "")
        sheet = grid(torch.stack([*pictures, *empty]), COLUMNS)
        parts.append(with_headings(enlarge(sheet, scale_for(sheet)), [heading]))
    return torch.cat(parts, dim=1)
