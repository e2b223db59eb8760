r"""Is a set of genes associated with a set of phenotypes more often than other genes? By drawing genes.

Data flow::

    GeneAssociations, phenotypes, thresholds --count_hits--> GeneHits    (per gene: counts, and a bit a phenotype)
    genes of the set, match --gene_strata | blocks_of_genes--> Strata | Blocks
    GeneHits, set, draws --permute_set--> SetEnrichment

For every threshold t of p two statistics of a set of genes: the number of its associations (over all tissues) with the
phenotypes, and the number of phenotypes that it hits at all. B sets of as many genes, drawn without replacement, give
their distribution under the null hypothesis. By threshold: the 95th percentile of the draws (type 7), the margin above
it, and ``p = (1 + #{draws >= observed}) / (1 + B)``; the best threshold is that of the largest margin, the larger of
two that are equal.

The best of several thresholds is one of several chances. Its family-wise p is that of the largest of the standardised
statistics ``(x_t - mean_t) / sd_t`` in the same draws (Westfall & Young 1993); mean and sd are over the draws and the
observed set together, so that all 1 + B sets are treated alike and the p is exact for any number of draws.

Genes with models in many tissues have more tests, and more associations, without being more associated. Draws are
therefore matched, stratum by stratum:

``models``   as many genes with the same number of tissue models (the default of the command)
``r2``       as many genes of similar mean performance of their models (tenths)
``density``  as many genes of similar gene density (tenths of the number of tested genes within 1 Mb)
``blocks``   the same pattern of LD blocks: c genes of one block become c genes of another block. Genes of a block share
             variants, so that a set with several of them varies more than one of scattered genes
``none``     any tested gene: the published procedure, anti-conservative for sets of well-modelled genes

A draw costs a sum of counts and an OR of bits.

References
----------
Westfall & Young (1993), Resampling-based multiple testing; Phipson & Smyth (2010), Stat. Appl. Genet. Mol. Biol. 9:39;
Hyndman & Fan (1996), Am. Stat. 50:361 (type 7); Berisa & Pickrell (2016), Bioinformatics 32:283 (LD blocks).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt64

from brainlocus.core import GeneAssociations

__all__ = [
    "Blocks",
    "Draws",
    "GeneHits",
    "SetEnrichment",
    "Strata",
    "blocks_of_genes",
    "count_hits",
    "draw_genes",
    "gene_density",
    "gene_strata",
    "permute_set",
]

_MIN_CHOICE = 10
"""Genes a stratum has for each gene of the set in it, where there are as many."""
_DENSITY_REACH = 500_000
"""Gene density counts genes this far to either side, so within 1 Mb."""
_TENTHS = 10
_CHANCE_TO_REPEAT = 0.8
"""Share of draws with a gene twice up to which such draws are repeated; beyond, each is drawn by itself."""
_WORDS = 1 << 22
"""64-bit words that are combined at a time."""
_QUANTILE = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class GeneHits:
    """What each gene has of associations with the phenotypes, threshold by threshold."""

    thresholds: Float[np.ndarray, " thresholds"]
    """Largest p, descending."""
    counts: Int[np.ndarray, "genes thresholds"]
    """Associations over all tissues."""
    phenotypes: UInt64[np.ndarray, "genes thresholds words"]
    """A bit for each phenotype hit in any tissue."""


def count_hits(
    tests: GeneAssociations, phenotypes: Int[np.ndarray, " chosen"], thresholds: Sequence[float]
) -> GeneHits:
    """Count the associations of every gene with some phenotypes.

    Parameters
    ----------
    tests
        All tests, or those with p up to the largest threshold.
    phenotypes
        Places in ``tests.phenotypes``.

    Raises
    ------
    ValueError
        A threshold that is not above 0 and at most 1, or none.
    """
    edges = np.unique(np.asarray(thresholds, dtype=np.float64))[::-1]
    if not edges.size or not (edges[-1] > 0.0 and edges[0] <= 1.0):
        raise ValueError(f"Expected thresholds of p above 0 and up to 1, found {list(thresholds)}.")
    n_genes, n_words = tests.genes.size, max(1, -(-phenotypes.size // 64))
    place = np.full(tests.phenotypes.size, -1, dtype=np.int64)
    place[phenotypes] = np.arange(phenotypes.size)
    counts = np.zeros((n_genes, edges.size), dtype=np.int64)
    bits = np.zeros((edges.size, n_genes * n_words), dtype=np.uint64)
    rows = np.flatnonzero((place[tests.phenotype] >= 0) & (tests.neg_log10_p >= -np.log10(edges[0])))
    gene, strength = tests.gene[rows].astype(np.int64), tests.neg_log10_p[rows]
    # The strongest test of every gene and phenotype, in order, so that a bit is set once and a word lies together.
    cell = gene * phenotypes.size + place[tests.phenotype[rows]]
    order = np.argsort(cell, kind="stable")
    cell = cell[order]
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    strongest = np.maximum.reduceat(strength[order], starts) if starts.size else np.zeros(0)
    at = cell[starts] % max(phenotypes.size, 1)
    word = cell[starts] // max(phenotypes.size, 1) * n_words + at // 64
    flag = np.left_shift(np.uint64(1), (at % 64).astype(np.uint64))
    for k, edge in enumerate(-np.log10(edges)):
        counts[:, k] = np.bincount(gene[strength >= edge], minlength=n_genes)
        kept = np.flatnonzero(strongest >= edge)
        first = np.flatnonzero(np.diff(word[kept], prepend=-1))
        if first.size:
            bits[k, word[kept][first]] = np.bitwise_or.reduceat(flag[kept], first)
    planes = bits.reshape(edges.size, n_genes, n_words).transpose(1, 0, 2)
    return GeneHits(edges, counts, np.ascontiguousarray(planes))


@dataclass(frozen=True, slots=True, eq=False)
class Strata:
    """Draws as many genes from each stratum as the set has there, without replacement."""

    candidates: tuple[Int[np.ndarray, " _"], ...]
    """Genes of each stratum."""
    sizes: tuple[int, ...]
    """Genes that the set has in each."""
    labels: tuple[str, ...]

    def draw(self, n_draws: int, rng: np.random.Generator) -> Int[np.ndarray, "draws set_size"]:
        """Return sets of genes, one a row."""
        strata = zip(self.candidates, self.sizes, strict=True)
        return np.concatenate([genes[draw_genes(genes.size, k, n_draws, rng)] for genes, k in strata], axis=1)


def draw_genes(n_genes: int, size: int, n_draws: int, rng: np.random.Generator) -> Int[np.ndarray, "draws size"]:
    """Return draws of `size` of the numbers below `n_genes`, without replacement; all sets are equally likely.

    Draws in which a number occurs twice are drawn again, all at once, as long as they are not most of them.
    """
    if size == 1 or n_genes == 1:
        return rng.integers(0, n_genes, (n_draws, size))
    if -np.expm1(-size * (size - 1) / (2 * n_genes)) > _CHANCE_TO_REPEAT:
        return np.stack([rng.choice(n_genes, size, replace=False, shuffle=False) for _ in range(n_draws)])
    drawn = rng.integers(0, n_genes, (n_draws, size))
    again = np.arange(n_draws)
    while again.size:
        ordered = np.sort(drawn[again], axis=1)
        again = again[(ordered[:, 1:] == ordered[:, :-1]).any(axis=1)]
        drawn[again] = rng.integers(0, n_genes, (again.size, size))
    return drawn


def gene_strata(
    members: Int[np.ndarray, " set_size"],
    candidates: Bool[np.ndarray, " genes"],
    values: Float[np.ndarray, " genes"] | None = None,
    *,
    exact: bool = False,
) -> Strata:
    """Return strata of genes alike in a value.

    Parameters
    ----------
    members
        Genes of the set.
    candidates
        Genes that may be drawn.
    values
        What genes are matched on; genes without (NaN) are a stratum of their own. None for a single stratum.
    exact
        Every value is a stratum (number of tissue models), rather than every tenth of the genes. Neighbouring strata
        are joined until each has `_MIN_CHOICE` candidates for every gene of the set in it, where there are as many.

    Raises
    ------
    ValueError
        The set has more genes than can be drawn, in all or without a value.
    """
    pool = np.flatnonzero(candidates)
    if members.size > pool.size:
        raise ValueError(
            f"The set has {members.size} genes, but only {pool.size} can be drawn; a set must be smaller than what it "
            "is compared with."
        )
    if values is None:
        return Strata((pool,), (int(members.size),), ("all genes",))
    known = np.isfinite(values)
    parts: list[tuple[Int[np.ndarray, " _"], int, str]] = []
    if (~known[members]).any():
        lacking = pool[~known[pool]]
        parts.append((lacking, int((~known[members]).sum()), "unknown"))
    levels = np.unique(values[known]) if exact else np.unique(np.quantile(values[known], np.arange(_TENTHS) / _TENTHS))
    code = np.searchsorted(levels, values, side="right") - 1
    wanted = np.bincount(code[members[known[members]]], minlength=levels.size)
    there = np.bincount(code[pool[known[pool]]], minlength=levels.size)
    inside = pool[known[pool]]
    for low, high in _joined(wanted, there):
        mine = inside[(code[inside] >= low) & (code[inside] < high)]
        label = f"{levels[low]:g}" if exact and high == low + 1 else f"{levels[low]:g} to {values[mine].max():g}"
        parts.append((mine, int(wanted[low:high].sum()), label))
    for genes, size, label in parts:
        if genes.size < size:
            raise ValueError(
                f"The set has {size} genes of value {label}, but only {genes.size} can be drawn there; match on less."
            )
    genes_of, sizes, labels = zip(*parts, strict=True)
    return Strata(tuple(genes_of), tuple(sizes), tuple(labels))


def _joined(wanted: Int[np.ndarray, " levels"], there: Int[np.ndarray, " levels"]) -> list[tuple[int, int]]:
    """Return ranges of levels, each with enough candidates for the genes wanted there; only those with a gene."""
    ranges = [[k, k + 1] for k in range(wanted.size)]

    def enough(low: int, high: int) -> bool:
        return bool(there[low:high].sum() >= _MIN_CHOICE * wanted[low:high].sum())

    k = 0
    while k < len(ranges):
        if enough(*ranges[k]) or len(ranges) == 1:
            k += 1
            continue
        # Joined with the neighbour that has more to choose from.
        neighbours = [j for j in (k - 1, k + 1) if 0 <= j < len(ranges)]
        best = max(neighbours, key=lambda j: int(there[slice(*ranges[j])].sum()))
        first, second = min(k, best), max(k, best)
        ranges[first] = [ranges[first][0], ranges[second][1]]
        del ranges[second]
        k = first
    return [(low, high) for low, high in ranges if wanted[low:high].sum()]


def gene_density(
    chromosome: Shaped[np.ndarray, " genes"], middle: Float[np.ndarray, " genes"]
) -> Float[np.ndarray, " genes"]:
    """Return how many other genes have their middle within 500 kb; NaN for genes without a place."""
    density = np.full(middle.size, np.nan)
    for name in np.unique(chromosome):
        mine = np.flatnonzero((chromosome == name) & np.isfinite(middle))
        ordered = np.sort(middle[mine])
        above = np.searchsorted(ordered, middle[mine] + _DENSITY_REACH, side="right")
        density[mine] = above - np.searchsorted(ordered, middle[mine] - _DENSITY_REACH, side="left") - 1
    return density


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Draws sets with the pattern of LD blocks of the set: as many blocks with one gene, with two genes ..."""

    genes: Int[np.ndarray, " candidates"]
    """Candidates, block by block."""
    starts: Int[np.ndarray, " blocks_and_one"]
    pattern: tuple[int, ...]
    """Genes of the set in each of its blocks, most first."""

    def draw(self, n_draws: int, rng: np.random.Generator) -> Int[np.ndarray, "draws set_size"]:
        """Return sets of genes, one a row.

        Blocks are chosen one after the other, those with most genes of the set first, among the blocks with enough
        genes that are not taken yet; a block with n genes has a chance proportional to n. `blocks_of_genes` has seen to
        it that one is left.
        """
        n = np.diff(self.starts)
        blocks = np.empty((n_draws, len(self.pattern)), dtype=np.int64)
        genes = []
        for k, size in enumerate(self.pattern):
            weight = np.cumsum(np.where(n >= size, n, 0))
            again = np.arange(n_draws)
            while again.size:
                blocks[again, k] = np.searchsorted(weight, rng.integers(0, weight[-1], again.size), side="right")
                again = again[(blocks[again, :k] == blocks[again, k : k + 1]).any(axis=1)]
            genes.append(self._within(blocks[:, k], n[blocks[:, k]], size, rng))
        return np.concatenate(genes, axis=1)

    def _within(
        self, block: Int[np.ndarray, " draws"], n: Int[np.ndarray, " draws"], size: int, rng: np.random.Generator
    ) -> Int[np.ndarray, "draws size"]:
        """Return `size` distinct genes of a block for every draw, by Floyd's method."""
        picked = np.empty((block.size, size), dtype=np.int64)
        for k in range(size):
            last = n - size + k
            new = np.floor(rng.random(block.size) * (last + 1)).astype(np.int64)
            taken = (picked[:, :k] == new[:, None]).any(axis=1)
            picked[:, k] = np.where(taken, last, new)
        return np.asarray(self.genes[self.starts[block][:, None] + picked])


def blocks_of_genes(
    members: Int[np.ndarray, " set_size"],
    candidates: Bool[np.ndarray, " genes"],
    block: Int[np.ndarray, " genes"],
) -> Blocks:
    """Return draws with the set's pattern of blocks.

    Parameters
    ----------
    block
        Number of each gene's block; -1 where unknown, and such a gene is a block of its own.

    Raises
    ------
    ValueError
        There are not enough blocks with as many genes.
    """
    alone = block < 0
    code = np.where(alone, block.max(initial=-1) + 1 + np.cumsum(alone) - 1, block)
    genes = np.flatnonzero(candidates)
    genes = genes[np.argsort(code[genes], kind="stable")]
    starts = np.r_[np.flatnonzero(np.diff(code[genes], prepend=-1)), genes.size].astype(np.int64)
    pattern = tuple(sorted(np.unique(code[members], return_counts=True)[1].tolist(), reverse=True))
    available = np.sort(np.diff(starts))[::-1]
    for k, size in enumerate(pattern):
        if k >= available.size or available[k] < size:
            raise ValueError(
                f"The set has {k + 1} blocks with {size} genes or more, but only {int((available >= size).sum())} such "
                "blocks can be drawn; match on less."
            )
    return Blocks(genes, starts, pattern)


Draws = Strata | Blocks
"""A way of drawing sets of genes that could have been the set."""


@dataclass(frozen=True, slots=True, eq=False)
class SetEnrichment:
    """A set of genes beside sets drawn; the first axis is associations, phenotypes."""

    thresholds: Float[np.ndarray, " thresholds"]
    observed: Int[np.ndarray, "2 thresholds"]
    null: Int[np.ndarray, "2 draws thresholds"]
    mean: Float[np.ndarray, "2 thresholds"]
    """Of the draws and the observed set."""
    standard_deviation: Float[np.ndarray, "2 thresholds"]
    q95: Float[np.ndarray, "2 thresholds"]
    """95th percentile of the draws, type 7."""
    standardised: Float[np.ndarray, "2 thresholds"]
    """NaN where every draw is like the set."""
    p: Float[np.ndarray, "2 thresholds"]
    best: Bool[np.ndarray, "2 thresholds"]
    """The threshold of the largest margin; the larger of several."""
    tied: Bool[np.ndarray, "2 thresholds"]
    """Thresholds with the largest margin."""
    family_wise_p: Float[np.ndarray, " 2"]
    """p of the largest standardised statistic over all thresholds."""

    @property
    def margin(self) -> Float[np.ndarray, "2 thresholds"]:
        """Observed less the 95th percentile."""
        return np.asarray(self.observed - self.q95)


def permute_set(
    hits: GeneHits,
    members: Int[np.ndarray, " set_size"],
    draws: Draws,
    *,
    n_draws: int = 1000,
    rng: np.random.Generator,
) -> SetEnrichment:
    """Set the associations of a set of genes beside those of sets drawn.

    Parameters
    ----------
    members
        Genes of the set, each once.
    draws
        `Strata` or `Blocks` of the set.

    Raises
    ------
    ValueError
        No gene, or no draw.
    """
    if not members.size or n_draws < 1:
        raise ValueError(f"Expected a gene and a draw at least, found {members.size} genes and {n_draws} draws.")
    drawn = draws.draw(n_draws, rng)
    observed = _statistics(hits, members[None, :])[:, 0]
    null = _statistics(hits, drawn)
    together = np.concatenate([observed[:, None], null], axis=1).astype(np.float64)
    mean, sd = together.mean(axis=1), together.std(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = (together - mean[:, None]) / sd[:, None]
    scaled = np.where(sd[:, None] > 0, scaled, np.nan)
    largest = np.where(np.isfinite(scaled), scaled, -np.inf).max(axis=2)
    q95 = np.quantile(null, _QUANTILE, axis=1)
    margin = observed - q95
    tied = margin == margin.max(axis=1, keepdims=True)
    best = np.zeros_like(tied)
    best[np.arange(2), tied.argmax(axis=1)] = True
    return SetEnrichment(
        hits.thresholds,
        observed,
        null,
        mean,
        sd,
        q95,
        scaled[:, 0],
        (1 + (null >= observed[:, None]).sum(axis=1)) / (1 + n_draws),
        best,
        tied,
        (1 + (largest[:, 1:] >= largest[:, :1]).sum(axis=1)) / (1 + n_draws),
    )


def _statistics(hits: GeneHits, sets: Int[np.ndarray, "draws set_size"]) -> Int[np.ndarray, "2 draws thresholds"]:
    """Return associations and phenotypes hit of sets of genes."""
    n_words = hits.phenotypes.shape[2]
    result = np.empty((2, sets.shape[0], hits.thresholds.size), dtype=np.int64)
    step = max(1, _WORDS // (sets.shape[1] * hits.thresholds.size * n_words))
    for k in range(0, sets.shape[0], step):
        some = sets[k : k + step]
        result[0, k : k + step] = hits.counts[some].sum(axis=1)
        union = np.bitwise_or.reduce(hits.phenotypes[some], axis=1)
        result[1, k : k + step] = np.bitwise_count(union).sum(axis=2)
    return result
