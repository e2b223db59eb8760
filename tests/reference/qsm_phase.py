"""Phase formulas read literally: loops over voxels, a heap for the queue, dense solvers."""

import heapq

import numpy as np


def wrapped(angle):
    return angle - 2 * np.pi * np.round(angle / (2 * np.pi))


def naive_laplacian_unwrapping(phase, voxel_size_mm, sine=False):
    """Least-squares phase with no flow through the faces, by a dense pseudo-inverse; mean 0."""
    n = phase.size
    index = np.arange(n).reshape(phase.shape)
    operator, right = np.zeros((n, n)), np.zeros(n)
    for axis, h in enumerate(voxel_size_mm):
        for position in np.ndindex(phase.shape):
            if position[axis] + 1 == phase.shape[axis]:
                continue
            after = tuple(p + (a == axis) for a, p in enumerate(position))
            i, j = index[position], index[after]
            step = phase[after] - phase[position]
            flow = (np.sin(step) if sine else wrapped(step)) / h**2
            right[i] += flow
            right[j] -= flow
            operator[i, j] += 1 / h**2
            operator[j, i] += 1 / h**2
            operator[i, i] -= 1 / h**2
            operator[j, j] -= 1 / h**2
    return (np.linalg.pinv(operator, hermitian=True) @ right).reshape(phase.shape)


def naive_romeo_weight(phase, mask, position, axis, magnitude=None, other=None, ratio=1.0):
    """Weight of one edge in [0, 1]; None where there is none."""

    def at(steps):
        return tuple(p + steps * (a == axis) for a, p in enumerate(position))

    def inside(p):
        return all(0 <= v < n for v, n in zip(p, phase.shape, strict=True)) and mask[p]

    h, i, j, k = (at(s) for s in (-1, 0, 1, 2))
    if not (inside(i) and inside(j)):
        return None
    factors = [1 - abs(wrapped(phase[j] - phase[i])) / np.pi]
    if other is not None:
        factors.append(max(0, 1 - abs(wrapped(phase[j] - phase[i]) - wrapped(other[j] - other[i]) * ratio)))
    line = max(0, 1 - abs(wrapped(phase[h] - 2 * phase[i] + phase[j])) / 2) if inside(h) else 0.9
    line *= max(0, 1 - abs(wrapped(phase[i] - 2 * phase[j] + phase[k])) / 2) if inside(k) else 0.9
    factors.append(line)
    if magnitude is not None:
        large = max(magnitude[i], magnitude[j])
        factors.append((min(magnitude[i], magnitude[j]) / large) ** 2 if large > 0 else 0.0)
    return np.prod([0.1 + 0.9 * f for f in factors])


def naive_region_growing(phase, mask, weights, seed):
    """Grow from one seed with a heap of (-weight, edge)."""
    unwrapped = {seed: float(phase[seed])}
    heap = []

    def push(voxel):
        for axis in range(3):
            for side in (-1, 1):
                far = tuple(p + side * (a == axis) for a, p in enumerate(voxel))
                if all(0 <= v < n for v, n in zip(far, mask.shape, strict=True)) and mask[far] and far not in unwrapped:
                    low = voxel if side == 1 else far
                    heapq.heappush(heap, (-int(weights[(*low, axis)]), voxel, far))

    push(seed)
    while heap:
        _, old, new = heapq.heappop(heap)
        if new not in unwrapped:
            value = float(phase[new])
            unwrapped[new] = value - 2 * np.pi * np.round((value - unwrapped[old]) / (2 * np.pi))
            push(new)
    result = np.zeros(phase.shape)
    for voxel, value in unwrapped.items():
        result[voxel] = value
    return result


def naive_coherence(phase, mask, voxel_size_mm, radius_mm):
    result = np.zeros(phase.shape)
    voxels = np.argwhere(mask)
    for voxel in voxels:
        near = np.linalg.norm((voxels - voxel) * voxel_size_mm, axis=1) <= radius_mm + 1e-9
        result[tuple(voxel)] = abs(np.exp(1j * phase[tuple(voxels[near].T)]).mean())
    return result


def naive_second_difference(phase, mask):
    result = np.zeros(phase.shape)
    padded = np.pad(mask, 1)
    values = np.pad(phase, 1)
    for position in np.argwhere(mask):
        x = position + 1
        bends = []
        for d in np.ndindex(3, 3, 3):
            d = np.array(d) - 1
            if tuple(d) <= (0, 0, 0):
                continue
            a, b = tuple(x - d), tuple(x + d)
            if padded[a] and padded[b]:
                centre = values[tuple(x)]
                bends.append(wrapped(values[a] - centre) - wrapped(centre - values[b]))
        if bends:
            distance = np.sqrt(13 * np.mean(np.square(bends)))
            result[tuple(position)] = 1 - min(1, distance / (np.pi * np.sqrt(13)))
    return result


def naive_offset(vector, voxel_size_mm, sigma_mm):
    """Gaussian sum over all voxels, not normalised."""
    places = np.stack(np.indices(vector.shape), axis=-1).reshape(-1, 3) * np.asarray(voxel_size_mm)
    flat = vector.ravel()
    result = np.empty(flat.size, dtype=complex)
    for i, place in enumerate(places):
        squared = ((places - place) ** 2).sum(axis=1)
        result[i] = (np.exp(-squared / (2 * sigma_mm**2)) * flat).sum()
    norm = np.prod([h / (sigma_mm * np.sqrt(2 * np.pi)) for h in voxel_size_mm])
    return norm * result.reshape(vector.shape)
