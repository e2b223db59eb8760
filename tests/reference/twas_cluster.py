"""Similarity, trees and their measures, read literally."""

import math

import numpy as np


def naive_ranks(values):
    """Average rank of each value: how many are smaller, and half of those equal."""
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def naive_spearman(x, y):
    """Pearson correlation of ranks over complete pairs; NaN below three pairs or for a constant."""
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if len(pairs) < 3:
        return math.nan
    a, b = (naive_ranks([pair[k] for pair in pairs]) for k in (0, 1))
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    cross = sum((u - mean_a) * (v - mean_b) for u, v in zip(a, b, strict=True))
    square_a, square_b = sum((u - mean_a) ** 2 for u in a), sum((v - mean_b) ** 2 for v in b)
    return cross / math.sqrt(square_a * square_b) if square_a and square_b else math.nan


def naive_ward(distance, method):
    """Lance-Williams by a search of all pairs; merges and order as R has them."""
    n = len(distance)
    squared = method == "ward.D2"
    table = {(i, j): distance[i][j] ** 2 if squared else distance[i][j] for i in range(n) for j in range(i)}
    clusters = {i: (-(i + 1), 1, [i]) for i in range(n)}
    heights, merges = [], []

    def between(i, j):
        return table[max(i, j), min(i, j)]

    for step in range(1, n):
        i, j = min(((i, j) for i in clusters for j in clusters if j < i), key=lambda pair: between(*pair))
        (left, size_i, leaves_i), (right, size_j, leaves_j) = clusters[i], clusters[j]
        height = between(i, j)
        new = n + step
        for k in clusters:
            if k in (i, j):
                continue
            size_k, total = clusters[k][1], size_i + size_j + clusters[k][1]
            table[new, k] = (
                (size_i + size_k) * between(i, k) + (size_j + size_k) * between(j, k) - size_k * height
            ) / total
        # A single leaf before a cluster, the lower number before the higher, the earlier cluster before the later.
        members = sorted([(left, leaves_i), (right, leaves_j)], key=lambda m: (m[0] > 0, abs(m[0])))
        del clusters[i], clusters[j]
        clusters[new] = (step, size_i + size_j, members[0][1] + members[1][1])
        merges.append((members[0][0], members[1][0]))
        heights.append(math.sqrt(height) if squared else height)
    return merges, heights, next(iter(clusters.values()))[2]


def naive_adjusted_rand(a, b):
    """Hubert & Arabie from the four kinds of pairs."""
    n = len(a)
    both = only_a = only_b = neither = 0
    for i in range(n):
        for j in range(i):
            x, y = a[i] == a[j], b[i] == b[j]
            both, only_a = both + (x and y), only_a + (x and not y)
            only_b, neither = only_b + (y and not x), neither + (not x and not y)
    top = 2 * (both * neither - only_a * only_b)
    bottom = (both + only_a) * (only_a + neither) + (both + only_b) * (only_b + neither)
    return top / bottom if bottom else 1.0


def naive_silhouette(distance, labels):
    """Rousseeuw's width of every object; 0 for a cluster of one."""
    widths = []
    n = len(labels)
    for i in range(n):
        own = [distance[i][j] for j in range(n) if j != i and labels[j] == labels[i]]
        if not own:
            widths.append(0.0)
            continue
        others = []
        for other in set(labels) - {labels[i]}:
            some = [distance[i][j] for j in range(n) if labels[j] == other]
            others.append(sum(some) / len(some))
        a, b = sum(own) / len(own), min(others)
        widths.append((b - a) / max(a, b) if max(a, b) else 0.0)
    return widths


def naive_trustworthiness(before, after, k):
    """Venna & Kaski: penalty for those near in the embedding that were not near before."""
    n = len(before)
    total = 0.0
    for i in range(n):
        others = [j for j in range(n) if j != i]
        rank = {j: r + 1 for r, j in enumerate(sorted(others, key=lambda j: before[i][j]))}
        near = sorted(others, key=lambda j: after[i][j])[:k]
        total += sum(rank[j] - k for j in near if rank[j] > k)
    return 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * total


def naive_distance(x, y):
    """Euclidean distance over shared coordinates, scaled up to all of them."""
    shared = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if not shared:
        return math.nan
    return math.sqrt(len(x) / len(shared) * sum((a - b) ** 2 for a, b in shared))


def as_array(rows):
    return np.array(rows, dtype=np.float64)
