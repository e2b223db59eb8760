"""Quality control of variants and people, with the reason for everything left out.

Order: people kept by list -> duplicate variants -> sex mismatch -> sample missingness -> heterozygosity ->
(frequencies and counts again, among the people left) -> minor allele frequency -> variant missingness ->
Hardy-Weinberg. An item has the first reason that applied.

References
----------
Anderson et al. (2010), 10.1038/nprot.2010.116; Marees et al. (2018), 10.1002/mpr.1608.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int8, Shaped

from brainlocus.core.errors import AlignmentError
from brainlocus.core.genotypes import GenotypeSource, select_genotypes
from brainlocus.core.results import ResultTable
from brainlocus.core.samples import SampleIndex
from brainlocus.core.text import text_array
from brainlocus.core.variants import AUTOSOMES, VariantTable
from brainlocus.genetics.genotypes.counts import GenotypeCounts, count_genotypes
from brainlocus.genetics.genotypes.hwe import hwe_neg_log10_p

__all__ = ["PRESETS", "FlowRow", "QcResult", "QcSettings", "duplicate_variants", "quality_control"]

_MIN_SEX_VARIANTS = 10
"""Fewer X variants than this say nothing about sex."""


@dataclass(frozen=True, slots=True)
class QcSettings:
    """Thresholds; an item must pass all of them. A threshold of None is not applied."""

    max_sample_missing: float | None = 0.03
    min_maf: float | None = 0.01
    max_variant_missing: float | None = 0.03
    min_hwe_p: float | None = 1e-10
    hwe_mid_p: bool = False
    max_heterozygosity_sd: float | None = 3.0
    check_sex: bool = True
    male_f: float = 0.8
    """X-chromosome F above which a person is male ..."""
    female_f: float = 0.2
    """... and below which female."""
    autosomes: tuple[str, ...] = AUTOSOMES
    """Chromosomes for missingness and heterozygosity of people."""

    def __post_init__(self) -> None:
        for name in ("max_sample_missing", "min_maf", "max_variant_missing", "min_hwe_p"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} lies in [0, 1], found {value}.")


PRESETS = {
    "covariance": QcSettings(),
    "susceptibility": QcSettings(
        max_sample_missing=None, max_variant_missing=None, min_hwe_p=1e-7, max_heterozygosity_sd=None
    ),
}
"""Thresholds of the two published studies: structural covariance (Wen et al.), susceptibility (Wang et al. 2022)."""


@dataclass(frozen=True, slots=True)
class FlowRow:
    """People and variants left after a step."""

    step: str
    n_samples: int
    n_variants: int


@dataclass(frozen=True, slots=True, eq=False)
class QcResult:
    """Who and what passed, and why the others did not."""

    variants: ResultTable
    """All variants; frequency and Hardy-Weinberg among the people kept; empty reason = kept."""
    samples: ResultTable
    """All people; missing_rate, heterozygosity_f, sex_f (NaN without X variants), reason."""
    flow: tuple[FlowRow, ...]
    keep_samples: SampleIndex
    keep_variants: Int[np.ndarray, " kept"]
    """Rows of the source's variants."""
    notes: tuple[str, ...]
    """What a reader of the result must know: fall-backs that were taken."""


def quality_control(
    source: GenotypeSource,
    settings: QcSettings | None = None,
    *,
    keep: SampleIndex | None = None,
    sex: Int8[np.ndarray, " samples"] | None = None,
    founders: Bool[np.ndarray, " samples"] | None = None,
    memory_bytes: int = 1 << 28,
) -> QcResult:
    """Apply quality control in two passes over the genotypes (one when nobody is left out).

    Parameters
    ----------
    keep
        People to keep (those with images, say); others leave with the reason ``not_listed``.
    sex
        Reported sex: 1 male, 2 female, 0 unknown (which is never a mismatch). None: unknown throughout.
    founders
        People without parents among the samples: Hardy-Weinberg is tested among them, among everyone (with a
        note) when there are none.

    Raises
    ------
    AlignmentError
        `keep` shares nobody with the genotypes, or quality control leaves no people or no variants.
    """
    rules = settings or QcSettings()
    people = _People(source.samples, keep)
    flow = [FlowRow("start", len(source.samples), len(source.variants))]
    flow.append(FlowRow("listed people", people.n_left, len(source.variants)))
    variant_reason = np.full(len(source.variants), "", dtype="<U20")
    reported = np.zeros(len(source.samples), dtype=np.int8) if sex is None else sex
    notes: list[str] = []
    sets = _variant_sets(source.variants, rules)
    test_people, note = _hwe_people(founders, people.left)
    notes += note
    first = count_genotypes(
        select_genotypes(source, samples=people.index),
        sets=sets,
        founders=test_people[people.left],
        memory_bytes=memory_bytes,
    )
    duplicate = duplicate_variants(source.variants, first.variant[:, 3])
    variant_reason[duplicate] = "duplicate"
    flow.append(FlowRow("duplicate variants", people.n_left, int((variant_reason == "").sum())))
    columns = _sample_statistics(people.left, first)
    _check_people(people, columns, reported, rules, flow, int((variant_reason == "").sum()))
    counts = first
    if people.n_left < len(first.sample_missing):
        counts = count_genotypes(
            select_genotypes(source, samples=people.index), founders=test_people[people.left], memory_bytes=memory_bytes
        )
    hwe = _hwe(source.variants, counts, rules)
    _check_variants(counts, hwe, variant_reason, rules, flow, people.n_left)
    kept = np.flatnonzero(variant_reason == "")
    if not people.n_left or not kept.size:
        steps = "; ".join(f"{row.step}: {row.n_samples} people, {row.n_variants} variants" for row in flow)
        raise AlignmentError(
            f"Quality control left {people.n_left} people and {kept.size} variants ({steps}). Relax the thresholds of "
            "the step that took the rest."
        )
    return QcResult(
        variants=_variant_result(source.variants, counts, hwe, variant_reason),
        samples=ResultTable({"participant_id": source.samples.ids} | columns | {"reason": text_array(people.reason)}),
        flow=tuple(flow),
        keep_samples=people.index,
        keep_variants=kept,
        notes=tuple(notes),
    )


def duplicate_variants(
    variants: VariantTable, n_missing: Int[np.ndarray, " variants"]
) -> Bool[np.ndarray, " variants"]:
    """Return which variants repeat another's chromosome, position and unordered pair of alleles.

    Of each set the one with most calls stays, then the first. Variants without a position are never
    duplicates.
    """
    low = np.minimum(variants.effect_allele, variants.other_allele)
    high = np.maximum(variants.effect_allele, variants.other_allele)
    codes = [np.unique(c, return_inverse=True)[1] for c in (variants.chromosome, low, high)]
    order = np.lexsort((np.arange(len(variants)), n_missing, codes[2], codes[1], variants.position, codes[0]))
    keys = np.stack([codes[0], variants.position, codes[1], codes[2]])[:, order]
    same = np.zeros(len(variants), dtype=bool)
    same[1:] = (keys[:, 1:] == keys[:, :-1]).all(axis=0)
    duplicate = np.zeros(len(variants), dtype=bool)
    duplicate[order] = same
    return duplicate & (variants.position > 0)


class _People:
    """Who is left, and why the others are not."""

    def __init__(self, samples: SampleIndex, keep: SampleIndex | None) -> None:
        self.samples = samples
        self.reason = np.full(len(samples), "", dtype="<U20")
        if keep is not None:
            self.reason[keep.indices_of(samples) < 0] = "not_listed"
            if not self.n_left:
                raise AlignmentError(
                    f"None of the {len(keep)} listed participants ({keep.ids[:3].tolist()}, ...) is among the "
                    f"{len(samples)} genotyped ({samples.ids[:3].tolist()}, ...). Ids are compared as exact strings."
                )

    @property
    def left(self) -> Bool[np.ndarray, " samples"]:
        return np.asarray(self.reason == "")

    @property
    def n_left(self) -> int:
        return int(self.left.sum())

    @property
    def index(self) -> SampleIndex:
        return self.samples.take(self.left)

    def leave(self, which: Bool[np.ndarray, " samples"], reason: str) -> None:
        self.reason[which & self.left] = reason


def _variant_sets(variants: VariantTable, rules: QcSettings) -> Int[np.ndarray, " variants"]:
    """Return 0 for autosomes, 1 for X outside the pseudo-autosomal regions (which is XY), -1 for others."""
    sets = np.full(len(variants), -1)
    sets[np.isin(variants.chromosome, rules.autosomes)] = 0
    sets[variants.chromosome == "X"] = 1
    return sets


def _hwe_people(
    founders: Bool[np.ndarray, " samples"] | None, left: Bool[np.ndarray, " samples"]
) -> tuple[Bool[np.ndarray, " samples"], list[str]]:
    if founders is None or (founders & left).all():
        return np.ones(left.size, dtype=bool), []
    if not (founders & left).any():
        return np.ones(left.size, dtype=bool), ["No founders: Hardy-Weinberg was tested among everyone."]
    return founders, []


def _sample_statistics(
    left: Bool[np.ndarray, " samples"], counts: GenotypeCounts
) -> dict[str, Shaped[np.ndarray, " samples"]]:
    """Return missing rate, heterozygosity F and sex F; NaN for people who were not counted."""
    columns = {name: np.full(left.size, np.nan) for name in ("missing_rate", "heterozygosity_f", "sex_f")}
    size = int(counts.set_size[0])
    columns["missing_rate"][left] = counts.sample_missing[:, 0] / size if size else 0.0
    columns["heterozygosity_f"][left] = _inbreeding(counts, 0)
    if counts.set_size.size > 1 and counts.set_size[1] >= _MIN_SEX_VARIANTS:
        columns["sex_f"][left] = _inbreeding(counts, 1)
    return columns


def _inbreeding(counts: GenotypeCounts, which: int) -> Float[np.ndarray, " samples"]:
    """Return F = (O_hom - E_hom) / (N - E_hom) = 1 - het / expected het."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(1.0 - counts.sample_het[:, which] / counts.sample_expected_het[:, which])


def _check_people(
    people: _People,
    columns: dict[str, Shaped[np.ndarray, " samples"]],
    reported: Int8[np.ndarray, " samples"],
    rules: QcSettings,
    flow: list[FlowRow],
    n_variants: int,
) -> None:
    sex_f, missing, f = columns["sex_f"], columns["missing_rate"], columns["heterozygosity_f"]
    if rules.check_sex:
        genetic = np.where(sex_f > rules.male_f, 1, np.where(sex_f < rules.female_f, 2, 0))
        people.leave((reported > 0) & ~np.isnan(sex_f) & (genetic != reported), "sex_mismatch")
        flow.append(FlowRow("sex mismatch", people.n_left, n_variants))
    if rules.max_sample_missing is not None:
        people.leave(missing > rules.max_sample_missing, "sample_missing")
        flow.append(FlowRow("sample missingness", people.n_left, n_variants))
    if rules.max_heterozygosity_sd is not None:
        known = people.left & np.isfinite(f)
        spread = float(np.std(f[known], ddof=1)) if known.sum() > 1 else 0.0
        if spread > 0.0:
            people.leave(np.abs(f - f[known].mean()) > rules.max_heterozygosity_sd * spread, "heterozygosity")
        flow.append(FlowRow("heterozygosity", people.n_left, n_variants))


def _hwe(variants: VariantTable, counts: GenotypeCounts, rules: QcSettings) -> Float[np.ndarray, " variants"]:
    """Return -log10 p on autosomes; NaN elsewhere, where males have one copy."""
    tested = np.isin(variants.chromosome, rules.autosomes)
    p = np.full(len(variants), np.nan)
    c = counts.founder[tested]
    p[tested] = hwe_neg_log10_p(c[:, 0], c[:, 1], c[:, 2], mid_p=rules.hwe_mid_p)
    return p


def _check_variants(
    counts: GenotypeCounts,
    hwe: Float[np.ndarray, " variants"],
    reason: Shaped[np.ndarray, " variants"],
    rules: QcSettings,
    flow: list[FlowRow],
    n_samples: int,
) -> None:
    frequency = counts.effect_allele_frequency
    maf = np.minimum(frequency, 1.0 - frequency)

    def leave(which: Bool[np.ndarray, " variants"], why: str, step: str) -> None:
        reason[which & (reason == "")] = why
        flow.append(FlowRow(step, n_samples, int((reason == "").sum())))

    if rules.min_maf is not None:
        leave(np.isnan(maf) | (maf < rules.min_maf), "maf", "minor allele frequency")
    if rules.max_variant_missing is not None:
        leave(counts.missing_rate > rules.max_variant_missing, "variant_missing", "variant missingness")
    if rules.min_hwe_p is not None and rules.min_hwe_p > 0.0:
        leave(hwe > -np.log10(rules.min_hwe_p), "hwe", "Hardy-Weinberg")


def _variant_result(
    variants: VariantTable,
    counts: GenotypeCounts,
    hwe: Float[np.ndarray, " variants"],
    reason: Shaped[np.ndarray, " variants"],
) -> ResultTable:
    return ResultTable(
        {
            "chromosome": variants.chromosome,
            "position": variants.position,
            "variant_id": variants.variant_id,
            "effect_allele": variants.effect_allele,
            "other_allele": variants.other_allele,
            "effect_allele_frequency": counts.effect_allele_frequency,
            "minor_allele_count": counts.minor_allele_count,
            "missing_rate": counts.missing_rate,
            "hwe_neg_log10_p": hwe,
            "reason": text_array(reason),
        }
    )
