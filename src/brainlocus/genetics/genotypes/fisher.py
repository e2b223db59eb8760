"""Fisher's exact test of 2 x 2 tables, many at once.

Given the margins, the first cell a has the hypergeometric probability, walked from the observed table::

    P(a + 1) / P(a) = b c / ((a + 1) (d + 1))        with b, c, d those that go with a

and the two-sided p is the sum of all P not above that observed.

References
----------
Fisher (1922), 10.2307/2340521; Agresti (1992), 10.1214/ss/1177011454.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float64, Int
from numba import njit

__all__ = ["fisher_neg_log10_p"]

_TIE = 1.0 + 1e-7
"""Tables as likely as the observed one to rounding count as such (R's fisher.test)."""
_LN10 = np.log(10.0)


def fisher_neg_log10_p(
    a: Int[np.ndarray, " tables"],
    b: Int[np.ndarray, " tables"],
    c: Int[np.ndarray, " tables"],
    d: Int[np.ndarray, " tables"],
) -> Float64[np.ndarray, " tables"]:
    """Return -log10 of the two-sided p of the tables [[a, b], [c, d]]; 0 where a margin is 0.

    Examples
    --------
    >>> one = np.array([1])
    >>> fisher_neg_log10_p(8 * one, 2 * one, one, 5 * one).round(4).tolist()
    [1.4564]
    """
    result = np.empty(a.size)
    _tests(*(np.asarray(x, dtype=np.int64) for x in (a, b, c, d)), result)
    return result


@njit(cache=True, nogil=True)
@no_type_check
def _tests(a, b, c, d, result):  # noqa: ANN001, ANN202 - numba
    for k in range(a.size):
        result[k] = _test(a[k], b[k], c[k], d[k])


@njit(cache=True, nogil=True)
@no_type_check
def _test(a, b, c, d):  # noqa: ANN001, ANN202 - numba
    if min(a + b, c + d, a + c, b + d) == 0:
        return 0.0
    # Weights relative to the observed table: the mode may be e300 times as likely, so the largest is kept apart.
    tail, total, exponent = 1.0, 1.0, 0.0
    for direction in (1, -1):
        log_weight = 0.0
        w, x, y, z = float(a), float(b), float(c), float(d)
        while True:
            if direction > 0:
                if x < 1.0 or y < 1.0:
                    break
                log_weight += np.log(x * y / ((w + 1.0) * (z + 1.0)))
                w, x, y, z = w + 1.0, x - 1.0, y - 1.0, z + 1.0
            else:
                if w < 1.0 or z < 1.0:
                    break
                log_weight += np.log(w * z / ((x + 1.0) * (y + 1.0)))
                w, x, y, z = w - 1.0, x + 1.0, y + 1.0, z - 1.0
            if log_weight <= np.log(_TIE):
                weight = np.exp(log_weight)
                tail += weight
                if weight < 1e-20 * tail:
                    break  # unimodal: all that follows is smaller still
            if log_weight > exponent:
                total = total * np.exp(exponent - log_weight)
                exponent = log_weight
            total += np.exp(log_weight - exponent)
    return max(-(np.log(tail) - np.log(total) - exponent) / _LN10, 0.0)
