"""Quality control of variants and people, with the reason for everything left out.

Order: relatives -> people kept by list -> variants without a chromosome, duplicate variants -> sex mismatch -> sample
missingness -> heterozygosity -> (frequencies and counts again, among the people left) -> minor allele frequency and
count -> variant missingness -> missingness by status -> Hardy-Weinberg. An item has the first reason that applied.

The sex of a person is judged by F on X variants outside the pseudo-autosomal regions, with a minor allele frequency of
at least 5 % and in little linkage disequilibrium. On X and Y frequencies and counts are those of chromosomes, a man's
one and a woman's two (`brainlocus.genetics.genotypes.sexes`); heterozygous men count as missing there. Hardy-Weinberg
proportions on X are tested among both sexes, or among women.

References
----------
Anderson et al. (2010), 10.1038/nprot.2010.116; Marees et al. (2018), 10.1002/mpr.1608.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Int8, Shaped

from brainlocus.core.chromosomes import chromosome_classes
from brainlocus.core.errors import AlignmentError
from brainlocus.core.genotypes import GenotypeSource, select_genotypes
from brainlocus.core.results import ResultTable
from brainlocus.core.samples import SampleIndex
from brainlocus.core.text import text_array
from brainlocus.core.variants import AUTOSOMES, VariantTable
from brainlocus.genetics.genotypes.counts import GenotypeCounts, count_genotypes
from brainlocus.genetics.genotypes.fisher import fisher_neg_log10_p
from brainlocus.genetics.genotypes.hwe import hwe_neg_log10_p
from brainlocus.genetics.genotypes.prune import prune_variants
from brainlocus.genetics.genotypes.sexes import SexCounts, count_by_sex

__all__ = ["PRESETS", "FlowRow", "QcResult", "QcSettings", "duplicate_variants", "quality_control"]

_MIN_SEX_VARIANTS = 10
"""Fewer X variants than this say nothing about sex."""
_SEX_MAF = 0.05


@dataclass(frozen=True, slots=True)
class QcSettings:
    """Thresholds; an item must pass all of them. A threshold of None is not applied."""

    max_sample_missing: float | None = 0.03
    min_maf: float | None = 0.01
    min_mac: float | None = None
    """Smallest count of the rarer allele."""
    max_variant_missing: float | None = 0.03
    min_hwe_p: float | None = 1e-10
    hwe_mid_p: bool = False
    x_hwe: Literal["joint", "females"] = "joint"
    """Who is tested for Hardy-Weinberg proportions on X: men's alleles with women's genotypes, or women alone."""
    duplicates_strand: bool = False
    """Alleles read from the other strand (A/C and T/G) make duplicates too; A/T and C/G are their own complements."""
    min_status_p: float | None = 1e-5
    """Smallest p of Fisher's test of missing calls against status, where a status is given."""
    max_heterozygosity_sd: float | None = 3.0
    check_sex: bool = True
    male_f: float = 0.8
    """X-chromosome F above which a person is male ..."""
    female_f: float = 0.2
    """... and below which female."""
    autosomes: tuple[str, ...] = AUTOSOMES
    """Chromosomes for missingness and heterozygosity of people."""

    def __post_init__(self) -> None:
        for name in ("max_sample_missing", "min_maf", "max_variant_missing", "min_hwe_p", "min_status_p"):
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
    unrelated: SampleIndex | None = None,
    status: Float[np.ndarray, " samples"] | None = None,
    sex: Int8[np.ndarray, " samples"] | None = None,
    founders: Bool[np.ndarray, " samples"] | None = None,
    memory_bytes: int = 1 << 28,
) -> QcResult:
    """Apply quality control in two passes over the genotypes (one when nobody is left out; one more with a status).

    Parameters
    ----------
    keep
        People to keep (those with images, say); others leave with the reason ``not_listed``.
    unrelated
        People without relatives among them (`unrelated_people`); others leave with the reason ``related``.
    status
        1 case, 0 control, NaN unknown: missing calls are tested against it.
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
    people = _People(source.samples)
    flow = [FlowRow("start", len(source.samples), len(source.variants))]
    for listed, reason, step in ((unrelated, "related", "relatives"), (keep, "not_listed", "listed people")):
        if listed is not None:
            people.keep_listed(listed, reason)
        if listed is not None or reason == "not_listed":
            flow.append(FlowRow(step, people.n_left, len(source.variants)))
    variant_reason = np.full(len(source.variants), "", dtype="<U20")
    reported = np.zeros(len(source.samples), dtype=np.int8) if sex is None else sex
    notes: list[str] = []
    test_people, note = _hwe_people(founders, people.left)
    notes += note
    sets, expected = _variant_sets(source, people, reported, rules, memory_bytes)
    first = count_genotypes(
        select_genotypes(source, samples=people.index),
        sets=sets,
        founders=test_people[people.left],
        expected_het=expected,
        memory_bytes=memory_bytes,
    )
    unplaced = source.variants.chromosome == "0"
    if unplaced.any():
        variant_reason[unplaced] = "unplaced"
        flow.append(FlowRow("variants without a chromosome", people.n_left, int((variant_reason == "").sum())))
    duplicate = duplicate_variants(source.variants, first.variant[:, 3], strand=rules.duplicates_strand)
    variant_reason[duplicate & ~unplaced] = "duplicate"
    flow.append(FlowRow("duplicate variants", people.n_left, int((variant_reason == "").sum())))
    columns = _sample_statistics(people.left, first)
    _check_people(people, columns, reported, rules, flow, int((variant_reason == "").sum()))
    counts = first
    if people.n_left < len(first.sample_missing):
        counts = count_genotypes(
            select_genotypes(source, samples=people.index), founders=test_people[people.left], memory_bytes=memory_bytes
        )
    found = _Statistics.of(source.variants, counts, rules)
    for name in ("X", "Y"):
        if (chromosome_classes(source.variants) == name).any():
            by_sex = count_by_sex(
                source, name, reported, people=people.left, test_people=test_people, memory_bytes=memory_bytes
            )
            notes += found.correct(by_sex, rules, on_x=name == "X")
    if status is not None:
        found.by_status = _missing_by_status(source, people.left, status)
    _check_variants(found, variant_reason, rules, flow, people.n_left)
    kept = np.flatnonzero(variant_reason == "")
    if not people.n_left or not kept.size:
        steps = "; ".join(f"{row.step}: {row.n_samples} people, {row.n_variants} variants" for row in flow)
        raise AlignmentError(
            f"Quality control left {people.n_left} people and {kept.size} variants ({steps}). Relax the thresholds of "
            "the step that took the rest."
        )
    return QcResult(
        variants=_variant_result(source.variants, found, variant_reason),
        samples=ResultTable({"participant_id": source.samples.ids} | columns | {"reason": text_array(people.reason)}),
        flow=tuple(flow),
        keep_samples=people.index,
        keep_variants=kept,
        notes=tuple(notes),
    )


def duplicate_variants(
    variants: VariantTable, n_missing: Int[np.ndarray, " variants"], *, strand: bool = False
) -> Bool[np.ndarray, " variants"]:
    """Return which variants repeat another's chromosome, position and unordered pair of alleles.

    Of each set the one with most calls stays, then the first. Variants without a position are never
    duplicates.

    Parameters
    ----------
    strand
        Pairs whose bases are the complements of another's repeat it too: A/C and T/G, A/ATC and T/TAG.
    """
    low = np.minimum(variants.effect_allele, variants.other_allele)
    high = np.maximum(variants.effect_allele, variants.other_allele)
    if strand:
        low, high = _one_strand(low, high)
    codes = [np.unique(c, return_inverse=True)[1] for c in (variants.chromosome, low, high)]
    order = np.lexsort((np.arange(len(variants)), n_missing, codes[2], codes[1], variants.position, codes[0]))
    keys = np.stack([codes[0], variants.position, codes[1], codes[2]])[:, order]
    same = np.zeros(len(variants), dtype=bool)
    same[1:] = (keys[:, 1:] == keys[:, :-1]).all(axis=0)
    duplicate = np.zeros(len(variants), dtype=bool)
    duplicate[order] = same
    return duplicate & (variants.position > 0)


_COMPLEMENT = str.maketrans("ACGTacgt", "TGCAtgca")


def _one_strand(
    low: Shaped[np.ndarray, " variants"], high: Shaped[np.ndarray, " variants"]
) -> tuple[Shaped[np.ndarray, " variants"], Shaped[np.ndarray, " variants"]]:
    """Return each pair of alleles, or their complements (bases reversed), whichever comes first in the alphabet."""
    pairs = list(zip(low.tolist(), high.tolist(), strict=True))
    chosen = {pair: min(pair, _complement(pair)) for pair in set(pairs)}
    return text_array([chosen[p][0] for p in pairs]), text_array([chosen[p][1] for p in pairs])


def _complement(pair: tuple[str, str]) -> tuple[str, str]:
    one, two = sorted(allele.translate(_COMPLEMENT)[::-1] for allele in pair)
    return one, two


class _People:
    """Who is left, and why the others are not."""

    def __init__(self, samples: SampleIndex) -> None:
        self.samples = samples
        self.reason = np.full(len(samples), "", dtype="<U20")

    def keep_listed(self, listed: SampleIndex, reason: str) -> None:
        """Leave out who is not listed.

        Raises
        ------
        AlignmentError
            Nobody left is listed.
        """
        self.leave(listed.indices_of(self.samples) < 0, reason)
        if not self.n_left:
            raise AlignmentError(
                f"None of the {len(listed)} listed participants ({listed.ids[:3].tolist()}, ...) is among the "
                f"{len(self.samples)} genotyped ({self.samples.ids[:3].tolist()}, ...) and left by the lists before. "
                "Ids are compared as exact strings."
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


def _variant_sets(
    source: GenotypeSource,
    people: _People,
    reported: Int8[np.ndarray, " samples"],
    rules: QcSettings,
    memory_bytes: int,
) -> tuple[Int[np.ndarray, " variants"], Float[np.ndarray, " variants"]]:
    """Return 0 for autosomes, 1 for the variants that tell the sex, -1 for others; and expected heterozygosity on X."""
    variants = source.variants
    sets, expected = np.full(len(variants), -1), np.full(len(variants), np.nan)
    sets[np.isin(variants.chromosome, rules.autosomes)] = 0
    on_x = np.flatnonzero(chromosome_classes(variants) == "X")
    if on_x.size:
        counts = count_by_sex(source, "X", reported, people=people.left, memory_bytes=memory_bytes)
        expected[on_x] = counts.expected_het
        frequency = np.nan_to_num(counts.frequency)
        on_x = on_x[np.minimum(frequency, 1.0 - frequency) >= _SEX_MAF]
    if on_x.size:
        chosen = select_genotypes(source, samples=people.index, variants=on_x)
        sets[on_x[prune_variants(chosen, memory_bytes=memory_bytes)]] = 1
    return sets, expected


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


@dataclass(slots=True, eq=False)
class _Statistics:
    """What variants are judged by, among the people left."""

    frequency: Float[np.ndarray, " variants"]
    minor_count: Float[np.ndarray, " variants"]
    missing_rate: Float[np.ndarray, " variants"]
    hwe: Float[np.ndarray, " variants"]
    """-log10 p; NaN where it is not tested."""
    by_status: Float[np.ndarray, " variants"] | None = None

    @classmethod
    def of(cls, variants: VariantTable, counts: GenotypeCounts, rules: QcSettings) -> "_Statistics":
        """Return those of chromosomes of which everyone has two; Hardy-Weinberg on autosomes."""
        tested = np.isin(variants.chromosome, rules.autosomes)
        hwe = np.full(len(variants), np.nan)
        c = counts.founder[tested]
        hwe[tested] = hwe_neg_log10_p(c[:, 0], c[:, 1], c[:, 2], mid_p=rules.hwe_mid_p)
        return cls(counts.effect_allele_frequency, counts.minor_allele_count, counts.missing_rate, hwe)

    def correct(self, counts: SexCounts, rules: QcSettings, *, on_x: bool) -> list[str]:
        """Fill in the variants of X or Y; return what the reader should know of calls that cannot be."""
        self.frequency[counts.rows] = counts.frequency
        self.minor_count[counts.rows] = counts.minor_count
        self.missing_rate[counts.rows] = counts.missing_rate
        if on_x and counts.women.any():
            self.hwe[counts.rows] = counts.hwe(rules.x_hwe, mid_p=rules.hwe_mid_p)
        name, notes = "X" if on_x else "Y", []
        if not on_x and not counts.chromosomes.any():
            notes.append("No man is known to have a call on Y: its variants have no frequency.")
        if counts.het_men.any():
            where = f"{counts.het_men.sum():,} (of {np.count_nonzero(counts.het_men):,} variants)"
            notes.append(f"Heterozygous calls of men on {name}, counted as missing: {where}.")
        if counts.women_with_calls.any():
            where = f"{counts.women_with_calls.sum():,} (of {np.count_nonzero(counts.women_with_calls):,} variants)"
            notes.append(f"Calls of women on Y, not counted: {where}.")
        return notes


def _missing_by_status(
    source: GenotypeSource, left: Bool[np.ndarray, " samples"], status: Float[np.ndarray, " samples"]
) -> Float[np.ndarray, " variants"]:
    """Return -log10 p of Fisher's test of missing calls in cases and controls; NaN without both."""
    known = left & np.isfinite(status)
    cases = status[known] == 1.0
    if not cases.any() or cases.all():
        return np.full(len(source.variants), np.nan)
    counts = count_genotypes(select_genotypes(source, samples=source.samples.take(known)), founders=cases)
    case = counts.founder
    control = counts.variant - case
    return fisher_neg_log10_p(case[:, 3], case[:, :3].sum(axis=1), control[:, 3], control[:, :3].sum(axis=1))


def _check_variants(
    found: _Statistics,
    reason: Shaped[np.ndarray, " variants"],
    rules: QcSettings,
    flow: list[FlowRow],
    n_samples: int,
) -> None:
    maf = np.minimum(found.frequency, 1.0 - found.frequency)

    def leave(which: Bool[np.ndarray, " variants"], why: str, step: str) -> None:
        reason[which & (reason == "")] = why
        flow.append(FlowRow(step, n_samples, int((reason == "").sum())))

    if rules.min_maf is not None:
        leave(np.isnan(maf) | (maf < rules.min_maf), "maf", "minor allele frequency")
    if rules.min_mac is not None:
        leave(found.minor_count < rules.min_mac, "mac", "minor allele count")
    if rules.max_variant_missing is not None:
        leave(found.missing_rate > rules.max_variant_missing, "variant_missing", "variant missingness")
    if found.by_status is not None and rules.min_status_p is not None and rules.min_status_p > 0.0:
        leave(found.by_status > -np.log10(rules.min_status_p), "status_missing", "missingness by status")
    if rules.min_hwe_p is not None and rules.min_hwe_p > 0.0:
        leave(found.hwe > -np.log10(rules.min_hwe_p), "hwe", "Hardy-Weinberg")


def _variant_result(
    variants: VariantTable,
    found: _Statistics,
    reason: Shaped[np.ndarray, " variants"],
) -> ResultTable:
    columns: dict[str, Shaped[np.ndarray, " variants"]] = {
        "chromosome": variants.chromosome,
        "position": variants.position,
        "variant_id": variants.variant_id,
        "effect_allele": variants.effect_allele,
        "other_allele": variants.other_allele,
        "effect_allele_frequency": found.frequency,
        "minor_allele_count": found.minor_count,
        "missing_rate": found.missing_rate,
        "hwe_neg_log10_p": found.hwe,
    }
    if found.by_status is not None:
        columns["status_missing_neg_log10_p"] = found.by_status
    return ResultTable(columns | {"reason": text_array(reason)})
