"""Replication read literally: one test at a time, in dictionaries."""

import numpy as np
from scipy import stats


def strength(z):
    return -(stats.norm.logsf(abs(z)) + np.log(2)) / np.log(10)


def tests_of(matrices, field):
    """{(tissue, gene, phenotype): (z, estimate)} of the tests with a result."""
    found = {}
    for m in matrices:
        estimates = m.z if field == "z" else m.effect
        for i, gene in enumerate(m.genes.tolist()):
            for j, phenotype in enumerate(m.phenotypes.tolist()):
                if np.isfinite(m.z[i, j]) and np.isfinite(estimates[i, j]):
                    found[m.tissue, gene, phenotype] = (float(m.z[i, j]), float(estimates[i, j]))
    return found


def benjamini_hochberg_keys(tests, fdr):
    """Keys of the tests that pass, by the step-up rule."""
    order = sorted(tests, key=lambda key: -abs(tests[key][0]))
    last = 0
    for i, key in enumerate(order, 1):
        p = 2 * stats.norm.sf(abs(tests[key][0]))
        if p <= fdr * i / len(order):
            last = i
    return set(order[:last])


def agreement(first, second, keys):
    """n, number of equal signs, Spearman's correlation."""
    keys = sorted(keys)
    a, b = [first[k][1] for k in keys], [second[k][1] for k in keys]
    same = sum(np.sign(x) == np.sign(y) for x, y in zip(a, b, strict=True))
    rho = stats.spearmanr(a, b).statistic if len(keys) > 2 and len(set(a)) > 1 and len(set(b)) > 1 else np.nan
    return len(keys), int(same), rho


def significant(tests, alpha):
    return {key for key, (z, _) in tests.items() if 2 * stats.norm.sf(abs(z)) <= alpha}


def external(first, second, pairs, alpha, good):
    """Associations of both hemispheres: {(tissue, gene, external): (z_left, z_right, z_external)}."""
    found = {}
    for (tissue, gene, phenotype), (z_left, _) in first.items():
        for left, right, other in pairs:
            if phenotype != left or (tissue, gene, right) not in first or (tissue, gene) not in good:
                continue
            z_right = first[tissue, gene, right][0]
            if max(2 * stats.norm.sf(abs(z)) for z in (z_left, z_right)) <= alpha and z_left * z_right > 0:
                outside = second.get((tissue, gene, other), (np.nan, 0.0))[0]
                found[tissue, gene, other] = (z_left, z_right, outside)
    return found
