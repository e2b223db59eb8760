r"""Methylation of blood with planted associations, cell proportions and plates.

A person's methylation is that of their cells, beta = B w, with the cell types' betas B (all alike, but for the markers)
and proportions w. To its M value are added plates and age on some CpGs, errors that neighbours in an island share, and
effects of traits at the planted CpGs, alone and in whole islands. Traits go with the proportion of one cell type and
with the plate, so that a scan without them is inflated.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int, Shaped

from brainlocus.core.text import text_array

__all__ = ["CELLS", "EpigenomePlan", "SimulatedEpigenome", "simulate_epigenome"]

CELLS = ("CD8T", "CD4T", "NK", "Bcell", "Mono", "Neu")
_MEAN_CELLS = np.array([0.08, 0.14, 0.05, 0.06, 0.07, 0.60])
_CONCENTRATION = 60.0
"""Of the Dirichlet distribution of proportions: standard deviation of neutrophils 6 %."""
_ISLAND = 5
"""CpGs of an island."""
_SHARED = 0.35
"""Share of the error's variance that an island has in common."""
_OFFSET = 0.001


@dataclass(frozen=True, slots=True)
class EpigenomePlan:
    """Size and strength of what is simulated."""

    n_people: int = 400
    n_features: int = 5_000
    n_traits: int = 3
    n_causal: int = 10
    """CpGs alone, for each trait."""
    n_regions: int = 2
    """Islands, for each trait."""
    effect: float = 0.45
    """M units per standard deviation of the trait, in units of the CpG's error; half of it in islands."""
    marker_share: float = 0.06
    """Share of CpGs whose methylation differs between cell types."""
    plate_share: float = 0.4
    """Share of CpGs that plates shift."""
    n_plates: int = 4
    missing: float = 0.002


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedEpigenome:
    """Everything that is written, and the truth."""

    beta: Float64[np.ndarray, "features people"]
    features: Shaped[np.ndarray, " features"]
    chromosome: Shaped[np.ndarray, " features"]
    position: Int[np.ndarray, " features"]
    gene: Shaped[np.ndarray, " features"]
    traits: Float64[np.ndarray, "people traits"]
    age: Float64[np.ndarray, " people"]
    sex: Float64[np.ndarray, " people"]
    smoking: Float64[np.ndarray, " people"]
    plate: Int[np.ndarray, " people"]
    cells: Float64[np.ndarray, "people cells"]
    markers: Int[np.ndarray, " markers"]
    reference: Float64[np.ndarray, "markers cells"]
    blood_brain: Float64[np.ndarray, " features"]
    causal: tuple[Int[np.ndarray, " _causal"], ...]
    """Features of each trait."""
    effect: tuple[Float64[np.ndarray, " _causal"], ...]
    """M units per unit of the trait."""
    in_region: tuple[Int[np.ndarray, " _causal"], ...]
    """Number of the island from 1, 0 for a CpG alone."""


def simulate_epigenome(plan: EpigenomePlan, rng: np.random.Generator) -> SimulatedEpigenome:
    """Return methylation, traits and what goes with them.

    Raises
    ------
    ValueError
        More planted CpGs than islands.
    """
    n, g, q = plan.n_people, plan.n_features, plan.n_traits
    n_islands = g // _ISLAND
    planted = plan.n_causal + plan.n_regions
    if planted * q > n_islands:
        raise ValueError(
            f"{q} traits with {plan.n_causal} CpGs and {plan.n_regions} regions each need {planted * q} islands of "
            f"{_ISLAND} CpGs, {g} CpGs make {n_islands}. Ask for more features, or fewer effects."
        )
    cells = rng.dirichlet(_CONCENTRATION * _MEAN_CELLS, n)
    age, sex = rng.uniform(45, 80, n), (rng.random(n) < 0.5).astype(np.float64)
    smoking, plate = rng.gamma(1.0, 1.0, n), rng.integers(0, plan.n_plates, n)
    traits = rng.normal(size=(n, q))
    traits += 0.8 * ((cells[:, -1] - cells[:, -1].mean()) / cells[:, -1].std())[:, None] * (rng.random(q) * 0.5 + 0.5)
    traits += 0.3 * (plate - plate.mean())[:, None] / plate.std() + 0.02 * (age[:, None] - 62)
    traits = (traits - traits.mean(axis=0)) / traits.std(axis=0)
    base = np.where(rng.random(g) < 0.55, rng.beta(2, 12, g), rng.beta(12, 2, g))
    markers = np.sort(rng.choice(g, max(int(plan.marker_share * g), 5 * len(CELLS)), replace=False))
    pure = np.repeat(base[:, None], len(CELLS), axis=1)
    pure[markers] = rng.beta(0.8, 0.8, (markers.size, len(CELLS)))
    mixed = np.clip(pure @ cells.T, 0.0, 1.0)
    m = np.log2((mixed + _OFFSET) / (1.0 + _OFFSET - mixed))
    sd = 0.25 * np.sqrt(6.0 / rng.chisquare(6, g))
    island = np.minimum(np.arange(g) // _ISLAND, n_islands - 1)
    common = rng.normal(size=(n_islands, n))
    m += sd[:, None] * (np.sqrt(_SHARED) * common[island] + np.sqrt(1 - _SHARED) * rng.normal(size=(g, n)))
    shifted = rng.random(g) < plan.plate_share
    m += (shifted * sd)[:, None] * rng.normal(0, 0.7, (g, plan.n_plates))[:, plate]
    m += (sd * rng.normal(0, 0.015, g) * (rng.random(g) < 0.1))[:, None] * (age - 62)[None, :]
    causal, effect, in_region = _plant(plan, m, traits, sd, rng)
    power = np.exp2(m)
    beta = np.clip((power * (1.0 + _OFFSET) - _OFFSET) / (1.0 + power), 0.0, 1.0)
    beta[rng.random(beta.shape) < plan.missing] = np.nan
    chromosome, position, gene = _places(g, n_islands, rng)
    return SimulatedEpigenome(
        np.round(beta, 5), text_array([f"cg{k + 1:08d}" for k in range(g)]), chromosome, position, gene, traits, age,
        sex, smoking, plate, cells, markers, np.round(pure[markers], 5), np.round(rng.uniform(-0.3, 0.9, g), 3),
        causal, effect, in_region,
    )  # fmt: skip


def _plant(
    plan: EpigenomePlan,
    m: Float64[np.ndarray, "features people"],
    traits: Float64[np.ndarray, "people traits"],
    sd: Float64[np.ndarray, " features"],
    rng: np.random.Generator,
) -> tuple[
    tuple[Int[np.ndarray, " _causal"], ...],
    tuple[Float64[np.ndarray, " _causal"], ...],
    tuple[Int[np.ndarray, " _causal"], ...],
]:
    """Add the traits' effects to M values; return features, effects and islands of each trait."""
    islands = rng.permutation(plan.n_features // _ISLAND)
    causal, effect, in_region = [], [], []
    for k in range(traits.shape[1]):
        mine, islands = np.split(islands, [plan.n_causal + plan.n_regions])
        alone = mine[: plan.n_causal] * _ISLAND + rng.integers(0, _ISLAND, plan.n_causal)
        together = (mine[plan.n_causal :, None] * _ISLAND + np.arange(_ISLAND)).ravel()
        features = np.concatenate([alone, together])
        number = np.r_[np.zeros(alone.size, dtype=np.int64), np.repeat(np.arange(1, plan.n_regions + 1), _ISLAND)]
        sign = rng.choice([-1.0, 1.0], plan.n_causal + plan.n_regions)
        signs = np.r_[sign[: plan.n_causal], np.repeat(sign[plan.n_causal :], _ISLAND)]
        size = signs * sd[features] * plan.effect * np.where(number > 0, 0.5, 1.0)
        m[features] += size[:, None] * traits[:, k]
        causal.append(features)
        effect.append(size)
        in_region.append(number)
    return tuple(causal), tuple(effect), tuple(in_region)


def _places(
    n_features: int, n_islands: int, rng: np.random.Generator
) -> tuple[Shaped[np.ndarray, " features"], Int[np.ndarray, " features"], Shaped[np.ndarray, " features"]]:
    """Return chromosome, position and gene: islands far apart, their CpGs at most 300 bases."""
    within = rng.integers(40, 300, n_features)
    within[::_ISLAND] = rng.integers(20_000, 400_000, within[::_ISLAND].size)
    number = np.minimum(np.arange(n_features) // _ISLAND, n_islands - 1)
    chromosome = number * 22 // n_islands
    position = np.empty(n_features, dtype=np.int64)
    for c in np.unique(chromosome):
        here = chromosome == c
        position[here] = 100_000 + np.cumsum(within[here])
    return (
        text_array([str(c + 1) for c in chromosome.tolist()]),
        position,
        text_array([f"GENE{k + 1}" for k in number.tolist()]),
    )
