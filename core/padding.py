"""Texts of several lengths as one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfx.core.backend import HostArray


def padded_right(
    rows: Sequence[Sequence[int]], width: int, pad: int = 0
) -> tuple[HostArray, HostArray]:
    """Ids (B, width), each row followed by `pad`, and what of them is text: bool (B, width).

    >>> ids, visible = padded_right([[5, 6], [7]], 3)
    >>> ids.tolist(), visible.tolist()
    ([[5, 6, 0], [7, 0, 0]], [[True, True, False], [True, False, False]])
    """
    ids = np.full((len(rows), width), pad, np.int64)
    visible = np.zeros(ids.shape, bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)], visible[number, : len(row)] = row, True
    return ids, visible
