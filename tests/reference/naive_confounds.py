"""The confound set of UK Biobank's imaging studies, read literally: one site, one person, one trait at a time."""

import numpy as np
from scipy.stats import norm, rankdata


def zscore(values):
    values = np.asarray(values, dtype=float)
    if len(values) < 2 or values.std() <= 1e-12 * np.abs(values).max(initial=0):
        return np.zeros(len(values))
    return (values - values.mean()) / values.std(ddof=1)


def continuous(values, site):
    """One column for each site, in order of the site's name."""
    values = np.array(values, dtype=float)
    values = values - np.nanmedian(values)
    mad = 1.48 * np.nanmedian(np.abs(values))
    values = values / (mad if mad > np.finfo(float).eps else np.nanstd(values, ddof=1))
    columns = []
    for name in sorted(set(site)):
        column = np.zeros(len(values))
        people = [i for i in range(len(values)) if site[i] == name]
        median = np.nanmedian([values[i] for i in people])
        own = [median if np.isnan(values[i]) or abs(values[i]) > 8 else values[i] for i in people]
        for i, value in zip(people, zscore(own), strict=True):
            column[i] = value
        columns.append(column)
    return columns


def categorical(labels, site):
    columns = []
    for name in sorted(set(site)):
        people = [i for i in range(len(labels)) if site[i] == name]
        levels = sorted({labels[i] for i in people} - {""})
        for level in levels[1:]:
            columns.append(against(labels, levels[0], level, people))
    return columns


def against(labels, first, level, people):
    column = np.zeros(len(labels))
    for i in people:
        column[i] = {first: -1.0, level: 1.0}.get(labels[i], 0.0)
    held = [i for i in people if column[i] != 0]
    column[held] = zscore(column[held])
    return column


def sites(site):
    names = sorted(set(site))
    return [against(site, names[0], name, range(len(site))) for name in names[1:]]


def within(column, home, site):
    """z-score over the people of site `home`, 0 elsewhere."""
    people = [i for i in range(len(column)) if site[i] == home]
    out = np.zeros(len(column))
    out[people] = zscore(np.asarray(column)[people])
    return out


def normal_scores(column, home, site):
    people = [i for i in range(len(column)) if site[i] == home]
    out = np.zeros(len(column))
    ranks = rankdata(np.asarray(column)[people])
    out[people] = norm.ppf((ranks - 0.375) / (len(people) + 0.25))
    return out


def residual(values, columns):
    """Residuals of one variable on intercept and columns, on its own people."""
    out = np.full(len(values), np.nan)
    rows = ~np.isnan(values)
    design = np.column_stack([np.ones(rows.sum()), *[np.asarray(c)[rows] for c in columns]])
    out[rows] = values[rows] - design @ np.linalg.lstsq(design, values[rows], rcond=1e-11)[0]
    return out


def partial_r2(candidate, trait, kept):
    """Squared correlation of candidate and trait, both freed of the kept columns on the trait's people."""
    rows = ~np.isnan(trait)
    y = residual(trait, kept)[rows]
    c = residual(np.where(rows, candidate, np.nan), kept)[rows]
    return np.corrcoef(y, c)[0, 1] ** 2


def worth_keeping(candidates, traits, kept, min_variance):
    table = np.array([[partial_r2(c, traits[:, j], kept) for j in range(traits.shape[1])] for c in candidates])
    means = table.mean(axis=1)
    return [bool(row.max() >= min_variance or mean > np.percentile(means, 95)) for row, mean in zip(table, means,
            strict=True)]  # fmt: skip


def smoothed(times, values, sigma):
    """Kernel mean of one trait at each person's time, over the people who have it."""
    out = np.zeros(len(times))
    known = ~np.isnan(values)
    for i, t in enumerate(times):
        weights = [np.exp(-0.5 * ((t - u) / sigma) ** 2) for u in times[known]]
        out[i] = np.dot(weights, values[known]) / np.sum(weights)
    return out


def drift(times, traits, sigma):
    """Components of the smoothed traits that have 99 % of the variance."""
    matrix = np.column_stack([smoothed(times, traits[:, j], sigma) for j in range(traits.shape[1])])
    matrix = matrix - matrix.mean(axis=0)
    u, s, _ = np.linalg.svd(matrix, full_matrices=False)
    share = np.cumsum(s**2) / np.sum(s**2)
    count = int(np.argmax(share >= 0.99)) + 1
    return [zscore(u[:, k]) for k in range(count)]


def r2_of(trait, columns):
    rows = ~np.isnan(trait)
    y = trait[rows] - trait[rows].mean()
    return 1 - (residual(trait, columns)[rows] ** 2).sum() / (y**2).sum()


def ukb_set(numbers, categories, site, traits, *, small, dates, pairs_skipped, squares_there, min_variance):
    """Return the columns of the set: small, non-linear kept, crossed kept, drift.

    numbers: name -> values; categories: name -> labels; small: columns of the conventional set;
    dates: name -> sigma, or None for a tenth of the site's range.
    """
    homes = sorted(set(site))
    base = []
    for name, values in numbers.items():
        base += [(name, home, column, True) for home, column in zip(homes, continuous(values, site), strict=True)]
    for name, labels in categories.items():
        for home in homes:
            inside = [label if s == home else "" for label, s in zip(labels, site, strict=True)]
            base += [(name, home, column, False) for column in categorical(inside, site)]
    kept = list(small)
    candidates = []
    for name, home, column, is_number in base:
        if is_number:
            scores = normal_scores(column, home, site)
            forms = [scores, scores**2] if name in squares_there else [column**2, scores, scores**2]
            candidates += [within(form, home, site) for form in forms]
    keep = worth_keeping(candidates, traits, kept, min_variance)
    nonlinear = [c for c, k in zip(candidates, keep, strict=True) if k]
    kept += nonlinear
    candidates = []
    for i in range(len(base)):
        for j in range(i):
            (one, home, a, _), (two, other, b, _) = base[i], base[j]
            if home == other and one != two and {one, two} not in pairs_skipped:
                candidates.append(within(a * b, home, site))
    keep = worth_keeping(candidates, traits, kept, min_variance)
    crossed = [c for c, k in zip(candidates, keep, strict=True) if k]
    kept += crossed
    left = np.column_stack([residual(traits[:, j], kept) for j in range(traits.shape[1])])
    left = np.column_stack([(v - np.nanmean(v)) / np.nanstd(v, ddof=1) for v in left.T])
    drifts = []
    for name, sigma in dates.items():
        for home in homes:
            people = np.array([i for i in range(len(site)) if site[i] == home and not np.isnan(numbers[name][i])])
            times = np.asarray(numbers[name])[people]
            width = sigma if sigma is not None else 0.1 * (times.max() - times.min())
            for component in drift(times, left[people], width):
                column = np.zeros(len(site))
                column[people] = component
                drifts.append(column)
    return nonlinear, crossed, drifts
