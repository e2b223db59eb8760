"""``genotypes kinship``: related pairs and the largest set of people without any."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from pydantic import Field

from brainlocus.core import GenotypeSource, SampleIndex, SchemaError
from brainlocus.genetics.genotypes import (
    DEGREES,
    KinshipPairs,
    count_genotypes,
    degree_of,
    kinship_pairs,
    kinship_peak_bytes,
    unrelated_people,
)
from brainlocus.pipeline.config import InputPath
from brainlocus.pipeline.filters import GenotypeInput, choose_genotypes
from brainlocus.pipeline.genomes import keep_people, require_memory, table_bytes
from brainlocus.pipeline.panels import PanelRules, choose_panel
from brainlocus.pipeline.step import Context, Estimate, Step, StepResult

__all__ = ["GENOTYPES_KINSHIP", "GenotypesKinshipConfig"]

_FEW_VARIANTS = 1000
"""With fewer the degrees overlap: a note is made."""


class GenotypesKinshipConfig(GenotypeInput):
    """Settings of ``genotypes kinship``."""

    cutoff: float = Field(
        DEGREES[2], description="No pair above this stays in the unrelated set (0.0884: second degree, 0.0442: third)"
    )
    min_kinship: float = Field(0.0221, description="Smallest kinship of the pairs written")
    all_pairs: bool = Field(False, description="Write every pair")
    prefer: InputPath | None = Field(
        None, description="People to keep rather than their relatives (those with a phenotype, say): list or table"
    )
    min_maf: float = Field(0.05, ge=0, le=0.5, description="Smallest minor allele frequency among these people")
    max_missing: float = Field(0.02, ge=0, le=1, description="Largest share of missing calls of a variant")
    figures: bool = Field(False, description="Draw kinship.png (needs the extra plot)")


def genotypes_kinship(config: GenotypesKinshipConfig, out: Path, context: Context) -> StepResult:
    """Write related pairs and the people who stay when no pair may be above the cut-off."""
    if config.cutoff < config.min_kinship and not config.all_pairs:
        raise SchemaError(
            f"--cutoff: expected at least --min-kinship ({config.min_kinship}), found {config.cutoff}; pairs below "
            "--min-kinship are not known to the unrelated set."
        )
    asked = choose_genotypes(config)
    source = asked.source
    tables = table_bytes(len(source.variants))
    needed = tables + kinship_peak_bytes(len(source.samples))
    require_memory(needed, context.memory_bytes, f"Kinship of {len(source.samples)} people")
    rules = PanelRules(min_maf=config.min_maf, max_missing=config.max_missing)
    panel = choose_panel(asked, rules, memory_bytes=context.memory_bytes - tables)
    people = panel.source.samples
    threshold = None if config.all_pairs else config.min_kinship
    found = kinship_pairs(
        panel.source, threshold=threshold, memory_bytes=context.memory_bytes - tables, threads=context.threads
    )
    tally = _Tally(config.cutoff)
    _write_pairs(people, tally.watch(found), out / "pairs.parquet")
    weight = _weight(panel.source, config.prefer, context.memory_bytes - tables)
    stays = unrelated_people(len(people), tally.first, tally.second, weight)
    (out / "unrelated.txt").write_text("\n".join(people.ids[stays].tolist()) + "\n", encoding="utf-8")
    if config.figures:
        from brainlocus.pipeline.figures.genotypes import draw_kinship

        draw_kinship(tally.kinship, tally.ibs0, config.cutoff, out / "kinship.png")
    counts: dict[str, Any] = {
        **panel.counts,
        "pairs": int(sum(tally.degrees.values())),
        "pairs_by_degree": {str(k): v for k, v in sorted(tally.degrees.items())},
        "pairs_above_cutoff": int(tally.first.size),
        "unrelated": int(stays.sum()),
        "left_out": int((~stays).sum()),
    }
    few = panel.counts["variants"] < _FEW_VARIANTS
    notes = ("Fewer than 1,000 variants: degrees of relatedness overlap.",) if few else ()
    return StepResult(counts, summary=(*_summary(tally, stays.size, int(stays.sum()), config.cutoff), *notes))


class _Tally:
    """What is kept of the pairs while they pass by: those above the cut-off, counts by degree, points to draw."""

    max_points = 100_000

    def __init__(self, cutoff: float) -> None:
        self.cutoff = cutoff
        self.degrees: dict[int, int] = {}
        self._close: list[np.ndarray] = []
        self._points: list[np.ndarray] = []
        self._n_points = 0

    def watch(self, found: Iterable[KinshipPairs]) -> Iterator[KinshipPairs]:
        for pairs in found:
            names, counts = np.unique(degree_of(pairs.kinship), return_counts=True)
            for name, count in zip(names.tolist(), counts.tolist(), strict=True):
                self.degrees[name] = self.degrees.get(name, 0) + count
            related = pairs.kinship > self.cutoff
            if related.any():
                self._close.append(np.stack([pairs.first[related], pairs.second[related]]))
            room = self.max_points - self._n_points
            if room > 0:
                self._points.append(np.stack([pairs.kinship, pairs.ibs0])[:, :room])
                self._n_points += self._points[-1].shape[1]
            yield pairs

    @property
    def first(self) -> Int64[np.ndarray, " pairs"]:
        return np.concatenate([np.empty(0, dtype=np.int64), *(p[0] for p in self._close)])

    @property
    def second(self) -> Int64[np.ndarray, " pairs"]:
        return np.concatenate([np.empty(0, dtype=np.int64), *(p[1] for p in self._close)])

    @property
    def kinship(self) -> np.ndarray:
        return np.concatenate([np.empty(0), *(p[0] for p in self._points)])

    @property
    def ibs0(self) -> np.ndarray:
        return np.concatenate([np.empty(0), *(p[1] for p in self._points)])


def _summary(tally: _Tally, n_people: int, n_unrelated: int, cutoff: float) -> tuple[str, str]:
    names = ("duplicates or twins", "first", "second", "third degree")
    by_degree = ", ".join(f"{tally.degrees.get(k, 0):,} {name}" for k, name in enumerate(names))
    return (
        f"Pairs: {by_degree}",
        f"{n_unrelated:,} of {n_people:,} people have no kinship above {cutoff:g} among them",
    )


def _weight(source: GenotypeSource, prefer: Path | None, memory_bytes: int) -> Int64[np.ndarray, " samples"]:
    """Return whom to keep rather: the listed, then those with more calls."""
    n_variants = len(source.variants)
    called = n_variants - count_genotypes(source, memory_bytes=min(memory_bytes, 1 << 28)).sample_missing[:, 0]
    if prefer is not None:
        listed = keep_people(source.samples, (prefer,)).indices_of(source.samples) >= 0
        called = called + listed * (n_variants + 1) * 32  # outweighs the calls of a component
    return np.asarray(called, dtype=np.int64)


def _write_pairs(people: SampleIndex, found: Iterator[KinshipPairs], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pa.array(people.ids.tolist(), type=pa.string())
    fields = [("participant_1", pa.string()), ("participant_2", pa.string()), ("kinship", pa.float64())]
    fields += [("n_variants", pa.int64()), ("ibs0", pa.float64()), ("degree", pa.int64())]
    with pq.ParquetWriter(path, pa.schema(fields), compression="zstd") as writer:
        for pairs in found:
            columns = [
                names.take(pa.array(pairs.first)),
                names.take(pa.array(pairs.second)),
                *(pa.array(c) for c in (pairs.kinship, pairs.n_variants, pairs.ibs0, degree_of(pairs.kinship))),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=writer.schema))


def _estimate(config: GenotypesKinshipConfig, memory_bytes: int) -> Estimate:
    source = config.file.open()
    n, m = len(source.samples), len(source.variants)
    whole = table_bytes(m) + kinship_peak_bytes(n, n)
    return Estimate(min(whole, memory_bytes), 1 + 5e-12 * n * n * m)


GENOTYPES_KINSHIP = Step(
    "genotypes kinship", "Related pairs, and the largest set of unrelated people.", GenotypesKinshipConfig,
    genotypes_kinship, out="folder", estimate=_estimate,
)  # fmt: skip
