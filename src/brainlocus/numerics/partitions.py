"""Agreement of two partitions of the same objects, all from the table of joint counts.

n_ij objects are in class i of the first and class j of the second partition, a_i and b_j are the sums of rows and
columns, n is the sum of all. Classes without an object may be in the table; they change nothing.
"""

import numpy as np
from jaxtyping import Float64, Int, Int64, Shaped

__all__ = ["adjusted_mutual_information", "adjusted_rand", "joint_counts", "rand_of_counts"]


def joint_counts(
    first: Int[np.ndarray, " objects"], second: Int[np.ndarray, " objects"], n_first: int, n_second: int
) -> Int64[np.ndarray, "first second"]:
    """Return how many objects are in class i of one and class j of the other, in one count.

    Parameters
    ----------
    first, second
        Classes from 0 to ``n_first - 1`` and ``n_second - 1``.

    Examples
    --------
    >>> joint_counts(np.array([0, 0, 1]), np.array([1, 1, 0]), 2, 2).tolist()
    [[0, 2], [1, 0]]
    """
    both = np.bincount(first.astype(np.int64) * n_second + second, minlength=n_first * n_second)
    return both.astype(np.int64, copy=False).reshape(n_first, n_second)


def adjusted_rand(first: Shaped[np.ndarray, " objects"], second: Shaped[np.ndarray, " objects"]) -> float:
    """Return the adjusted Rand index of two labellings: 1 when equal up to names, about 0 by chance.

    Every label counts as a class, 0 included: leave out the background first where it should not.

    Examples
    --------
    >>> adjusted_rand(np.array([1, 1, 2, 2]), np.array([7, 7, 3, 3]))
    1.0
    """
    a, rows = np.unique(first, return_inverse=True)
    b, columns = np.unique(second, return_inverse=True)
    # Counts of the pairs that occur: the whole table of two labellings with many classes may not fit in memory.
    joint = np.unique(rows.astype(np.int64) * b.size + columns, return_counts=True)[1]
    return _rand(joint, np.bincount(rows, minlength=a.size), np.bincount(columns, minlength=b.size))


def rand_of_counts(counts: Int[np.ndarray, "first second"]) -> float:
    """Return the adjusted Rand index from the table of joint counts.

    With c(x) = x (x - 1) / 2,
    (sum c(n_ij) - E) / ((sum c(a_i) + sum c(b_j)) / 2 - E), E = sum c(a_i) sum c(b_j) / c(n).

    References
    ----------
    Hubert & Arabie (1985), Journal of Classification 2:193.
    """
    return _rand(counts, counts.sum(axis=1), counts.sum(axis=0))


def _rand(joint: Int[np.ndarray, "..."], a: Int[np.ndarray, " first"], b: Int[np.ndarray, " second"]) -> float:
    def pairs(sizes: Int[np.ndarray, "..."]) -> float:
        return float((sizes.astype(np.float64) * (sizes - 1.0) / 2.0).sum())

    together, in_a, in_b = pairs(joint), pairs(a), pairs(b)
    n = float(a.sum())
    everything = n * (n - 1.0) / 2.0
    expected = in_a * in_b / everything if everything else 0.0
    largest = (in_a + in_b) / 2.0
    return 1.0 if largest == expected else (together - expected) / (largest - expected)


def adjusted_mutual_information(counts: Int[np.ndarray, "first second"]) -> float:
    """Return the mutual information of two partitions, adjusted for chance: 1 the same, about 0 by chance.

    (MI - E) / ((H_a + H_b) / 2 - E), with E the mean of MI over all pairs of partitions with the same sizes of
    classes (hypergeometric).

    References
    ----------
    Vinh, Epps & Bailey (2010), Journal of Machine Learning Research 11:2837, equations 4 and 24a.

    Examples
    --------
    >>> adjusted_mutual_information(np.array([[3, 0], [0, 2]]))
    1.0
    """
    a, b = counts.sum(axis=1), counts.sum(axis=0)
    a, b = a[a > 0], b[b > 0]
    if a.size <= 1 and b.size <= 1:
        return 1.0
    n = int(a.sum())
    occurring = counts[counts > 0] / n
    products = np.outer(counts.sum(axis=1) / n, counts.sum(axis=0) / n)[counts > 0]
    information = float((occurring * np.log(occurring / products)).sum())
    expected = _expected_information(a, b, n)
    above, largest = information - expected, (_entropy(a, n) + _entropy(b, n)) / 2.0 - expected
    if abs(largest) < 1e-14:  # every object its own class in both: the same partition
        return 1.0
    return float(above / largest) if abs(above - largest) > 1e-14 else 1.0


def _entropy(sizes: Int[np.ndarray, " classes"], n: int) -> float:
    share = sizes / n
    return float(-(share * np.log(share)).sum())


def _expected_information(a: Int[np.ndarray, " first"], b: Int[np.ndarray, " second"], n: int) -> float:
    """Return the mean of the mutual information over random pairs of partitions with these sizes (their eq. 24a).

    A term depends on the two sizes only, so that it is computed once for each pair of sizes that occurs.
    """
    from scipy.special import gammaln

    log_factorial: Float64[np.ndarray, " counts"] = gammaln(np.arange(n + 1.0) + 1.0)
    sizes_a, times_a = np.unique(a, return_counts=True)
    sizes_b, times_b = np.unique(b, return_counts=True)
    total = 0.0
    for size, times in zip(sizes_a.tolist(), times_a.tolist(), strict=True):
        both = np.arange(1, min(size, int(sizes_b[-1])) + 1)[None, :]
        column = sizes_b[:, None]
        possible = (both <= column) & (both >= size + column - n)
        rest = np.where(possible, column - both, 0)
        outside = np.where(possible, n - size - column + both, 0)
        log_share = (
            log_factorial[size] + log_factorial[column] + log_factorial[n - size] + log_factorial[n - column]
            - log_factorial[n] - log_factorial[both] - log_factorial[size - both]
            - log_factorial[rest] - log_factorial[outside]
        )  # fmt: skip
        term = both / n * np.log(n * both / (size * column)) * np.exp(np.where(possible, log_share, -np.inf))
        total += times * float((term.sum(axis=1) * times_b).sum())
    return total
