"""Enrichment of a gene set by drawing genes, and tissue specificity, read literally: sets and dictionaries."""

import numpy as np
from scipy import stats


def triples(tests):
    """(gene, tissue, phenotype, z, p) of every test, as names."""
    names = zip(
        tests.genes[tests.gene].tolist(),
        tests.tissues[tests.tissue].tolist(),
        tests.phenotypes[tests.phenotype].tolist(),
        tests.z.tolist(),
        (10.0**-tests.neg_log10_p).tolist(),
        strict=True,
    )
    return list(names)


def set_counts(tests, genes, phenotypes, threshold):
    """Associations of a set, and phenotypes that it hits."""
    found = [t for t in triples(tests) if t[0] in genes and t[2] in phenotypes and t[4] <= threshold]
    return len(found), len({t[2] for t in found})


def searched(observed, null):
    """Percentiles, p and family-wise p of one statistic; observed by threshold, null by draw and threshold."""
    n_draws, n_thresholds = null.shape
    q95 = []
    for t in range(n_thresholds):
        ordered = sorted(null[:, t])
        place = (n_draws - 1) * 0.95
        low = int(np.floor(place))
        high = min(low + 1, n_draws - 1)
        q95.append(ordered[low] + (place - low) * (ordered[high] - ordered[low]))
    p = [(1 + sum(x >= observed[t] for x in null[:, t])) / (1 + n_draws) for t in range(n_thresholds)]
    everything = np.vstack([observed, null])
    largest = []
    for row in everything:
        scores = []
        for t in range(n_thresholds):
            sd = np.sqrt(np.mean((everything[:, t] - np.mean(everything[:, t])) ** 2))
            if sd > 0:
                scores.append((row[t] - np.mean(everything[:, t])) / sd)
        largest.append(max(scores, default=-np.inf))
    family_wise = (1 + sum(x >= largest[0] - 1e-12 for x in largest[1:])) / (1 + n_draws)
    return np.array(q95), np.array(p), family_wise


def tissues_of(tests, key):
    """{key: {tissue}} of significant tests; key is a function of (gene, phenotype)."""
    found = {}
    for gene, tissue, phenotype, _, _ in triples(tests):
        found.setdefault(key(gene, phenotype), set()).add(tissue)
    return found


def z_of(tests, key):
    found = {}
    for gene, tissue, phenotype, z, _ in triples(tests):
        found.setdefault(key(gene, phenotype), []).append((tissue, z))
    return found


def poisson_binomial(rates):
    """Probabilities of 0, 1, ... successes, by all subsets."""
    chance = np.zeros(len(rates) + 1)
    for subset in range(2 ** len(rates)):
        hit = [(subset >> k) & 1 for k in range(len(rates))]
        chance[sum(hit)] += np.prod([r if h else 1 - r for r, h in zip(rates, hit, strict=True)])
    return chance


def interaction(size, count, second):
    """t and p of the interaction, by statsmodels."""
    import statsmodels.api as sm

    design = sm.add_constant(np.column_stack([size, second, size * second]))
    fit = sm.OLS(count, design).fit()
    return float(fit.tvalues[3]), float(fit.pvalues[3])


def mann_whitney(first, second):
    return stats.mannwhitneyu(first, second, method="asymptotic")
