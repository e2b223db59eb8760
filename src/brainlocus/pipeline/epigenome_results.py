"""From the estimates of a trait to its rows: moderated t, empirical null, corrections, regions."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int, Int8, Shaped

from brainlocus.cohort.associate.epigenome import (
    STATUS,
    EmpiricalNull,
    VariancePrior,
    candidate_regions,
    corrected_z,
    fit_empirical_null,
    fit_variance_prior,
    inflation,
    moderate,
    n_region_tests,
    pairwise_correlation,
    shrink_region,
)
from brainlocus.core import ResultTable
from brainlocus.core.text import text_array
from brainlocus.numerics import (
    benjamini_hochberg_q,
    bonferroni_p,
    covariate_basis,
    neg_log10_p_from_z,
    project_out,
    z_from_neg_log10_p,
)
from brainlocus.pipeline.epigenome_scan import Preparer, ScanSource, TraitEstimates
from brainlocus.pipeline.epigenome_tables import Places
from brainlocus.pipeline.step import Context

__all__ = [
    "RegionCandidates",
    "TraitTests",
    "find_candidates",
    "finish_trait",
    "gather_residuals",
    "needed_features",
    "region_table",
    "result_rows",
    "trait_histogram",
    "trait_row",
]

_ROWS = 200_000
"""Rows of results that are written at once."""
_BIN = 0.1
_BINS = 101
_MOST_JOINT = 400
"""Features of a candidate region whose correlation is taken; of a longer run only so many from its start."""


@dataclass(frozen=True, slots=True, eq=False)
class TraitTests:
    """Tests of one trait over all features; NaN where `status` is not 0."""

    name: str
    n: Int[np.ndarray, " features"]
    status: Int8[np.ndarray, " features"]
    beta: Float64[np.ndarray, " features"]
    standard_error: Float64[np.ndarray, " features"]
    t: Float64[np.ndarray, " features"]
    degrees_of_freedom: Float64[np.ndarray, " features"]
    neg_log10_p: Float64[np.ndarray, " features"]
    prior: VariancePrior | None
    null: EmpiricalNull | None
    z_corrected: Float64[np.ndarray, " features"] | None
    neg_log10_p_corrected: Float64[np.ndarray, " features"] | None

    @property
    def strength(self) -> Float64[np.ndarray, " features"]:
        """-log10 p to judge by: corrected where there is an empirical null."""
        return self.neg_log10_p if self.neg_log10_p_corrected is None else self.neg_log10_p_corrected

    @property
    def n_tests(self) -> int:
        """Features with a result."""
        return int(np.isfinite(self.neg_log10_p).sum())

    def effects(self) -> tuple[Float64[np.ndarray, " features"], Float64[np.ndarray, " features"]]:
        """Return beta and its standard error, corrected where there is an empirical null."""
        if self.null is None or not np.isfinite(self.null.bias):
            return self.beta, self.standard_error
        return (
            self.beta - self.null.bias * self.standard_error,
            self.standard_error * self.null.inflation,
        )


def finish_trait(name: str, estimates: TraitEstimates, *, moderated: bool, empirical_null: bool) -> TraitTests:
    """Return the tests of a trait."""
    prior = fit_variance_prior(estimates.variance, estimates.degrees_of_freedom) if moderated else None
    found = moderate(estimates.beta, estimates.unscaled, estimates.variance, estimates.degrees_of_freedom, prior)
    null = z = corrected = None
    if empirical_null:
        signed = np.sign(found.t) * z_from_neg_log10_p(found.neg_log10_p)
        null = fit_empirical_null(signed)
        z = corrected_z(signed, null)
        corrected = neg_log10_p_from_z(z)
    return TraitTests(
        name, estimates.n, estimates.status, estimates.beta, found.standard_error, found.t, found.degrees_of_freedom,
        found.neg_log10_p, prior, null, z, corrected,
    )  # fmt: skip


def result_rows(
    tests: TraitTests,
    features: Shaped[np.ndarray, " features"],
    places: Places | None,
    blood_brain: Float64[np.ndarray, " features"] | None,
    *,
    max_p: float,
) -> Iterator[ResultTable]:
    """Yield the rows of a trait that have p of at most `max_p` (with 1 all, also those without a result)."""
    with np.errstate(invalid="ignore"):
        chosen = np.arange(features.size) if max_p >= 1 else np.flatnonzero(tests.strength >= -np.log10(max_p))
    q, bonferroni = benjamini_hochberg_q(tests.neg_log10_p), bonferroni_p(tests.neg_log10_p)
    q_corrected = None if tests.neg_log10_p_corrected is None else benjamini_hochberg_q(tests.neg_log10_p_corrected)
    beta, error = tests.effects()
    labels = text_array([*STATUS, "trait is not tested"])
    for start in range(0, chosen.size, _ROWS):
        at = chosen[start : start + _ROWS]
        columns = {"trait": text_array([tests.name] * at.size), "feature": features[at]}
        if places is not None:
            columns |= {
                "chromosome": places.chromosome[at], "position": places.position[at], "gene_name": places.gene[at]
            }  # fmt: skip
        columns |= {
            "n": tests.n[at],
            "beta": tests.beta[at],
            "standard_error": tests.standard_error[at],
            "t": tests.t[at],
            "degrees_of_freedom": tests.degrees_of_freedom[at],
            "neg_log10_p": tests.neg_log10_p[at],
            "q_bh": q[at],
            "p_bonferroni": bonferroni[at],
        }
        if tests.z_corrected is not None and tests.neg_log10_p_corrected is not None and q_corrected is not None:
            columns |= {
                "beta_corrected": beta[at],
                "standard_error_corrected": error[at],
                "z_corrected": tests.z_corrected[at],
                "neg_log10_p_corrected": tests.neg_log10_p_corrected[at],
                "q_bh_corrected": q_corrected[at],
            }
        if blood_brain is not None:
            columns["blood_brain_r"] = blood_brain[at]
        columns["status"] = labels[tests.status[at]]
        yield ResultTable(columns)


def trait_row(
    tests: TraitTests, features: Shaped[np.ndarray, " features"], n: int, status: str, level: float, n_study: int
) -> dict[str, Any]:
    """Return the row of a trait in the table of traits."""
    strength = tests.strength
    known = np.isfinite(strength)
    row: dict[str, Any] = {
        "trait": tests.name,
        "n": n,
        "n_tests": tests.n_tests,
        "n_failed": int(features.size - tests.n_tests),
        "lambda_gc": inflation(tests.neg_log10_p),
        "prior_degrees_of_freedom": tests.prior.degrees_of_freedom if tests.prior is not None else 0.0,
        "prior_variance": tests.prior.variance if tests.prior is not None else np.nan,
        "n_level": int((strength[known] > -np.log10(level)).sum()),
        "n_bonferroni": int((strength[known] > np.log10(max(int(known.sum()), 1) / 0.05)).sum()),
        "n_bonferroni_study": int((strength[known] > np.log10(max(n_study, 1) / 0.05)).sum()),
        "n_fdr": int((benjamini_hochberg_q(strength)[known] < 0.05).sum()),
        "status": status,
    }
    if known.any():
        top = int(np.nanargmax(strength))
        row |= {"top_feature": str(features[top]), "top_neg_log10_p": float(strength[top])}
    if tests.null is not None and tests.neg_log10_p_corrected is not None:
        row |= {
            "null_bias": tests.null.bias,
            "null_inflation": tests.null.inflation,
            "null_share": tests.null.null_share,
            "lambda_gc_corrected": inflation(tests.neg_log10_p_corrected),
        }
    return row


def trait_histogram(tests: TraitTests) -> ResultTable:
    """Return how many tests have -log10 p in each tenth; the last bin has all above 10."""
    known = tests.neg_log10_p[np.isfinite(tests.neg_log10_p)]
    counts = np.bincount(np.minimum((known / _BIN).astype(np.int64), _BINS - 1), minlength=_BINS)
    return ResultTable(
        {
            "trait": text_array([tests.name] * _BINS),
            "bin_start": np.arange(_BINS) * _BIN,
            "n_tests": counts.astype(np.int64),
        }
    )


@dataclass(frozen=True, slots=True, eq=False)
class RegionCandidates:
    """Candidates of one trait with two features or more."""

    trait: str
    features: list[Int[np.ndarray, " _some"]]
    """Numbers of the features of each, in the order of the genome."""
    beta: list[Float64[np.ndarray, " _some"]]
    standard_error: list[Float64[np.ndarray, " _some"]]
    n_tests: int
    n_cut: int
    """Candidates of which only the first features were taken."""


def find_candidates(tests: TraitTests, places: Places, *, level: float, gap: int) -> RegionCandidates:
    """Return the candidate regions of a trait."""
    beta, error = tests.effects()
    found = candidate_regions(tests.strength, beta, places.chromosome, places.position, level=level, gap=gap)
    ranges = [(a, b) for a, b in zip(found.start.tolist(), found.stop.tolist(), strict=True) if b - a > 1]
    members = [found.order[a : min(b, a + _MOST_JOINT)] for a, b in ranges]
    return RegionCandidates(
        tests.name,
        members,
        [beta[m] for m in members],
        [error[m] for m in members],
        n_region_tests(found),
        sum(b - a > _MOST_JOINT for a, b in ranges),
    )


def needed_features(candidates: list[RegionCandidates]) -> Int[np.ndarray, " needed"]:
    """Return the features of all candidates, rising."""
    some = [m for c in candidates for m in c.features]
    return np.unique(np.concatenate(some)) if some else np.empty(0, dtype=np.int64)


def gather_residuals(
    source: ScanSource,
    covariates: Float64[np.ndarray, "people covariates"],
    needed: Int[np.ndarray, " needed"],
    path: Path,
    context: Context,
) -> Shaped[np.ndarray, "needed people"]:
    """Return features freed of the covariates, on disk; NaN where missing."""
    shape = (needed.size, len(source.samples))
    kept = np.lib.format.open_memmap(path, mode="w+", dtype=np.float64, shape=shape)
    basis = covariate_basis(covariates).q
    first = done = 0
    preparer = Preparer(source.preparation, str(source.matrix.path))
    blocks = context.executor.map(preparer, source.blocks())
    total = -(-source.matrix.about // source.size)
    for block in context.progress.track(blocks, "Reading regions", total):
        stop = first + block.features.size
        last = int(np.searchsorted(needed, stop))
        if last > done:
            values = block.values[needed[done:last] - first]
            kept[done:last] = _residuals(values, basis)
        first, done = stop, last
    return kept


def _residuals(
    values: Float64[np.ndarray, "features people"], basis: Float64[np.ndarray, "people rank"]
) -> Float64[np.ndarray, "features people"]:
    present: Bool[np.ndarray, "features people"] = np.isfinite(values)
    filled = np.where(present, values, 0.0)
    filled = np.where(present, filled - (filled.sum(axis=1) / np.maximum(present.sum(axis=1), 1))[:, None], 0.0)
    return np.where(present, project_out(basis, filled.T).T, np.nan)


def region_table(
    candidates: RegionCandidates,
    residuals: Shaped[np.ndarray, "needed people"],
    needed: Int[np.ndarray, " needed"],
    features: Shaped[np.ndarray, " features"],
    places: Places,
) -> list[dict[str, Any]]:
    """Return the regions of a trait with two features or more, the strongest first."""
    rows: list[dict[str, Any]] = []
    for members, beta, error in zip(candidates.features, candidates.beta, candidates.standard_error, strict=True):
        values = np.asarray(residuals[np.searchsorted(needed, members)])
        parts = shrink_region(beta, error, pairwise_correlation(values))
        for k in np.flatnonzero(parts.stop - parts.start > 1).tolist():
            at = members[parts.start[k] : parts.stop[k]]
            strength = float(neg_log10_p_from_z(parts.z[k : k + 1])[0])
            genes = dict.fromkeys(g for text in places.gene[at].tolist() for g in text.split(";") if g)
            rows.append(
                {
                    "trait": candidates.trait,
                    "chromosome": str(places.chromosome[at[0]]),
                    "start": int(places.position[at[0]]),
                    "stop": int(places.position[at[-1]]),
                    "n_features": int(at.size),
                    "beta": float(parts.beta[k]),
                    "standard_error": float(parts.standard_error[k]),
                    "z": float(parts.z[k]),
                    "neg_log10_p": strength,
                    "p_bonferroni": float(min(10.0 ** (np.log10(candidates.n_tests) - strength), 1.0)),
                    "gene_name": ";".join(genes),
                    "features": "/".join(map(str, features[at].tolist())),
                }
            )
    return sorted(rows, key=lambda row: -float(row["neg_log10_p"]))
