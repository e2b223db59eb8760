"""``genotypes convert``: any genotypes to BED, PGEN or BGEN, streamed, with a table of what the variants are like."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Int64, Shaped
from pydantic import BeforeValidator, Field

from brainlocus.core import GenotypeSource, ResultTable, SchemaError, VariantTable
from brainlocus.core.genotypes import ProbabilityBlock
from brainlocus.core.text import text_array
from brainlocus.io import BedSource, BedWriter, BgenWriter, PgenSource, PgenWriter, write_results
from brainlocus.io.blockwriter import BlockWriter
from brainlocus.numerics.imputation import impute_info, mach_r2, read_probabilities
from brainlocus.pipeline.filters import ChosenGenotypes, GenotypeInput, choose_genotypes
from brainlocus.pipeline.genomes import require_memory, table_bytes
from brainlocus.pipeline.step import Context, Estimate, Step, StepResult

__all__ = ["GENOTYPES_CONVERT", "GenotypesConvertConfig"]


def _whole(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdigit() else value


class GenotypesConvertConfig(GenotypeInput):
    """Settings of ``genotypes convert``."""

    hard_calls: float | None = Field(
        None,
        gt=0,
        lt=0.5,
        description="Make calls of dosages this near to 0, 1 or 2, leave the others missing (PLINK: 0.1); .bed needs "
        "it where there are dosages",
    )
    bits: Annotated[Literal[8, 16], BeforeValidator(_whole)] = Field(8, description="Bits of a probability in .bgen")
    compression: Literal["zlib", "zstd"] = Field("zlib", description="Compression of .bgen; not all programs read zstd")


_FEWEST, _MOST = 16, 1024
"""Variants read at a time."""
_COPIES = 4
"""Times that a block is held while its statistics are computed and it is written."""


@dataclass(frozen=True, slots=True, eq=False)
class _Quality:
    """What is known of some variants."""

    n: Int64[np.ndarray, " variants"]
    frequency: Float[np.ndarray, " variants"]
    info: Float[np.ndarray, " variants"]
    method: Shaped[np.ndarray, " variants"]


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Variants as they are written."""

    dosage: Float32[np.ndarray, "variants samples"]
    probabilities: ProbabilityBlock | None
    quality: _Quality


def genotypes_convert(config: GenotypesConvertConfig, out: Path, context: Context) -> StepResult:
    """Write the chosen people and variants in another format, and a table of the variants beside it."""
    asked = choose_genotypes(config)
    source = asked.selected()
    n_people, n_variants = len(source.samples), len(source.variants)
    if not n_variants:
        raise SchemaError(f"{config.genotypes}: no variant is left to be written; check --variants and --regions.")
    size, threads = _plan(asked, source, context)
    parts: list[_Quality] = []
    with _writer(config, out, asked, source) as writer:
        blocks = context.progress.track(
            _read_ahead(source, config.hard_calls, size, threads), "Converting", -(-n_variants // size)
        )
        for block in blocks:
            if isinstance(writer, BgenWriter) and block.probabilities is not None:
                writer.append_probabilities(block.probabilities.one, block.probabilities.two)
            else:
                writer.append(block.dosage)
            parts.append(block.quality)
    table = _variant_table(source.variants, parts, n_people)
    write_results(table, out.with_suffix(".variants.parquet"))
    counts = {**asked.counts, "people": n_people, "variants": n_variants, **_summary(table)}
    line = f"{n_people:,} people and {n_variants:,} variants written"
    return StepResult(counts, summary=(line, *_notes(config, out, asked)))


def _plan(asked: ChosenGenotypes, source: GenotypeSource, context: Context) -> tuple[int, int]:
    """Return how many variants are read at a time, and by how many threads, within the memory given."""
    everyone, kept = len(asked.source.samples), len(source.samples)
    per_variant = 8 * everyone * 2 + 4 * _COPIES * kept
    fixed = table_bytes(len(asked.source.variants)) + 200 * len(source.variants)
    threads = context.threads
    while threads > 1 and fixed + (threads + 2) * _FEWEST * per_variant > context.memory_bytes:
        threads -= 1
    needed = fixed + (threads + 2) * _FEWEST * per_variant
    require_memory(needed, context.memory_bytes, f"Converting {len(source.variants)} variants of {everyone} people")
    size = (min(context.memory_bytes, fixed + (1 << 30)) - fixed) // ((threads + 2) * per_variant)
    return int(np.clip(size, _FEWEST, _MOST)), threads


def _writer(config: GenotypesConvertConfig, out: Path, asked: ChosenGenotypes, source: GenotypeSource) -> BlockWriter:
    rows = asked.source.samples.indices_of(source.samples)
    sex = asked.source.pedigree.sex[rows]
    prefix = out.with_suffix("")
    if out.suffix == ".bed":
        return BedWriter(prefix, source.samples, source.variants, sex)
    if out.suffix == ".pgen":
        dosages = config.hard_calls is None and _may_have_dosages(asked)
        return PgenWriter(prefix, source.samples, source.variants, sex, dosages=dosages)
    return BgenWriter(prefix, source.samples, source.variants, sex, bits=config.bits, compression=config.compression)


def _may_have_dosages(asked: ChosenGenotypes) -> bool:
    if isinstance(asked.source, PgenSource):
        return bool(asked.source.has_dosage[asked.variants].any())
    return not isinstance(asked.source, BedSource)


def _read_ahead(source: GenotypeSource, hard_calls: float | None, size: int, threads: int) -> Iterator[_Block]:
    """Yield all blocks in order, read and counted by threads that are a few blocks ahead."""
    starts = range(0, len(source.variants), size)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_Block]] = deque()
        for start in starts:
            waiting.append(pool.submit(_block, source, start, min(start + size, len(source.variants)), hard_calls))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _block(source: GenotypeSource, start: int, stop: int, hard_calls: float | None) -> _Block:
    known = read_probabilities(source, start, stop)
    if known is not None:
        dosage = np.clip(known.one + 2 * known.two, 0, 2)
        info = impute_info(known.one, known.two)
        method = text_array(["IMPUTE"] * (stop - start))
    else:
        dosage = source.read(start, stop).dosage
        whole = (np.isnan(dosage) | (dosage == np.rint(dosage))).all(axis=1)
        info = np.where(whole, np.nan, mach_r2(dosage))
        method = text_array(np.where(whole, "", "MaCH r2"))
    if hard_calls is not None:
        nearest = np.rint(dosage)
        dosage = np.where(np.abs(dosage - nearest) <= hard_calls, nearest, np.float32(np.nan))
        known = None
    n = np.count_nonzero(~np.isnan(dosage), axis=1).astype(np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        frequency = np.nansum(dosage, axis=1, dtype=np.float64) / (2 * n)
    return _Block(dosage, known, _Quality(n, frequency, info, method))


def _variant_table(variants: VariantTable, parts: list[_Quality], n_people: int) -> ResultTable:
    names = ("chromosome", "position", "variant_id", "effect_allele", "other_allele")
    n = np.concatenate([part.n for part in parts])
    columns: dict[str, Any] = {name: getattr(variants, name) for name in names}
    columns |= {
        "effect_allele_frequency": np.concatenate([part.frequency for part in parts]),
        "missing_rate": (n_people - n) / n_people,
        "n": n,
        "info": np.concatenate([part.info for part in parts]),
        "info_method": np.concatenate([part.method for part in parts]),
    }
    return ResultTable(columns)


def _summary(table: ResultTable) -> dict[str, Any]:
    """Return means over the variants for the manifest."""
    methods, sizes = np.unique(np.array(table["info_method"].tolist(), dtype=np.str_), return_counts=True)
    info = table["info"][np.isfinite(table["info"])]
    return {
        "mean_missing_rate": float(table["missing_rate"].mean()),
        "info_method": {str(m) or "hard calls": int(k) for m, k in zip(methods, sizes, strict=True)},
        **({"mean_info": float(info.mean())} if info.size else {}),
    }


def _notes(config: GenotypesConvertConfig, out: Path, asked: ChosenGenotypes) -> list[str]:
    notes = []
    if asked.counts.get("variants_not_readable"):
        left_out = ", ".join(f"{k:,} {name}" for name, k in asked.counts["variants_not_readable"].items())
        notes.append(f"Left out of {config.genotypes.name}: {left_out.replace('_', ' ')}")
    known = read_probabilities(asked.source, 0, 0) is not None
    if out.suffix == ".bgen" and config.hard_calls is None and not known and _may_have_dosages(asked):
        notes.append(
            "Dosages do not say how sure a genotype is: in .bgen they are the two genotypes around them, and INFO "
            "computed from that file is too high. Use the table's."
        )
    if out.suffix == ".pgen" and known:
        notes.append("PGEN keeps dosages, no probabilities: INFO stands in the table only.")
    return notes


def _estimate(config: GenotypesConvertConfig, memory_bytes: int) -> Estimate:
    asked = choose_genotypes(config)
    n, m = len(asked.source.samples), int(asked.variants.sum())
    return Estimate(min(memory_bytes, table_bytes(len(asked.source.variants)) + (1 << 30)), 6e-9 * n * m)


GENOTYPES_CONVERT = Step(
    "genotypes convert", "Write genotypes in another format, or some of them.", GenotypesConvertConfig,
    genotypes_convert, out="genotypes", estimate=_estimate,
)  # fmt: skip
