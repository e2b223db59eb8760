"""Multivariate association of 1,000 people, 20,000 variants and 200 phenotypes: time of a fit and of permutations.

On paper, in products of double precision: the kernel of a training set once, 2 n^2 m flop; its eigenvectors, about
9 n^3; a permutation in a training set 2 n^2 q for U'Y, 4 n q^2 for the Gram matrices and a few tens of q^3. With five
training sets of 800 a permutation of one penalty is 5 x 0.5 Gflop, whatever m is.
"""

import resource

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.measure import Measurement, cpu_seconds
from brainlocus.cohort.multivariate import (
    PLS,
    Method,
    PairedTables,
    RidgeCca,
    SparseCca,
    SparseReducedRank,
    cross_validate_modes,
    fit_everyone,
    permute_modes,
    plan_folds,
    ridge_grid,
    standardise,
)

PEOPLE, VARIANTS, PHENOTYPES = 1_000, 20_000, 200


def simulated(n: int, m: int, q: int, *, seed: int = 0, share: float = 0.2) -> PairedTables:
    """Dosages of which ten move, through one factor, ten phenotypes; the factor is `share` of the variance of these."""
    rng = np.random.default_rng(seed)
    x = rng.binomial(2, rng.uniform(0.1, 0.5, m), (n, m)).astype(np.float64)
    causal = x[:, :10] - x[:, :10].mean(axis=0)
    factor = (causal / causal.std(axis=0)).sum(axis=1)
    factor /= factor.std()
    y = rng.standard_normal((n, q))
    y[:, :10] = np.sqrt(share) * factor[:, None] + np.sqrt(1 - share) * y[:, :10]
    return PairedTables(x, y, rng.standard_normal((n, 5)))


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run() -> list[Measurement]:
    with threadpool_limits(1):
        tables = simulated(PEOPLE, VARIANTS, PHENOTYPES)
        return [*_fits(tables), *_permutations(tables), *_others(tables)]


def _fits(tables: PairedTables) -> list[Measurement]:
    kernel, floor = cpu_seconds(lambda: tables.x @ tables.x.T)
    assert kernel.shape == (PEOPLE, PEOPLE)
    rows = [Measurement("X X' of 1,000 x 20,000 alone", floor, "CPU s", None, "the floor of a fit")]
    models: tuple[tuple[str, Method], ...] = (
        ("ridge CCA", RidgeCca(((0.9, 0.5),))),
        ("PLS", PLS),
        ("sparse CCA", SparseCca(((0.2, 0.4),))),
        ("sparse reduced rank", SparseReducedRank(((0.5, 0.5),))),
    )
    for name, method in models:
        before = _peak_mib()
        fitted, seconds = cpu_seconds(lambda m=method: fit_everyone(m, tables, m.penalties[0], 3))
        top = set(np.argsort(-np.abs(fitted.modes.weights_of_x[:, 0]))[:10].tolist())
        note = f"{len(top & set(range(10)))} of 10 planted variants among the top 10; peak {_peak_mib():.0f} MiB"
        rows.append(Measurement(f"{name}, one fit, 3 modes", seconds, "CPU s", None, note))
        assert _peak_mib() >= before
    return rows


def _permutations(tables: PairedTables) -> list[Measurement]:
    grid = RidgeCca(ridge_grid(PEOPLE, VARIANTS, PHENOTYPES))
    rows = [
        _permuted(tables, "PLS, whole pipeline", PLS, 50),
        _permuted(tables, "ridge CCA, penalties fixed", RidgeCca(((0.9, 0.5),)), 50),
        _permuted(tables, "sparse CCA, one penalty", SparseCca(((0.2, 0.4),)), 5),
        _permuted(tables, "ridge CCA, penalties of 25 chosen anew", grid, 4),
    ]
    return [*rows, Measurement("peak memory of all this", _peak_mib(), "MiB", None, "X alone is 153 MiB")]


def _permuted(tables: PairedTables, name: str, method: Method, count: int) -> Measurement:
    """Return the time of 1,000 permutations from that of a few: what is prepared once, and what each takes."""
    rng = np.random.default_rng(0)
    plan = plan_folds(PEOPLE, None, folds=5, inner_folds=5, rng=rng)
    held, once = cpu_seconds(lambda: cross_validate_modes(method, tables, [tables.y], plan, 1))
    final = fit_everyone(method, tables, method.penalties[-1], 1)
    test, seconds = cpu_seconds(
        lambda: permute_modes(method, tables, plan, held.mean[0], final, rng=rng, permutations=count)
    )
    # The data took the preparation of X and one Y.
    each = max(seconds - once, 0.0) / (count - 1)
    note = f"{1000 * each:.0f} CPU ms each after {once:.0f} s, from {count}; r {held.mean[0, 0]:.2f}, p {test.p[0]:.2g}"
    return Measurement(f"{name}, 1,000 permutations", once + 1000 * each, "CPU s", None, note)


def _others(tables: PairedTables) -> list[Measurement]:
    from sklearn.cross_decomposition import PLSSVD

    everyone = np.arange(PEOPLE)
    x, y = (standardise(t, tables.covariates, everyone, everyone[:0]).train for t in (tables.x, tables.y))
    _, seconds = cpu_seconds(lambda: PLSSVD(3, scale=False).fit(x, y))
    return [Measurement("scikit-learn PLSSVD, one fit, 3 modes", seconds, "CPU s", None, "of standardised tables")]
