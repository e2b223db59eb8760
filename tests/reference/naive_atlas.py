"""EM-ONMF and its loss, read literally, with loops."""

import numpy as np


def naive_loss(x, w):
    """||X - W W'X||_F^2 by forming the residual."""
    return float(((x - w @ (w.T @ x)) ** 2).sum())


def naive_components(x, labels, n_components):
    """W with the leading left singular vector of each cluster's rows, by SVD."""
    w = np.zeros((x.shape[0], n_components))
    for k in range(n_components):
        rows = np.flatnonzero(labels == k)
        if rows.size:
            u = np.linalg.svd(x[rows], full_matrices=False)[0][:, 0]
            w[rows, k] = np.abs(u)
    return w


def naive_em(x, prototypes, passes):
    """Assign every voxel to its best prototype, replace prototypes by leading right singular vectors, repeat."""
    h = prototypes.copy()
    losses = []
    labels = np.zeros(x.shape[0], dtype=int)
    for _ in range(passes):
        loss = 0.0
        for j in range(x.shape[0]):
            products = [float(x[j] @ h[k]) for k in range(len(h))]
            labels[j] = int(np.argmax(products))
            loss += float(x[j] @ x[j]) - products[labels[j]] ** 2
        losses.append(loss)
        for k in range(len(h)):
            rows = x[labels == k]
            if len(rows):
                v = np.linalg.svd(rows, full_matrices=False)[2][0]
                h[k] = v if v.sum() > 0 else -v
    return labels, losses


def naive_adjusted_rand(a, b):
    """Counting pairs."""
    n = len(a)
    together = in_a = in_b = 0
    for i in range(n):
        for j in range(i + 1, n):
            same_a, same_b = a[i] == a[j], b[i] == b[j]
            together += same_a and same_b
            in_a += same_a
            in_b += same_b
    total = n * (n - 1) / 2
    chance = in_a * in_b / total
    return (together - chance) / ((in_a + in_b) / 2 - chance)
