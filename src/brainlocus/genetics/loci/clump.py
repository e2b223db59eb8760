"""Clumping: from associated variants to independent signals, leads and loci, for many traits at once.

Definitions (Wen et al., structural covariance; FUMA-like):

* index: p <= p1;
* independent: index variants left by greedy clumping at r2 (smallest p first; each claims every unclaimed
  variant with p <= p2 within kb and r2 at least the threshold with it);
* candidate: claimed by an independent variant (itself included);
* lead: independent variants clumped again among themselves at lead_r2;
* locus: union of the candidates' ranges of a lead's independent variants; loci closer than kb are merged.

r2 is the squared Pearson correlation of pairwise-complete allele counts (``ld="counts"``), or that of
maximum-likelihood haplotype frequencies (``"haplotypes"``, what PLINK 1.9 --clump does); computed only around
index variants. Ties in p: lower position first, then the allele.

References
----------
Purcell et al. (2007), 10.1086/519795 (--clump); Watanabe et al. (2017), 10.1038/s41467-017-01261-5.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Shaped

from brainlocus.core.genotypes import GenotypeSource
from brainlocus.core.results import ResultTable, concat_results
from brainlocus.core.text import STRING, text_array
from brainlocus.core.variants import VariantTable, chromosome_rank
from brainlocus.genetics.loci.r2 import haplotype_r2, pairwise_r2

__all__ = ["ClumpResult", "ClumpSettings", "clump", "clump_peak_bytes"]

_CHUNK = 256
ROLES = ("candidate", "index", "independent", "lead")


@dataclass(frozen=True, slots=True)
class ClumpSettings:
    """Thresholds of the definitions above."""

    p1: float = 5e-8
    p2: float = 0.05
    r2: float = 0.6
    lead_r2: float = 0.1
    kb: float = 250.0
    ld: Literal["counts", "haplotypes"] = "counts"

    def __post_init__(self) -> None:
        for name in ("p1", "p2"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a p-value in (0, 1], found {getattr(self, name)}.")
        for name in ("r2", "lead_r2"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name} lies in (0, 1], found {getattr(self, name)}.")
        if self.kb < 0.0:
            raise ValueError(f"kb is a distance >= 0, found {self.kb}.")
        if self.p2 < self.p1:
            raise ValueError(f"p2 ({self.p2}) must not be below p1 ({self.p1}): index variants claim weaker ones.")


@dataclass(frozen=True, slots=True, eq=False)
class ClumpResult:
    """Roles of variants, and loci."""

    variants: ResultTable
    """trait, chromosome, position, variant_id, neg_log10_p, role (the highest of candidate, index,
    independent, lead), locus, index_variant_id (the independent variant that claimed it), r2 with that."""
    loci: ResultTable
    """trait, locus, chromosome, start, stop, top_variant_id, neg_log10_p, n_lead, n_independent, n_variants."""
    n_absent: int
    """Rows with p <= p2 whose variant is not in the LD panel, or has no position there; they take no part."""


def clump_peak_bytes(n_samples: int, n_chunks: int = 16) -> int:
    """Return an upper estimate of the bytes of genotypes held during `clump`."""
    return _CHUNK * n_samples * 4 * (n_chunks + 3)


def clump(
    results: ResultTable,
    panel: GenotypeSource,
    settings: ClumpSettings | None = None,
    *,
    memory_bytes: int = 1 << 28,
) -> ClumpResult:
    """Clump the associations of every trait.

    Parameters
    ----------
    results
        trait, variant_id, neg_log10_p (other columns are not needed: places come from the panel). Rows with
        p > p2 are ignored.
    panel
        Genotypes for r2: the study's own or a reference of the same ancestry. Variants are matched by id.

    Examples
    --------
    See docs/stages/loci.md.
    """
    rules = settings or ClumpSettings()
    strong = results.take(results["neg_log10_p"] >= -np.log10(rules.p2) - 1e-12)
    rows = _rows_in_panel(strong, panel.variants)
    found = (rows >= 0) & (panel.variants.position[rows] > 0)
    strong, rows = strong.take(found), rows[found]
    ld = _PanelLd(
        panel, rules.ld, rules.kb * 1000.0, max(int(memory_bytes // (_CHUNK * len(panel.samples) * 4 + 1)), 4)
    )
    names, first = np.unique(results["trait"].astype(STRING), return_index=True)
    variants, loci = [_empty_variants()], [_empty_loci()]
    trait = strong["trait"].astype(STRING)
    for name in names[np.argsort(first)].tolist():
        mine = trait == name
        one = _clump_trait(name, rows[mine], strong["neg_log10_p"][mine].astype(np.float64), ld, rules)
        if one is not None:
            variants.append(one[0])
            loci.append(one[1])
    return ClumpResult(concat_results(variants), concat_results(loci), int((~found).sum()))


def _rows_in_panel(results: ResultTable, variants: VariantTable) -> Int[np.ndarray, " rows"]:
    """Return the panel row of each result by variant id (the first of equal ids), -1 where absent."""
    row_of: dict[str, int] = {}
    for row, name in enumerate(variants.variant_id.tolist()):
        row_of.setdefault(name, row)
    return np.array([row_of.get(name, -1) for name in results["variant_id"].tolist()], dtype=np.int64)


@dataclass(slots=True, eq=False)
class _PanelLd:
    """r2 around index variants, read from the panel as needed and remembered across traits."""

    panel: GenotypeSource
    kind: Literal["counts", "haplotypes"]
    reach: float
    n_chunks: int
    chunks: OrderedDict[int, Float32[np.ndarray, "variants samples"]] = field(default_factory=OrderedDict)
    around: dict[int, tuple[Int[np.ndarray, " rows"], Float64[np.ndarray, " rows"]]] = field(default_factory=dict)
    order: Int[np.ndarray, " variants"] = field(init=False)
    key: Float64[np.ndarray, " variants"] = field(init=False)
    rank: Int[np.ndarray, " variants"] = field(init=False)

    def __post_init__(self) -> None:
        self.rank = chromosome_rank(self.panel.variants.chromosome)
        # One number per variant: chromosomes lie further apart than any reach.
        spread = float(self.panel.variants.position.max(initial=0)) + 2.0 * self.reach + 1.0
        place = self.rank * spread + self.panel.variants.position
        self.order = np.argsort(place, kind="stable")
        self.key = place[self.order]

    def r2_with(self, index: int, rows: Int[np.ndarray, " rows"]) -> Float64[np.ndarray, " rows"]:
        """Return r2 of `index` with the given panel rows; 0 beyond reach."""
        if index not in self.around:
            self.around[index] = self._window(index)
        near, r2 = self.around[index]
        place = np.minimum(np.searchsorted(near, rows), near.size - 1)
        return np.where(near[place] == rows, r2[place], 0.0)

    def _window(self, index: int) -> tuple[Int[np.ndarray, " rows"], Float64[np.ndarray, " rows"]]:
        here = self.key[np.flatnonzero(self.order == index)[0]]
        low, high = np.searchsorted(self.key, (here - self.reach, here + self.reach), side="left")
        high = int(np.searchsorted(self.key, here + self.reach, side="right"))
        near = np.sort(self.order[int(low) : high])
        mine = self._dosage(index // _CHUNK)[index % _CHUNK]
        r2 = np.empty(near.size)
        for chunk in np.unique(near // _CHUNK).tolist():
            inside = near // _CHUNK == chunk
            others = self._dosage(int(chunk))[near[inside] % _CHUNK]
            r2[inside] = pairwise_r2(mine, others) if self.kind == "counts" else haplotype_r2(mine, others)
        return near, np.nan_to_num(r2, nan=0.0)

    def _dosage(self, chunk: int) -> Float32[np.ndarray, "variants samples"]:
        if chunk in self.chunks:
            self.chunks.move_to_end(chunk)
            return self.chunks[chunk]
        stop = min((chunk + 1) * _CHUNK, len(self.panel.variants))
        self.chunks[chunk] = self.panel.read(chunk * _CHUNK, stop).dosage
        if len(self.chunks) > self.n_chunks:
            self.chunks.popitem(last=False)
        return self.chunks[chunk]


def _greedy(
    rows: Int[np.ndarray, " rows"], may_lead: Bool[np.ndarray, " rows"], ld: _PanelLd, threshold: float
) -> tuple[Int[np.ndarray, " rows"], Float64[np.ndarray, " rows"]]:
    """Return, for rows in order of priority, which one claimed each (-1: none), and r2 with it."""
    owner, r2_with_owner = np.full(rows.size, -1), np.full(rows.size, np.nan)
    for k in range(rows.size):
        if owner[k] >= 0 or not may_lead[k]:
            continue
        r2 = ld.r2_with(int(rows[k]), rows)
        claimed = (owner < 0) & (r2 >= threshold)
        claimed[k] = True
        owner[claimed] = k
        r2_with_owner[claimed] = r2[claimed]
        r2_with_owner[k] = 1.0
    return owner, r2_with_owner


def _clump_trait(
    name: str,
    rows: Int[np.ndarray, " rows"],
    neg_log10_p: Float64[np.ndarray, " rows"],
    ld: _PanelLd,
    rules: ClumpSettings,
) -> tuple[ResultTable, ResultTable] | None:
    """Return the roles and loci of one trait; None when it has no index variant."""
    table = ld.panel.variants
    allele = np.unique(table.effect_allele[rows], return_inverse=True)[1]
    order = np.lexsort((allele, table.position[rows], ld.rank[rows], -neg_log10_p))
    rows, neg_log10_p = rows[order], neg_log10_p[order]
    is_index = neg_log10_p >= -np.log10(rules.p1) - 1e-12
    if not is_index.any():
        return None
    owner, r2 = _greedy(rows, is_index, ld, rules.r2)
    independent = np.flatnonzero(owner == np.arange(rows.size))
    lead_of, _ = _greedy(rows[independent], np.ones(independent.size, dtype=bool), ld, rules.lead_r2)
    lead = independent[np.unique(lead_of)]
    claimed = np.flatnonzero(owner >= 0)
    # From each claimed variant to its independent variant, and on to that one's lead.
    my_lead = independent[lead_of[np.searchsorted(independent, owner[claimed])]]
    role = np.zeros(rows.size, dtype=np.int64)
    role[is_index], role[independent], role[lead] = 1, 2, 3
    locus_of = _loci(table, ld.rank, rows, claimed, my_lead, rules.kb * 1000.0)
    variants = ResultTable(
        {
            "trait": text_array([name] * claimed.size),
            "chromosome": table.chromosome[rows[claimed]],
            "position": table.position[rows[claimed]],
            "variant_id": table.variant_id[rows[claimed]],
            "neg_log10_p": neg_log10_p[claimed],
            "role": text_array(np.array(ROLES)[role[claimed]]),
            "locus": locus_of,
            "index_variant_id": table.variant_id[rows[owner[claimed]]],
            "r2": r2[claimed],
        }
    )
    by_place = np.lexsort((variants["position"], variants["locus"]))
    return variants.take(by_place), _locus_table(name, variants)


def _loci(
    table: VariantTable,
    rank: Int[np.ndarray, " variants"],
    rows: Int[np.ndarray, " rows"],
    claimed: Int[np.ndarray, " claimed"],
    my_lead: Int[np.ndarray, " claimed"],
    merge_within: float,
) -> Int[np.ndarray, " claimed"]:
    """Return the locus, numbered from 1 in genome order, of every claimed variant."""
    position, chromosome = table.position[rows[claimed]], rank[rows[claimed]]
    spans = []
    for lead in np.unique(my_lead).tolist():
        mine = my_lead == lead
        spans.append((int(chromosome[mine][0]), int(position[mine].min()), int(position[mine].max()), int(lead)))
    spans.sort()
    locus_of_lead: dict[int, int] = {}
    number, last_chromosome, reach = 0, -1, 0
    for chrom, start, stop, lead in spans:
        if chrom != last_chromosome or start - reach >= merge_within:
            number, reach = number + 1, stop
        last_chromosome, reach = chrom, max(reach, stop)
        locus_of_lead[lead] = number
    return np.array([locus_of_lead[int(lead)] for lead in my_lead], dtype=np.int64)


def _locus_table(name: str, variants: ResultTable) -> ResultTable:
    numbers = np.unique(variants["locus"])
    rows: list[tuple[object, ...]] = []
    for number in numbers.tolist():
        mine = variants.take(variants["locus"] == number)
        top = int(np.argmax(mine["neg_log10_p"]))
        n_lead = int((mine["role"] == "lead").sum())
        rows.append(
            (
                mine["chromosome"][top],
                int(mine["position"].min()),
                int(mine["position"].max()),
                mine["variant_id"][top],
                float(mine["neg_log10_p"][top]),
                n_lead,
                n_lead + int((mine["role"] == "independent").sum()),
                len(mine),
            )
        )
    return _loci_result(name, numbers, rows)


def _loci_result(name: str, numbers: Shaped[np.ndarray, " loci"], rows: list[tuple[object, ...]]) -> ResultTable:
    columns = list(zip(*rows, strict=True)) if rows else [()] * 8
    return ResultTable(
        {
            "trait": text_array([name] * len(rows)),
            "locus": np.asarray(numbers, dtype=np.int64),
            "chromosome": np.array(columns[0], dtype=np.str_),
            "start": np.array(columns[1], dtype=np.int64),
            "stop": np.array(columns[2], dtype=np.int64),
            "top_variant_id": text_array(columns[3]),
            "neg_log10_p": np.array(columns[4], dtype=np.float64),
            "n_lead": np.array(columns[5], dtype=np.int64),
            "n_independent": np.array(columns[6], dtype=np.int64),
            "n_variants": np.array(columns[7], dtype=np.int64),
        }
    )


def _empty_loci() -> ResultTable:
    return _loci_result("", np.empty(0, dtype=np.int64), [])


def _empty_variants() -> ResultTable:
    text, whole, real = text_array([]), np.empty(0, dtype=np.int64), np.empty(0)
    return ResultTable(
        {
            "trait": text,
            "chromosome": np.empty(0, dtype=np.str_),
            "position": whole,
            "variant_id": text,
            "neg_log10_p": real,
            "role": text,
            "locus": whole,
            "index_variant_id": text,
            "r2": real,
        }
    )
