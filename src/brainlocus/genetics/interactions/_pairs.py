"""Compiled loops of the pair scan."""

from typing import no_type_check

from numba import njit

__all__ = ["BINS", "BINS_PER_UNIT", "UNSTABLE", "UNTESTED", "exact_pairs", "standardise", "tile_statistics"]

BINS = 16_385
"""Of t^2, up to 64; the last bin is open."""
BINS_PER_UNIT = 256.0
UNTESTED, UNSTABLE = -1.0, -2.0

_NO_RANK = 1e-6
"""det S / (S_ii S_jj), or the share of a product that its parts leave, below which a pair is in perfect LD."""
_UNSTABLE_DETERMINANT = 2e-3
"""Below this the float32 sums have lost three of their seven digits; the pair is computed again in float64."""
_UNSTABLE_PRODUCT = 2e-2


@njit(cache=True, nogil=True)
@no_type_check
def standardise(dosage, mean, scale, x):  # noqa: ANN001, ANN202
    """Fill mean, 1 / standard deviation (0 where constant) and the standardised row, missing calls 0."""
    n = dosage.shape[1]
    for j in range(dosage.shape[0]):
        total = 0.0
        called = 0
        for i in range(n):
            value = dosage[j, i]
            if value == value:
                total += value
                called += 1
        mean[j] = total / called if called else 0.0
        squares = 0.0
        for i in range(n):
            value = dosage[j, i]
            if value == value:
                squares += (value - mean[j]) ** 2
        scale[j] = (n / squares) ** 0.5 if squares > 1e-8 * n else 0.0
        for i in range(n):
            value = dosage[j, i]
            x[j, i] = (value - mean[j]) * scale[j] if value == value else 0.0


@njit(cache=True, nogil=True)
@no_type_check
def tile_statistics(products, sides, total, df, use, distance, histogram, t2, tested):  # noqa: ANN001, ANN202
    """Fill t^2 of a tile's pairs (or UNTESTED, UNSTABLE) and count the stable ones.

    `products` is (S11, X'X, V_ij, V_ji, S22, Sy), `sides` (diagonal of S11 of rows, of columns, u of rows, of columns),
    `total` (y~'y~, people), `use` (open_row, open_column, member, place_row, place_column, chromosome_row,
    chromosome_column, position_row, position_column); see `scan_tile`.
    """
    s11, raw11, v_row, v_column, s22, sy = products
    sii, sjj, u_row, u_column = sides
    open_row, open_column, member, place_row, place_column, chr_row, chr_column, pos_row, pos_column = use
    n = 1.0 * total[1]
    for k in range(sy.shape[0]):
        yy = total[0]
        for r in range(s11.shape[0]):
            for c in range(s11.shape[1]):
                t2[k, r, c] = UNTESTED
                if not open_row[k, r] or not open_column[k, c]:
                    continue
                if place_row[r] == place_column[c] or (member[c] and place_column[c] < place_row[r]):
                    continue
                if chr_row[r] == chr_column[c] and abs(pos_row[r] - pos_column[c]) < distance:
                    continue
                tested[k] += 1
                a, b, d = sii[r], s11[r, c], sjj[c]
                determinant = a * d - b * b
                pp = s22[r, c] - raw11[r, c] * raw11[r, c] / n
                t2[k, r, c] = UNSTABLE
                if determinant < _UNSTABLE_DETERMINANT * a * d:
                    continue
                vi, vj = v_row[r, c], v_column[r, c]
                wi = (d * vi - b * vj) / determinant
                wj = (a * vj - b * vi) / determinant
                rpp = pp - vi * wi - vj * wj
                if rpp < _UNSTABLE_PRODUCT * pp or pp <= 0.0:
                    continue
                ui, uj = u_row[k, r], u_column[k, c]
                rpy = sy[k, r, c] - wi * ui - wj * uj
                explained = (d * ui * ui - 2.0 * b * ui * uj + a * uj * uj) / determinant
                gain = rpy * rpy / rpp
                rss = yy - explained - gain
                if rss < 1e-3 * yy:
                    continue
                value = gain * df / rss
                t2[k, r, c] = value
                place = int(value * BINS_PER_UNIT)
                histogram[k, place if place < BINS else BINS - 1] += 1


@njit(cache=True, nogil=True)
@no_type_check
def exact_pairs(trait, row, column, g_row, g_column, mean_row, mean_column, q, y, df, t, work):  # noqa: ANN001, ANN202
    """Fill t of pairs in float64; NaN in perfect LD.

    `q` is (columns, people), `y` (traits, people), `work` (3, columns). Every product of two columns a, b is
    ``a'b - (Q'a)'(Q'b)``, so the covariates are out of the product term too.
    """
    n, rank = q.shape[1], q.shape[0]
    for m in range(row.size):
        i, j, k = row[m], column[m], trait[m]
        work[:] = 0.0
        a = b = d = vi = vj = pp = ui = uj = py = yy = 0.0
        for s in range(n):
            gi, gj = g_row[i, s], g_column[j, s]
            xi = gi - mean_row[i] if gi == gi else 0.0
            xj = gj - mean_column[j] if gj == gj else 0.0
            p, ys = xi * xj, y[k, s]
            a += xi * xi
            b += p
            d += xj * xj
            vi += p * xi
            vj += p * xj
            pp += p * p
            ui += xi * ys
            uj += xj * ys
            py += p * ys
            yy += ys * ys
            for c in range(rank):
                work[0, c] += q[c, s] * xi
                work[1, c] += q[c, s] * xj
                work[2, c] += q[c, s] * p
        for c in range(rank):
            qi, qj, qp = work[0, c], work[1, c], work[2, c]
            a -= qi * qi
            b -= qi * qj
            d -= qj * qj
            vi -= qi * qp
            vj -= qj * qp
            pp -= qp * qp
        determinant = a * d - b * b
        t[m] = float("nan")
        if not determinant > _NO_RANK * a * d:
            continue
        wi = (d * vi - b * vj) / determinant
        wj = (a * vj - b * vi) / determinant
        rpp = pp - vi * wi - vj * wj
        if not rpp > _NO_RANK * pp:
            continue
        rpy = py - wi * ui - wj * uj
        rss = yy - (d * ui * ui - 2.0 * b * ui * uj + a * uj * uj) / determinant - rpy * rpy / rpp
        t[m] = rpy / (rpp * max(rss, 1e-300) / df) ** 0.5
