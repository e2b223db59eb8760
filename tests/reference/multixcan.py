"""S-MultiXcan read literally, from twas.md 3.1: dictionaries, loops, and a singular value decomposition."""

import numpy as np
from scipy import stats


def naive_multixcan(weights, covariance, z, present=None, *, rule="condition-number", value=30.0, ridge=0.0):
    """Test one gene and phenotype.

    weights: tissue -> {snp: weight}; covariance: {(snp, snp): value}, diagonal included; z: tissue -> z or None.
    """
    snps = {s for w in weights.values() for s in w if (s, s) in covariance}
    snps = {s for s in snps if present is None or s in present}

    def product(one, other):
        return sum(
            weights[one][a] * (covariance[a, b] if (a, b) in covariance else covariance[b, a]) * weights[other][b]
            for a in weights[one]
            if a in snps
            for b in weights[other]
            if b in snps
        )

    tissues = [t for t in weights if z.get(t) is not None and product(t, t) > 0]
    v = np.array([[product(t, s) for s in tissues] for t in tissues])
    r = np.array([[v[i, j] / np.sqrt(v[i, i] * v[j, j]) for j in range(len(v))] for i in range(len(v))])
    s = np.linalg.svd(r, compute_uv=False)
    if rule == "condition-number":
        c = s[0] / value
    elif rule == "eigen-ratio":
        c = value * s[0]
    elif rule == "trace-ratio":
        c = value * np.trace(r)
    else:
        c, total = s[0], 0.0
        for one in s:
            total += one
            if total > (1 - value) * np.trace(r):
                break
            c = one
    u, s, _ = np.linalg.svd(r + ridge * np.eye(len(tissues)))
    inverse = np.zeros_like(r)
    kept = 0
    for i in range(len(s)):
        if i == 0 or s[i] >= c * (1 - 1e-12):  # an eigenvalue that is c but for rounding is kept
            inverse += np.outer(u[:, i], u[:, i]) / s[i]
            kept += 1
            smallest = s[i]
    scores = np.array([z[t] for t in tissues])
    every = np.array([one for one in z.values() if one is not None])
    chi2 = scores @ inverse @ scores
    p = {t: 2 * stats.norm.sf(abs(z[t])) for t in tissues}
    best, worst = min(p, key=p.get), max(p, key=p.get)
    return {
        "pvalue": stats.chi2.sf(chi2, kept),
        "n": len(every),
        "n_indep": kept,
        "p_i_best": p[best],
        "t_i_best": best,
        "p_i_worst": p[worst],
        "t_i_worst": worst,
        "eigen_max": s[0],
        "eigen_min": s[-1],
        "eigen_min_kept": smallest,
        "z_min": every.min(),
        "z_max": every.max(),
        "z_mean": every.mean(),
        "z_sd": every.std(ddof=1) if len(every) > 1 else np.nan,
        "tmi": np.trace(r @ inverse),
    }
