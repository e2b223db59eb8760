"""Background removal read literally: balls voxel by voxel, full complex transforms, direct solves."""

from itertools import product

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve


def ball_offsets(voxel_size_mm, radius_mm):
    """Voxel steps whose length in mm is at most the radius."""
    reach = [int(radius_mm // h) + 1 for h in voxel_size_mm]
    steps = product(*(range(-n, n + 1) for n in reach))
    return [s for s in steps if sum((i * h) ** 2 for i, h in zip(s, voxel_size_mm, strict=True)) <= radius_mm**2 + 1e-9]


def naive_vsharp(field, mask, voxel_size_mm, radii, threshold, box):
    """V-SHARP as methods/qsm.md section 8.1 words it; `box` is the padded shape. Returns local field and mask."""
    high_passed = np.zeros(field.shape)
    done = np.zeros(field.shape, dtype=bool)
    for radius in radii:
        steps = ball_offsets(voxel_size_mm, radius)
        for voxel in np.argwhere(mask & ~done):
            places = [tuple(voxel + s) for s in steps]
            inside = [p for p in places if all(0 <= i < n for i, n in zip(p, field.shape, strict=True)) and mask[p]]
            if len(inside) / len(steps) > 0.999:
                high_passed[tuple(voxel)] = field[tuple(voxel)] - sum(field[p] for p in inside) / len(steps)
                done[tuple(voxel)] = True
    kernel = np.zeros(box)
    kernel[0, 0, 0] = 1.0
    steps = ball_offsets(voxel_size_mm, radii[0])
    for step in steps:
        kernel[step] -= 1 / len(steps)
    spectrum = np.fft.fftn(kernel)
    kept = np.abs(spectrum) > threshold
    ratio = np.where(kept, np.fft.fftn(high_passed, s=box, axes=(0, 1, 2)) / np.where(kept, spectrum, 1), 0)
    local = np.fft.ifftn(ratio).real[tuple(slice(0, n) for n in field.shape)]
    return np.where(done, local, 0), done


def naive_lbv(field, mask, voxel_size_mm):
    """Local field on the voxels whose six neighbours lie in the mask, 0 on the rest, by a sparse direct solve."""
    padded = np.pad(mask, 1)
    inside = mask.copy()
    for axis in range(3):
        for step in (-1, 1):
            inside &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
    number = -np.ones(mask.shape, dtype=int)
    number[inside] = np.arange(inside.sum())
    matrix = sparse.lil_matrix((inside.sum(), inside.sum()))
    right = np.zeros(inside.sum())
    for voxel in np.argwhere(inside):
        row = number[tuple(voxel)]
        for axis, h in enumerate(voxel_size_mm):
            for step in (-1, 1):
                other = voxel.copy()
                other[axis] += step
                matrix[row, row] += 1 / h**2
                right[row] += (field[tuple(voxel)] - field[tuple(other)]) / h**2
                if inside[tuple(other)]:
                    matrix[row, number[tuple(other)]] -= 1 / h**2
    local = np.zeros(mask.shape)
    local[inside] = spsolve(matrix.tocsr(), right)
    return local, inside


def dense(operator, shape):
    """Matrix of a linear operator on images of a shape, one unit image at a time."""
    columns = []
    for i in range(int(np.prod(shape))):
        unit = np.zeros(shape, dtype=np.float32)
        unit.reshape(-1)[i] = 1
        columns.append(operator(unit).ravel())
    return np.array(columns, dtype=float).T
