"""Whole-genome ridge regression on files: blocks and traits in resumable parts, predictions as tables.

Data flow::

    genotypes, traits --_predict_block (per block)--> ridge-D-B.npy      traits x penalties x people
    ridge-D-*.npy     --_stack_trait (per trait)-->   stack-D-T.bin      predictions without each chromosome
    stack-*.bin       --_write_tables-->              loco/CHROMOSOME.parquet, loco/whole.parquet, loco/traits.parquet
"""

import pickle
import shutil
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from numpy.lib import format as npy

from brainlocus.core import (
    Column,
    GenotypeSource,
    PhenotypeTable,
    ResultTable,
    SampleIndex,
    SchemaError,
    quantitative_table,
    select_genotypes,
)
from brainlocus.core.errors import FormatError, ResourceError
from brainlocus.core.text import text_array
from brainlocus.core.variants import AUTOSOMES, chromosome_rank
from brainlocus.genetics.genotypes import count_genotypes
from brainlocus.genetics.gwas import (
    RidgeBlock,
    RidgeDesign,
    RidgeSettings,
    assign_folds,
    block_peak_bytes,
    fit_block,
    prepare_ridge,
    ridge_blocks,
    stack_peak_bytes,
    stack_predictions,
)
from brainlocus.io import read_results, read_table, write_results, write_table
from brainlocus.numerics.packed import decode_packed, read_packed
from brainlocus.pipeline.genomes import require_memory
from brainlocus.pipeline.step import Context, Estimate

__all__ = ["Loco", "RidgeInputs", "fit_loco", "read_loco", "ridge_estimate", "ridge_variants"]

_PART_BYTES = 64 << 20
"""Predictions of a block that are held at once on their way to the file."""


@dataclass(frozen=True, slots=True, eq=False)
class RidgeInputs:
    """What is regressed on what."""

    source: GenotypeSource
    rows: Int[np.ndarray, " variants"]
    """Variants to regress on."""
    people: SampleIndex
    names: Sequence[str]
    traits: Float[np.ndarray, "samples traits"]
    """NaN where a person has none."""
    covariates: Float[np.ndarray, "samples covariates"]
    """Complete, without an intercept."""
    settings: RidgeSettings


@dataclass(frozen=True, slots=True)
class Loco:
    """Predictions of traits without one chromosome, a folder of tables."""

    folder: Path
    chromosomes: tuple[str, ...]
    """Those regressed on; variants elsewhere take the prediction of the whole genome."""
    traits: tuple[str, ...]
    """All that were asked for, those that could not be regressed included."""

    def offset(self, chromosome: str, names: Sequence[str]) -> PhenotypeTable:
        """Return what to take from the named traits before variants of a chromosome are tested; NaN without any."""
        file = chromosome if chromosome in self.chromosomes else "whole"
        table = read_table(self.folder / f"{file}.parquet", id_column="participant_id")
        blank = np.full(len(table.samples), np.nan)
        known = {column.name: column for column in table.columns}
        return PhenotypeTable(table.samples, tuple(known.get(name, Column(name, blank)) for name in names))


@dataclass(frozen=True, slots=True)
class _Work:
    """What all parts share."""

    source: GenotypeSource
    people: SampleIndex
    designs: tuple[RidgeDesign, ...]
    blocks: tuple[RidgeBlock, ...]
    settings: RidgeSettings

    @property
    def n_variants(self) -> int:
        return sum(block.rows.size for block in self.blocks)


@dataclass(frozen=True, slots=True)
class _BlockTask:
    work: Path
    design: int
    block: int


@dataclass(frozen=True, slots=True)
class _TraitTask:
    work: Path
    design: int
    trait: int


def ridge_variants(
    source: GenotypeSource,
    people: SampleIndex,
    chosen: Bool[np.ndarray, " variants"],
    *,
    min_maf: float,
    memory_bytes: int,
) -> Int[np.ndarray, " kept"]:
    """Return the rows of the autosomal variants among those chosen that are common among these people.

    Raises
    ------
    SchemaError
        None is left.
    """
    rows = np.flatnonzero(chosen & np.isin(source.variants.chromosome, AUTOSOMES))
    counted = count_genotypes(
        select_genotypes(source, samples=people, variants=rows), memory_bytes=min(memory_bytes // 4, 1 << 28)
    )
    frequency = np.nan_to_num(counted.effect_allele_frequency, nan=0.0)
    kept = np.asarray(rows[np.minimum(frequency, 1.0 - frequency) >= min_maf])
    if not kept.size:
        raise SchemaError(
            f"--method ridge: none of the {rows.size} autosomal variants chosen has a minor allele frequency of "
            f"{min_maf:g} or more among {len(people)} people. Lower --ridge-min-maf or check --ridge-variants."
        )
    return kept


def fit_loco(inputs: RidgeInputs, folder: Path, context: Context) -> tuple[Loco, dict[str, Any]]:
    """Regress all traits on the whole genome and write what it predicts of them without each chromosome.

    Returns
    -------
    Loco
        The tables written to `folder`.
    counts
        For the manifest.

    Raises
    ------
    ResourceError
        The memory, or the disk for the predictions of all blocks, does not suffice.
    SchemaError
        No trait can be regressed.
    """
    settings = inputs.settings
    folds = assign_folds(inputs.people, settings.folds, seed=context.seed)
    designs, skipped = prepare_ridge(inputs.traits, inputs.covariates, folds, names=inputs.names, settings=settings)
    if not designs:
        raise SchemaError(f"--method ridge: no trait can be regressed: {dict(skipped)}.")
    blocks = ridge_blocks(inputs.source.variants.chromosome, inputs.rows, settings.block_size)
    work = _Work(inputs.source, inputs.people, designs, blocks, settings)
    _check_memory(work, context)
    path = context.shards / "ridge.pickle"
    with path.open("wb") as stream:
        pickle.dump(work, stream)
    stacks = {
        f"stack-{d:03d}-{t:05d}.bin": _TraitTask(path, d, t)
        for d, design in enumerate(designs)
        for t in range(len(design.names))
    }
    if not all((context.shards / name).exists() for name in stacks):
        tasks = {_block_file(d, b): _BlockTask(path, d, b) for d in range(len(designs)) for b in range(len(blocks))}
        _check_disk(work, context, [name for name in tasks if not (context.shards / name).exists()])
        deque(context.map_shards(_predict_block, tasks, "Whole genome, blocks"), maxlen=0)
    done = list(context.map_shards(_stack_trait, stacks, "Whole genome, traits"))
    for name in context.shards.glob("ridge-*.npy"):
        name.unlink()
    loco, table = _write_tables(work, inputs.names, skipped, done, folder)
    _load.cache_clear()
    counts = {
        "variants": work.n_variants,
        "blocks": len(blocks),
        "chromosomes": len(loco.chromosomes),
        "people": len(inputs.people),
        "sets_of_people": len(designs),
        "traits_skipped": dict(skipped),
        "mean_cv_r2": float(np.nanmean(table["cv_r2"])),
    }
    return loco, counts


def read_loco(folder: Path, names: Sequence[str]) -> Loco:
    """Return the predictions of an earlier run.

    Raises
    ------
    FormatError
        Not such a folder.
    SchemaError
        A trait is not in it.
    """
    if not (folder / "whole.parquet").is_file() or not (folder / "traits.parquet").is_file():
        raise FormatError(f"{folder}: expected the folder loco/ of gwas run --method ridge, with whole.parquet.")
    table = read_results(folder / "traits.parquet")
    known = tuple(table["trait"].tolist())
    absent = [name for name in names if name not in known]
    if absent:
        raise SchemaError(
            f"{folder}: there are no predictions of {', '.join(absent[:5])}; it has {', '.join(known[:8])}. "
            "Choose --columns among them, or leave out --loco."
        )
    chromosomes = np.array(
        [p.stem for p in folder.glob("*.parquet") if p.stem not in ("whole", "traits")], dtype=np.str_
    )
    return Loco(folder, tuple(chromosomes[np.argsort(chromosome_rank(chromosomes), kind="stable")].tolist()), known)


def ridge_estimate(n_samples: int, n_variants: int, n_traits: int, settings: RidgeSettings) -> Estimate:
    """Return what one worker needs and the seconds of one core, from the flop of `brainlocus.genetics.gwas.ridge`.

    At 90 Gflop/s of float32 products and 40 of float64 factors, as measured on a current core.
    """
    n, m, q, size = n_samples, n_variants, n_traits, min(settings.block_size, n_variants)
    models = settings.folds * len(settings.heritabilities)
    n_columns = len(settings.heritabilities) * max(1, m // max(size, 1))
    products = n * m * size + 2.0 * n * m * q * (1 + len(settings.heritabilities)) + q * n * n_columns**2
    factors = models / 3.0 * (m * size**2 + q * n_columns**3)
    level0 = block_peak_bytes(n, size, q, settings) + 2 * min(_PART_BYTES, 20 * n * q)
    level1 = 4 * n * n_columns + stack_peak_bytes(n, n_columns, settings)
    return Estimate(max(level0, level1), products / 9e10 + factors / 4e10)


def _block_file(design: int, block: int) -> str:
    return f"ridge-{design:03d}-{block:05d}.npy"


def _check_memory(work: _Work, context: Context) -> None:
    """Refuse when the largest block or the largest stack of any worker does not fit."""
    workers, everyone = context.executor.workers, len(work.source.samples)
    size = max(block.rows.size for block in work.blocks)
    n_columns = len(work.blocks) * len(work.settings.heritabilities)
    fixed, per_worker = 0, 0
    for design in work.designs:
        n, q = design.people.size, len(design.names)
        fixed += 2 * (design.traits.nbytes + design.observed.nbytes + design.basis.nbytes)
        one_trait = 4 * n * len(work.settings.heritabilities)
        part = min(max(_PART_BYTES, one_trait), q * one_trait)
        level0 = block_peak_bytes(n, size, q, work.settings) + 2 * part + size * everyone
        level1 = 4 * n * n_columns + stack_peak_bytes(n, n_columns, work.settings)
        per_worker = max(per_worker, level0, level1)
    what = f"Ridge regression on {len(work.blocks)} blocks of up to {size} variants by {workers} workers"
    require_memory(fixed + workers * per_worker, context.memory_bytes, f"{what} (fewer --threads need less)")


def _check_disk(work: _Work, context: Context, missing: list[str]) -> None:
    sizes = [4 * d.people.size * len(d.names) * len(work.settings.heritabilities) for d in work.designs]
    needed = sum(sizes[int(name.split("-")[1])] for name in missing)
    free = shutil.disk_usage(context.shards).free
    if needed > free:
        raise ResourceError(
            f"The predictions of {len(work.blocks)} blocks take {needed / 2**30:.1f} GiB beside the results, "
            f"{free / 2**30:.1f} GiB are free at {context.shards}. Give fewer traits at a time (--columns), fewer "
            "variants (--ridge-variants), or another place for --out."
        )


@lru_cache(maxsize=1)
def _load(path: Path, stamp: int) -> _Work:  # noqa: ARG001
    with path.open("rb") as stream:
        work: _Work = pickle.load(stream)  # our own file, written by this run
    return work


def _predict_block(task: _BlockTask, path: Path) -> None:
    """Write what a block predicts of every trait, a few traits at a time."""
    work = _load(task.work, task.work.stat().st_mtime_ns)
    design, block, settings = work.designs[task.design], work.blocks[task.block], work.settings
    people = work.people.take(design.people)
    model = fit_block(design, _dosage(work.source, people, block.rows), work.n_variants, settings)
    shape = (len(design.names), len(settings.heritabilities), design.people.size)
    step = max(1, _PART_BYTES // (4 * shape[1] * shape[2]))
    with path.open("wb") as stream:
        header = {"descr": npy.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(stream, header)
        for first in range(0, shape[0], step):
            stream.write(np.ascontiguousarray(model.predict(slice(first, first + step))).data)


def _dosage(
    source: GenotypeSource, people: SampleIndex, rows: Int[np.ndarray, " block"]
) -> Float32[np.ndarray, "block samples"]:
    chosen = select_genotypes(source, samples=people, variants=rows)
    packed = read_packed(chosen, 0, rows.size)
    return chosen.read(0, rows.size).dosage if packed is None else decode_packed(packed.codes, packed.n_samples)


def _stack_trait(task: _TraitTask, path: Path) -> None:
    """Write the predictions of one trait: chosen h and r2, then one row of people per chromosome and for all."""
    work = _load(task.work, task.work.stat().st_mtime_ns)
    design, settings = work.designs[task.design], work.settings
    n_penalties = len(settings.heritabilities)
    columns = np.empty((len(work.blocks) * n_penalties, design.people.size), dtype=np.float32)
    for b in range(len(work.blocks)):
        stored = np.load(task.work.parent / _block_file(task.design, b), mmap_mode="r")
        columns[b * n_penalties : (b + 1) * n_penalties] = stored[task.trait]
    where = np.repeat([block.chromosome for block in work.blocks], n_penalties)
    fit = stack_predictions(design, task.trait, columns, where, len(work.people), settings)
    with path.open("wb") as stream:
        stream.write(np.array([fit.heritability, fit.r2]).tobytes())
        stream.write(np.vstack([fit.loco, fit.whole[None, :]]).astype(np.float32).tobytes())


def _write_tables(
    work: _Work,
    names: Sequence[str],
    skipped: Sequence[tuple[str, str]],
    files: Sequence[Path],
    folder: Path,
) -> tuple[Loco, ResultTable]:
    """Write one table of people x traits per chromosome, one for all, and what was found of each trait."""
    folder.mkdir(parents=True, exist_ok=True)
    n = len(work.people)
    order = [name for design in work.designs for name in design.names]
    place = {name: k for k, name in enumerate(order)}
    traits = [name for name in names if name in place]
    chromosomes = tuple(dict.fromkeys(block.chromosome for block in work.blocks))
    for row, chromosome in enumerate((*chromosomes, "whole")):
        values = np.empty((n, len(traits)), dtype=np.float64)
        for k, name in enumerate(traits):
            values[:, k] = np.fromfile(files[place[name]], dtype=np.float32, count=n, offset=16 + 4 * n * row)
        write_table(quantitative_table(work.people, traits, values), folder / f"{chromosome}.parquet")
    found = np.array([np.fromfile(file, dtype=np.float64, count=2) for file in files])
    n_observed = {
        name: int(count)
        for design in work.designs
        for name, count in zip(design.names, design.observed.sum(axis=0), strict=True)
    }
    reasons = dict(skipped)
    table = ResultTable(
        {
            "trait": text_array(list(names)),
            "n": np.array([n_observed.get(name, 0) for name in names], dtype=np.int64),
            "ridge_h": np.array([found[place[name], 0] if name in place else np.nan for name in names]),
            "cv_r2": np.array([found[place[name], 1] if name in place else np.nan for name in names]),
            "reason": text_array([reasons.get(name, "") for name in names]),
        }
    )
    write_results(table, folder / "traits.parquet")
    return Loco(folder, chromosomes, tuple(names)), table
