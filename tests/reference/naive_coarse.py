"""Means over blocks of voxels, read literally, block by block."""

import numpy as np


def naive_cells(mask, factor=2):
    """Number the blocks in the order of their first corner; -> cell of every mask voxel in C order."""
    number = {}
    for i in range(0, mask.shape[0], factor):
        for j in range(0, mask.shape[1], factor):
            for k in range(0, mask.shape[2], factor):
                if mask[i : i + factor, j : j + factor, k : k + factor].any():
                    number[i // factor, j // factor, k // factor] = len(number)
    return np.array([number[tuple(place // factor)] for place in np.argwhere(mask)])


def naive_cell_images(x, cells):
    """Root of the number of voxels times their mean row."""
    rows = []
    for cell in range(cells.max() + 1):
        members = [x[j].astype(float) for j in range(len(cells)) if cells[j] == cell]
        rows.append(np.sqrt(len(members)) * sum(members) / len(members))
    return np.array(rows)
