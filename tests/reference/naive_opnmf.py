"""opNMF, its start and its measures, read literally from structural.md 1.1 to 1.3, in float64."""

import numpy as np


def naive_update(x, w, exponent=1.0):
    """One iteration, with the spectral norm from an SVD of W."""
    q = x.T @ w
    n = x @ q
    a = w.T @ n
    new = np.maximum(w * (n / (w @ a)) ** exponent, 1e-16)
    return new / np.linalg.norm(new, ord=2)


def naive_change(new, old):
    return np.linalg.norm(new - old) / np.linalg.norm(old)


def naive_nndsvd(x, r):
    """Boutsidis & Gallopoulos, vector by vector; zeros filled with 1e-3 of the column's largest entry."""
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    w = np.zeros((x.shape[0], r))
    w[:, 0] = np.sqrt(s[0]) * np.abs(u[:, 0])
    for i in range(1, r):
        best, column = -1.0, None
        for sign in (1.0, -1.0):
            part_u, part_v = np.maximum(sign * u[:, i], 0), np.maximum(sign * vt[i], 0)
            m = np.linalg.norm(part_u) * np.linalg.norm(part_v)
            if m > best:
                best, column = m, np.sqrt(s[i] * m) * part_u / np.linalg.norm(part_u)
        w[:, i] = column
    for i in range(r):
        w[w[:, i] < 1e-10, i] = 1e-3 * w[:, i].max()
    return w


def naive_mean_cosine(w):
    total, count = 0.0, 0
    for i in range(w.shape[1]):
        for j in range(w.shape[1]):
            if i != j:
                total += float(w[:, i] @ w[:, j]) / float(np.linalg.norm(w[:, i]) * np.linalg.norm(w[:, j]))
                count += 1
    return total / count


def naive_hoyer(w):
    root = np.sqrt(w.size)
    return (root - np.abs(w).sum() / np.linalg.norm(w)) / (root - 1)


def naive_epoch(x, w, batches, exponent):
    """Every batch in turn, each with the spectral norm from an SVD; x is voxels x people."""
    for batch in batches:
        w = naive_update(x[:, batch], w, exponent)
    return w


def naive_active_update(x, w, exponent=0.5):
    """One iteration of the entries above 0 alone; the others stay 0. Its direction: Frobenius norm 1."""
    new = np.where(w > 0, naive_update(x, np.where(w > 0, w, 0.0), exponent), 0.0)
    return new / np.linalg.norm(new)


def naive_renew(x, w, kept, families, exponent=0.5, share=1e-3, gone=1e-6):
    """A whole iteration of a W with at most `kept` entries a voxel, voxel by voxel, as the docstring of active.py."""
    q = x.T @ w
    ratios = np.zeros_like(w)
    for j in np.flatnonzero(w.any(axis=1)):
        ratios[j] = (x[j] @ q) / (w[j] @ (q.T @ q))
    new = w * ratios**exponent
    for j in np.flatnonzero(w.any(axis=1)):
        lead = int(np.argmax(w[j]))
        top = new[j].max()
        new[j, new[j] < gone * top] = 0
        outside = [
            k
            for k in range(w.shape[1])
            if w[j, k] == 0 and families[k] == families[lead] and ratios[j, k] > ratios[j, lead] * (1 + share)
        ]
        outside.sort(key=lambda k: -ratios[j, k])
        places = kept - int((new[j] >= share * top).sum())
        for k in outside[:places]:
            if (new[j] > 0).sum() == kept:
                new[j, np.argmin(np.where(new[j] > 0, new[j], np.inf))] = 0
            new[j, k] = share * top
    return new / np.linalg.norm(new)


def naive_nested_update(x, w, coarse, parents, exponent=1.0):
    """One iteration in which a voxel may have weights in the children of its own coarse component only."""
    inside = np.array([[parents[k] == coarse[j] for k in range(w.shape[1])] for j in range(w.shape[0])])
    new = np.where(inside, naive_update(x, w, exponent), 0.0)
    return new / np.linalg.norm(new, ord=2)
