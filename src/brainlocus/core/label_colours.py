"""Colours of labels: the same in figures and in the colour tables beside label images."""

import numpy as np
from jaxtyping import Int, UInt8

__all__ = ["label_colours"]

# Steps of the golden ratio and of its relatives in three dimensions, so that neighbouring numbers differ in hue,
# saturation and value and no few of them ever meet (Roberts 2018, the R sequences).
_STEPS = (0.6180339887498949, 0.7548776662466927, 0.5698402909980532)


def label_colours(labels: Int[np.ndarray, " labels"]) -> UInt8[np.ndarray, "labels 3"]:
    """Return red, green and blue of labels; neighbouring numbers far apart, 0 black.

    Examples
    --------
    >>> label_colours(np.array([0, 1, 2])).tolist()
    [[0, 0, 0], [41, 90, 209], [125, 176, 52]]
    """
    hue, more, value = ((labels * step) % 1.0 for step in _STEPS)
    saturation, value = 0.5 + 0.4 * more, 0.65 + 0.3 * value
    # Each channel falls from the value by the saturation over its own part of the colour circle (hexcone model).
    sector = (np.array([5.0, 3.0, 1.0]) + 6.0 * hue[:, None]) % 6.0
    depth = np.clip(np.minimum(sector, 4.0 - sector), 0.0, 1.0)
    rgb = value[:, None] * (1.0 - saturation[:, None] * depth)
    return np.where((labels > 0)[:, None], np.rint(255.0 * rgb), 0.0).astype(np.uint8)
