"""People with planted truth: region scores from genes, age, sex, site and disease.

Model, for person i and region r, all terms in units of the standard deviation of ``g + e``::

    y_ir = g_ir + e_ir + b_age_r a_i + b_sex_r x_i - d_r D_i          what the brain is
    s_ir = shift_{site(i), r} + scale_{site(i), r} (g_ir + e_ir) + b_age_r a_i + b_sex_r x_i - d_r D_i
                                                                      what the scanner sees

g has variance h2_r: a few strong causal variants and a polygenic background; e has variance 1 - h2_r and correlation
rho between regions. a is age in decades from 50, x is sex (1 male), D the diagnosis. Cognitive scores are weighted sums
of y plus noise; the other phenotypes are noise.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.special import ndtr

from brainlocus.core import Column, PhenotypeTable, SampleIndex

__all__ = [
    "CausalPlan",
    "CohortTruth",
    "achievable_balanced_accuracy",
    "draw_people",
    "participants_table",
    "phenotype_table",
    "plan_causal_variants",
]

RESIDUAL_CORRELATION = 0.3
"""Correlation of e between regions."""
CAUSAL_MAF = 0.15
"""Strong causal variants are at least this common, so that they segregate in both halves of the cohort."""
CAUSAL_SPACING_BP = 1_500_000
"""Strong causal variants lie at least this far apart, so that each is a locus of its own."""
REPLICATION_SHARE = 1 / 3


@dataclass(frozen=True, slots=True, eq=False)
class CausalPlan:
    """Effects per copy of standardised dosage, before g is scaled to its heritability."""

    strong: Int[np.ndarray, "regions causal"]
    """Rows of the strong causal variants of each region."""
    effects: sparse.csr_array
    """Variants x regions: per standard deviation of dosage; sparse, because few variants are causal."""


@dataclass(frozen=True, slots=True, eq=False)
class CohortTruth:
    """Everything that was planted about the people."""

    samples: SampleIndex
    age_years: Float[np.ndarray, " samples"]
    sex: Float[np.ndarray, " samples"]
    """1 male, 0 female."""
    site: Int[np.ndarray, " samples"]
    diagnosis: Float[np.ndarray, " samples"]
    """1 patient, 0 control."""
    replication: Bool[np.ndarray, " samples"]
    genetic: Float[np.ndarray, "samples regions"]
    brain: Float[np.ndarray, "samples regions"]
    """y: what the brain is."""
    scanned: Float[np.ndarray, "samples regions"]
    """s: what the scanner sees."""
    h2: Float[np.ndarray, " regions"]
    """Realised var(g) / var(g + e)."""
    age_effect: Float[np.ndarray, " regions"]
    sex_effect: Float[np.ndarray, " regions"]
    diagnosis_effect: Float[np.ndarray, " regions"]
    site_shift: Float[np.ndarray, "sites regions"]
    site_scale: Float[np.ndarray, "sites regions"]
    cognition_weights: Float[np.ndarray, "regions scores"]


def plan_causal_variants(
    frequency: Float[np.ndarray, " variants"],
    position: Int[np.ndarray, " variants"],
    chromosome: Int[np.ndarray, " variants"],
    *,
    n_regions: int,
    n_causal: int,
    strong_variance: float,
    h2: float,
    n_background: int,
    rng: np.random.Generator,
) -> CausalPlan:
    """Choose causal variants.

    Parameters
    ----------
    chromosome
        Chromosome number of each variant.
    strong_variance
        Share of the trait's variance that each strong variant explains.
    n_background
        Variants of the polygenic background of each region.

    Raises
    ------
    ValueError
        The genome is too short for that many well separated strong variants, or they exceed the heritability.
    """
    if n_causal * strong_variance > h2:
        raise ValueError(f"{n_causal} variants of {strong_variance:g} each exceed the heritability {h2:g}.")
    strong = _spaced_variants(frequency, position, chromosome, n_regions * n_causal, rng).reshape(n_regions, n_causal)
    effects = sparse.lil_array((frequency.size, n_regions))
    common = np.flatnonzero(np.minimum(frequency, 1 - frequency) >= 0.01)
    for region in range(n_regions):
        background = rng.choice(common, min(n_background, common.size), replace=False)
        rest = h2 - n_causal * strong_variance
        effects[background, [region]] = rng.normal(0, np.sqrt(rest / background.size), background.size)
        effects[strong[region], [region]] = np.sqrt(strong_variance) * rng.choice([-1.0, 1.0], n_causal)
    return CausalPlan(strong, effects.tocsr())


def _spaced_variants(
    frequency: Float[np.ndarray, " variants"],
    position: Int[np.ndarray, " variants"],
    chromosome: Int[np.ndarray, " variants"],
    count: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, " chosen"]:
    candidates = rng.permutation(np.flatnonzero(np.minimum(frequency, 1 - frequency) >= CAUSAL_MAF))
    chosen: list[int] = []
    for row in candidates:
        near = any(
            chromosome[row] == chromosome[c] and abs(position[row] - position[c]) < CAUSAL_SPACING_BP for c in chosen
        )
        if not near:
            chosen.append(int(row))
        if len(chosen) == count:
            return np.asarray(chosen)
    raise ValueError(
        f"{count} strong causal variants {CAUSAL_SPACING_BP / 1e6:g} Mb apart do not fit: {len(chosen)} do. "
        "Use longer chromosomes, more of them, or fewer regions."
    )


def draw_people(
    samples: SampleIndex,
    genetic: Float[np.ndarray, "samples regions"],
    *,
    h2: float,
    n_sites: int,
    prevalence: float,
    n_scores: int,
    rng: np.random.Generator,
) -> CohortTruth:
    """Draw everything but the genes, and put the region scores together.

    Parameters
    ----------
    genetic
        Genetic values in any scale; scaled here to variance `h2`.
    """
    n_samples, n_regions = int(genetic.shape[0]), int(genetic.shape[1])
    g = genetic - genetic.mean(axis=0)
    g *= np.sqrt(h2) / g.std(axis=0)
    shared = rng.normal(size=(n_samples, 1))
    own = rng.normal(size=(n_samples, n_regions))
    e = np.sqrt(1 - h2) * (np.sqrt(RESIDUAL_CORRELATION) * shared + np.sqrt(1 - RESIDUAL_CORRELATION) * own)
    sex = rng.integers(0, 2, n_samples).astype(float)
    diagnosis = (rng.random(n_samples) < prevalence).astype(float)
    site = rng.choice(n_sites, size=n_samples, p=rng.dirichlet(np.full(n_sites, 8.0)))
    # Sites differ in age, as they do: harmonisation must keep the age effect.
    age = np.clip(rng.normal(50 + rng.normal(0, 4, n_sites)[site], 12), 18, 88).round(1)
    age_effect = -rng.uniform(0.1, 0.3, n_regions)
    sex_effect = rng.normal(0, 0.2, n_regions)
    diagnosis_effect = np.zeros(n_regions)
    affected = rng.choice(n_regions, max(1, n_regions // 3), replace=False)
    diagnosis_effect[affected] = rng.uniform(0.6, 0.9, affected.size)
    shift = rng.normal(0, 0.7, (n_sites, n_regions))
    scale = np.exp(rng.normal(0, 0.15, (n_sites, n_regions)))
    fixed = np.outer((age - 50) / 10, age_effect) + np.outer(sex, sex_effect) - np.outer(diagnosis, diagnosis_effect)
    brain = g + e + fixed
    scanned = shift[site] + scale[site] * (g + e) + fixed
    weights = np.zeros((n_regions, n_scores))
    for score in range(n_scores):
        weights[rng.choice(n_regions, min(2, n_regions), replace=False), score] = rng.uniform(0.2, 0.35)
    return CohortTruth(
        samples=samples,
        age_years=age,
        sex=sex,
        site=site,
        diagnosis=diagnosis,
        replication=_split(site, diagnosis, rng),
        genetic=g,
        brain=brain,
        scanned=scanned,
        h2=g.var(axis=0) / (g + e).var(axis=0),
        age_effect=age_effect,
        sex_effect=sex_effect,
        diagnosis_effect=diagnosis_effect,
        site_shift=shift,
        site_scale=scale,
        cognition_weights=weights,
    )


def _split(
    site: Int[np.ndarray, " samples"], diagnosis: Float[np.ndarray, " samples"], rng: np.random.Generator
) -> Bool[np.ndarray, " samples"]:
    """Return who is in the replication third, stratified by site and diagnosis."""
    replication = np.zeros(site.size, dtype=bool)
    for stratum in np.unique(2 * site + diagnosis.astype(int)):
        members = rng.permutation(np.flatnonzero(2 * site + diagnosis == stratum))
        replication[members[: round(REPLICATION_SHARE * members.size)]] = True
    return replication


def achievable_balanced_accuracy(truth: CohortTruth) -> float:
    """Return the balanced accuracy of the best linear rule on the true scores, Phi(Delta / 2).

    Delta is the Mahalanobis distance of patients from controls within age and sex (Fisher's discriminant; with one
    covariance for both groups no rule does better). Scans add voxel noise and site effects, so this is an upper bound.
    """
    fixed = np.outer((truth.age_years - 50) / 10, truth.age_effect) + np.outer(truth.sex, truth.sex_effect)
    within = truth.brain - fixed + np.outer(truth.diagnosis, truth.diagnosis_effect)
    covariance = np.atleast_2d(np.cov(within, rowvar=False))
    delta2 = float(truth.diagnosis_effect @ np.linalg.solve(covariance, truth.diagnosis_effect))
    return float(ndtr(np.sqrt(delta2) / 2))


def participants_table(truth: CohortTruth) -> PhenotypeTable:
    """Return the participants table: age, sex, site, diagnosis, split."""
    return PhenotypeTable(
        truth.samples,
        (
            Column("age", truth.age_years, "quantitative", "years"),
            Column("sex", truth.sex, "binary"),
            Column("site", np.array([f"site{s + 1}" for s in truth.site]), "categorical"),
            Column("diagnosis", truth.diagnosis, "binary"),
            Column("split", np.where(truth.replication, "replication", "discovery"), "categorical"),
        ),
    )


def phenotype_table(truth: CohortTruth, *, n_noise: int, missing: float, rng: np.random.Generator) -> PhenotypeTable:
    """Return cognitive scores that the brain explains in part, and phenotypes that it does not; some values missing."""
    n_samples = len(truth.samples)
    scores = truth.brain @ truth.cognition_weights + rng.normal(size=(n_samples, truth.cognition_weights.shape[1]))
    noise = rng.normal(size=(n_samples, n_noise))
    noise[:, 1::2] = noise[:, 1::2] > 0.8
    values = np.hstack([scores, noise])
    values[rng.random(values.shape) < missing] = np.nan
    names = [f"cognition_{k + 1}" for k in range(scores.shape[1])]
    names += [f"{'lifestyle' if k % 2 == 0 else 'history'}_{k // 2 + 1}" for k in range(n_noise)]
    columns = [
        Column(name, values[:, k], "binary" if name.startswith("history") else "quantitative")
        for k, name in enumerate(names)
    ]
    return PhenotypeTable(truth.samples, tuple(columns))
