"""``associate voxelwise``: maps of people in one space against many targets, voxel by voxel."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count as count_from
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float32, Int
from pydantic import Field

from brainlocus.cohort.associate import (
    VoxelwiseDesign,
    VoxelwiseSums,
    add_voxelwise,
    find_peaks,
    finish_voxelwise,
    prepare_voxelwise,
    start_voxelwise,
    voxels_at_once,
    voxelwise_bytes,
)
from brainlocus.core import (
    Grid,
    PhenotypeTable,
    ResultTable,
    SchemaError,
    Volume,
    check_same_grid,
    concat_results,
    shared_samples,
)
from brainlocus.core.text import text_array
from brainlocus.io import ImageList, find_images, read_grid, read_mask, write_derivative, write_results
from brainlocus.numerics import benjamini_hochberg_q, design_from_formula
from brainlocus.pipeline.config import CommaList, InputPath, Positional, StepConfig
from brainlocus.pipeline.figures.canvas import save_figure
from brainlocus.pipeline.figures.slices import mosaic
from brainlocus.pipeline.genomes import require_memory
from brainlocus.pipeline.image_voxels import READ_BYTES, gather_rows, image_tasks, read_images, save_voxels
from brainlocus.pipeline.people import batch_labels, choose_traits, formula_columns, outlier_mads, read_people
from brainlocus.pipeline.step import Context, Step, StepResult
from brainlocus.pipeline.voxel_store import ScoreTask, VoxelStore, open_or_write_store, read_scores, score_bytes
from brainlocus.pipeline.voxelwise_permutation import Permutations, permutations_bytes, permute_targets

__all__ = ["ASSOCIATE_VOXELWISE", "AssociateVoxelwiseConfig"]

_BATCH = 16
"""Images of a task of reading."""
_BATCHES = (128, 64, 16)
"""Images of a product, as many as the memory allows: sums are read and written once for each."""
_FEWEST_VOXELS = 4096
_WRITE_BYTES = 40
"""Bytes a voxel of the grid that writing and drawing one map, and finding its peaks, takes."""
_COUNT_BYTES = 120
"""Bytes a voxel of the mask that the maps of one target and their q-values take."""
_MANY_ZEROS = 0.01
_MANY_OUTLIERS = 0.02
_PEOPLE = 2048
"""People whose products are added at once when all people of some voxels are at hand."""
_ALPHA = 0.05
_MAPS = ("r", "beta", "standard_error", "t", "neg_log10_p", "n")
_PEAKS = 20


class AssociateVoxelwiseConfig(StepConfig):
    """Settings of ``associate voxelwise``."""

    images: Annotated[InputPath, Positional()] = Field(
        description="Maps on one grid: a BIDS folder, a table with participant_id and path, or a list of paths"
    )
    targets: InputPath = Field(description="Table of what the maps are regressed on, one target a column")
    mask: InputPath = Field(description="Voxels to test")
    columns: CommaList = Field((), description="Targets, names or patterns; every numeric column by default")
    covariates: str = Field("", description="Formula of covariates: 'age + sex + C(site)'")
    participants: InputPath | None = Field(None, description="Table with the covariates; TARGETS by default")
    pattern: str = Field("sub-*/**/*_space-*.nii*", description="Which files of a folder are images")
    zeros: Literal["missing", "value"] = Field("value", description="Whether voxels of exactly 0 have no value")
    outliers: str = Field("none", description="mad:K removes values of a voxel beyond K unscaled MADs, such as mad:6")
    normalise: Literal["rank", "none"] = Field("none", description="Normal scores of each voxel, over all images")
    store: Path | None = Field(
        None,
        description="Folder to keep the voxels of all images in, or to take them from, for --outliers, --normalise",
    )
    min_share: float = Field(0.5, gt=0, le=1, description="Share of a target's people that a voxel needs")
    min_people: int = Field(10, ge=3, description="People that a target and a voxel need")
    precision: Literal["double", "single"] = Field(
        "double", description="Of products with the images; single is a little faster with many targets"
    )
    permutations: int = Field(0, ge=0, description="Permutations for family-wise error, 5000 to publish; 0: none")
    tfce: bool = Field(False, description="Also enhance clusters (TFCE) and permute the enhanced maps")
    tail: bool = Field(True, description="Family-wise p below 10 / permutations from a fitted tail")
    blocks: str | None = Field(None, description="Column of exchangeability blocks, such as site or family")
    block_mode: Literal["within", "whole"] = Field(
        "within", description="Permute people within blocks, or whole blocks of the same size"
    )
    figures: int = Field(12, ge=0, description="Targets that are drawn, those with the largest |t| first")


@dataclass(frozen=True, slots=True, eq=False)
class _Study:
    """What is tested: images and targets of the same people, in the order of the images."""

    images: ImageList
    names: tuple[str, ...]
    design: VoxelwiseDesign
    grid: Grid
    voxels: Int[np.ndarray, " voxels"]
    permutations: Permutations | None
    every: ImageList
    """All images that were given: values are normalised over them."""
    rows: Int[np.ndarray, " people"]
    """Where the images are among all."""
    mads: float | None
    rank: bool
    counts: dict[str, Any]

    @property
    def scored(self) -> bool:
        """Whether all values of a voxel are needed at once."""
        return self.rank or self.mads is not None


def _study(config: AssociateVoxelwiseConfig) -> _Study:
    """Read tables and lists, and leave out images of people with no target or without a covariate."""
    mads = outlier_mads(config.outliers)
    if config.store is not None and mads is None and config.normalise == "none":
        raise SchemaError(
            "--store goes with --outliers or --normalise: the images are read once and not kept otherwise."
        )
    images = find_images(config.images, pattern=config.pattern)
    targets = read_people(config.targets)
    people = targets if config.participants is None else read_people(config.participants)
    shared = shared_samples(
        images.samples, targets.samples, people.samples, names=("the images", "the targets", "the covariates")
    )
    used = formula_columns(config.covariates)
    names = choose_traits(targets, config.columns, besides=used, option="--columns")
    _folders(names)
    counts: dict[str, Any] = {
        "participants_images": len(images),
        "participants_targets": len(targets.samples),
        "participants": len(shared),
        "text_columns_left_out": [] if config.columns else _text(targets, used),
    }
    covariates = design_from_formula(config.covariates, people.take(shared))
    matrix = targets.take(shared).matrix(names)
    needed = covariates.complete & ~np.isnan(matrix).all(axis=1)
    counts["people_without_covariates"] = int((~covariates.complete).sum())
    counts["images_read"] = int(needed.sum())
    if not needed.any():
        raise SchemaError(f"None of the {len(shared)} people with an image has a target and all covariates.")
    design = prepare_voxelwise(
        matrix[needed],
        covariates=covariates.matrix[needed],
        covariate_names=covariates.names,
        min_share=config.min_share,
        min_people=config.min_people,
        precision=config.precision,
    )
    counts["covariates"] = list(covariates.names)
    counts["dropped_covariates"] = list(design.dropped)
    kept = shared.take(np.flatnonzero(needed))
    at = images.samples.indices_of(kept)
    chosen = ImageList(kept, tuple(images.paths[k] for k in at))
    grid = read_grid(chosen.paths[0])
    mask = read_mask(config.mask)
    check_same_grid(mask.grid, grid, what=str(config.mask))
    plan = _permutations(config, people.take(kept))
    return _Study(
        images=chosen,
        names=tuple(names),
        design=design,
        grid=grid,
        voxels=np.flatnonzero(mask.data),
        permutations=plan,
        every=images,
        rows=at,
        mads=mads,
        rank=config.normalise == "rank",
        counts=counts,
    )


def _permutations(config: AssociateVoxelwiseConfig, people: PhenotypeTable) -> Permutations | None:
    if not config.permutations:
        if config.tfce or config.blocks:
            raise SchemaError("--tfce and --blocks go with --permutations; give their number, such as 5000.")
        return None
    blocks = None if config.blocks is None else batch_labels(people, config.blocks)
    if blocks is not None and (blocks == "").any():
        raise SchemaError(
            f"--blocks {config.blocks}: {int((blocks == '').sum())} of {blocks.size} people have none. Fill it in, or "
            "leave them out."
        )
    return Permutations(config.permutations, config.tfce, config.tail, blocks, config.block_mode)


def _text(targets: PhenotypeTable, used: set[str]) -> list[str]:
    return [c.name for c in targets.columns if c.kind == "categorical" and c.name not in used]


def _folders(names: Sequence[str]) -> list[str]:
    """Return a folder name for each target.

    Raises
    ------
    SchemaError
        Two targets have the same.
    """
    folders = [re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip(".-") or "target" for name in names]
    seen: dict[str, str] = {}
    for folder, name in zip(folders, names, strict=True):
        other = seen.setdefault(folder.lower(), name)
        if other != name:
            raise SchemaError(f"Targets {other!r} and {name!r} would both be written to {folder}/; rename one of them.")
    return folders


@dataclass(frozen=True, slots=True)
class _Pass:
    """What one reading of all images takes, within the memory."""

    voxels: int
    slots: int
    """Voxels that somebody may lack."""
    batch: int
    """Images of a product."""


def _plan(study: _Study, context: Context) -> _Pass:
    """Return the plan of a pass.

    Raises
    ------
    ResourceError
        Not even a few thousand voxels fit.
    """
    waiting = 4 * _BATCH * (2 * context.executor.workers + 1)
    most = min(_BATCHES[0], max(len(study.images), _BATCHES[-1]))
    fixed = _fixed_bytes(study, context)

    def needed(size: int, slots: int, batch: int) -> int:
        gathered = 4 * batch if batch > _BATCH else 0
        return fixed + voxelwise_bytes(study.design, size, slots=slots, batch=batch) + size * (waiting + gathered)

    size = study.voxels.size
    while True:
        for share in (1, 4, 16):
            slots = max(-(-size // share), min(size, _FEWEST_VOXELS // 4))
            for batch in (min(b, most) for b in _BATCHES):
                if needed(size, slots, batch) <= context.memory_bytes:
                    return _Pass(size, slots, batch)
        if size <= _FEWEST_VOXELS:
            what = f"Testing {len(study.names)} targets in {study.voxels.size} voxels"
            require_memory(needed(size, slots, _BATCH), context.memory_bytes, what)
        size = -(-size // 2)


def associate_voxelwise(config: AssociateVoxelwiseConfig, out: Path, context: Context) -> StepResult:
    """Stream the images through the sums, then write the maps target by target."""
    study = _study(config)
    context.shards.mkdir(parents=True, exist_ok=True)
    shape = (len(study.names), len(_MAPS), study.voxels.size)
    spool = np.lib.format.open_memmap(context.shards / "maps.npy", mode="w+", dtype=np.float32, shape=shape)
    kept = None
    if study.permutations is not None:
        kept = np.lib.format.open_memmap(
            context.shards / "images.npy", mode="w+", dtype=np.float32, shape=(len(study.images), shape[2])
        )
    tested = (
        _by_chunks(config, study, context, spool, kept)
        if study.scored
        else _by_passes(config, study, context, spool, kept)
    )
    family = {}
    if kept is not None and study.permutations is not None:
        family = _permute(config, study, out, spool, kept, study.permutations, context)
    table = _write(config, study, out, spool, context, family)
    return _result(study, table, tested)


@dataclass(frozen=True, slots=True)
class _Tested:
    """What was read."""

    counts: dict[str, Any]
    zeros: int
    text: tuple[str, ...] = ()


def _by_passes(
    config: AssociateVoxelwiseConfig, study: _Study, context: Context, spool: np.ndarray, kept: np.ndarray | None
) -> _Tested:
    """Test values as they are: sums over images as they come, as many voxels at a time as the memory allows."""
    plan = _plan(study, context)
    n_voxels = study.voxels.size
    waiting = [np.arange(k, min(k + plan.voxels, n_voxels)) for k in range(0, n_voxels, plan.voxels)]
    zeros, passes, ranges = 0, 0, len(waiting)
    for number in count_from(1):
        if not waiting or not study.design.groups:
            break
        chosen, passes = waiting.pop(0), number
        sums, found = _one_pass(config, study, context, chosen, plan, number, kept if number <= ranges else None)
        zeros += found if number <= ranges else 0
        _spool(study, sums, chosen, spool)
        if sums.deferred.any():
            waiting.append(chosen[sums.deferred])
        del sums
    return _Tested({"passes": passes}, zeros)


def _by_chunks(
    config: AssociateVoxelwiseConfig, study: _Study, context: Context, spool: np.ndarray, kept: np.ndarray | None
) -> _Tested:
    """Test scores: all people of some voxels at a time, from a store that is written first or was before."""
    grid = int(np.prod(study.grid.shape))
    store, reused = open_or_write_store(
        study.every, study.voxels, grid, config.store, zeros=config.zeros, context=context
    )
    _require_chunk_memory(study, context, store)
    people = len(study.images)
    tasks = [ScoreTask(store, chunk, study.mads, study.rank) for chunk in range(store.chunks)]
    outliers = values = zero_mad = skewed = 0
    scored = context.progress.track(context.executor.map(read_scores, tasks), "Testing voxels", len(tasks))
    for chunk, found in enumerate(scored):
        places = store.voxels_of(chunk)
        everyone = study.rows.size == store.people and bool((study.rows == np.arange(people)).all())
        chosen = found.values if everyone else found.values[study.rows]
        if study.design.groups:
            sums = start_voxelwise(study.design, places.size)
            for start in range(0, people, _PEOPLE):
                part = np.arange(start, min(start + _PEOPLE, people))
                add_voxelwise(sums, chosen[part[0] : part[-1] + 1], part)
            _spool(study, sums, places, spool)
        if kept is not None:
            kept[:, places[0] : places[-1] + 1] = chosen
        outliers += int(found.n_outliers.sum())
        values += int(found.n_values.sum())
        zero_mad += found.n_zero_mad
        skewed += int((found.n_outliers > _MANY_OUTLIERS * found.n_values).sum())
    counts = {
        "store": "reused" if reused else "written", "people_normalised_over": store.people, "values": values,
        "outliers": outliers, "voxels_with_zero_mad": zero_mad, "voxels_with_many_outliers": skewed,
    }  # fmt: skip
    text = [
        f"{outliers} outliers removed of {values} values; {zero_mad} voxels with more than half of the values equal"
    ]
    if skewed > _MANY_OUTLIERS * study.voxels.size:
        text.append(
            f"The outlier rule removes more than 2 % of the people in {skewed} voxels: values are skewed; transform "
            "them first, or use --outliers none."
        )
    return _Tested(counts, store.n_zeros, tuple(text))


def _require_chunk_memory(study: _Study, context: Context, store: VoxelStore) -> None:
    """Check that testing a chunk fits in the memory.

    Raises
    ------
    ResourceError
        It does not.
    """
    needed = (
        score_bytes(store, context.executor.workers) + 8 * store.people * store.width + _fixed_bytes(study, context)
    )
    needed += voxelwise_bytes(study.design, store.width, slots=store.width, batch=min(_PEOPLE, len(study.images)))
    what = f"Testing {len(study.names)} targets in chunks of {store.width} voxels of {store.people} people"
    require_memory(needed, context.memory_bytes, what)


def _fixed_bytes(study: _Study, context: Context) -> int:
    """Return the memory of the design, of lists of voxels, and of reading and writing one map; checks permutations.

    Raises
    ------
    ResourceError
        Permuting does not fit.
    """
    grid = int(np.prod(study.grid.shape))
    fixed = study.voxels.size * (8 + _COUNT_BYTES) + grid * (READ_BYTES * context.executor.workers + _WRITE_BYTES)
    fixed += 16 * len(study.images) * (study.design.n_moments + len(study.names))
    if study.permutations is not None:
        plan, groups = study.permutations, study.design.groups
        permuting = fixed + permutations_bytes(groups, study.voxels.size, tfce=plan.tfce)
        require_memory(permuting, context.memory_bytes, f"Permuting {study.voxels.size} voxels")
    return fixed


def _permute(
    config: AssociateVoxelwiseConfig,
    study: _Study,
    out: Path,
    spool: np.ndarray,
    images: np.ndarray,
    plan: Permutations,
    context: Context,
) -> dict[int, dict[str, int]]:
    """Write the family-wise maps of every target and the null; return what the table of targets says of them."""
    folders = _folders(study.names)
    t = spool[:, _MAPS.index("t")]
    rows: dict[int, dict[str, int]] = {}
    nulls = []
    for number, group in enumerate(study.design.groups):
        for k, found in permute_targets(group, number, images, t, (study.grid, study.voxels), plan, context):
            maps = {
                "neg_log10_p_fwe": found.neg_log10_p,
                "tfce": found.tfce,
                "neg_log10_p_fwe_tfce": found.neg_log10_p_tfce,
            }
            rows[k] = {"n_permuted": found.n_permuted}
            if not found.n_permuted:
                continue
            sidecar = _sidecar(config, study, k) | {"Permutations": plan.count, "Blocks": config.blocks or ""}
            for name, values in maps.items():
                if values is not None:
                    write_derivative(_volume(study, name, values), out / folders[k] / f"{name}.nii.gz", sidecar)
            limit = -np.log10(_ALPHA)
            rows[k]["n_fwe"] = int((found.neg_log10_p > limit).sum())
            if found.neg_log10_p_tfce is not None:
                rows[k]["n_fwe_tfce"] = int((found.neg_log10_p_tfce > limit).sum())
            columns = {
                "target": text_array([study.names[k]] * plan.count), "permutation": np.arange(1, plan.count + 1),
                "max_abs_t": found.max_abs_t, "max_tfce": found.max_tfce,
            }  # fmt: skip
            nulls.append(ResultTable(columns))
    if nulls:
        write_results(concat_results(nulls), out / "null.parquet")
    return rows


def _one_pass(
    config: AssociateVoxelwiseConfig,
    study: _Study,
    context: Context,
    chosen: Int[np.ndarray, " chosen"],
    plan: _Pass,
    number: int,
    kept: np.ndarray | None,
) -> tuple[VoxelwiseSums, int]:
    """Return the sums of some voxels over all images, and how many values were exactly 0."""
    path = context.shards / f"voxels-{number}.npy"
    save_voxels(study.voxels[chosen], path)
    tasks = image_tasks(
        study.images.paths, path, (0, chosen.size), batch=_BATCH, zeros_missing=config.zeros == "missing"
    )
    sums = start_voxelwise(study.design, chosen.size, slots=plan.slots)
    name = "Reading images" if number == 1 else f"Reading images, pass {number}"
    first = zeros = 0
    blocks = context.progress.track(context.executor.map(read_images, tasks), name, len(tasks))
    for block in gather_rows(blocks, plan.batch):
        add_voxelwise(sums, block, np.arange(first, first + block.shape[0]))
        if kept is not None:
            kept[first : first + block.shape[0], chosen[0] : chosen[-1] + 1] = block
        first += block.shape[0]
        zeros += int(block.size - np.count_nonzero(block))
    return sums, zeros


def _spool(study: _Study, sums: VoxelwiseSums, chosen: Int[np.ndarray, " chosen"], spool: np.ndarray) -> None:
    """Put the estimates of a pass where those of each target lie together."""
    for k, group in enumerate(study.design.groups):
        step = voxels_at_once(group)
        for start in range(0, chosen.size, step):
            part = slice(start, min(start + step, chosen.size))
            maps = finish_voxelwise(sums, k, part)
            for at, target in enumerate(group.members):
                for row, name in enumerate(_MAPS):
                    spool[target, row, chosen[part]] = maps.n if name == "n" else getattr(maps, name)[at]


def _write(
    config: AssociateVoxelwiseConfig,
    study: _Study,
    out: Path,
    spool: np.ndarray,
    context: Context,
    family: dict[int, dict[str, int]],
) -> ResultTable:
    """Write the maps, the tables of targets and peaks and the figures; return the table of targets."""
    rows: list[dict[str, Any]] = []
    peaks: list[dict[str, Any]] = []
    folders = _folders(study.names)
    n_tests = _n_tests(study, spool)
    for k in context.progress.track(range(len(study.names)), "Writing maps", len(study.names)):
        row, found = _target(config, study, k, np.array(spool[k]), n_tests, out / folders[k])
        rows.append(row | family.get(k, {}))
        peaks += found
    permuted = _PERMUTED_COLUMNS if study.permutations is not None else {}
    table = _table(rows, _TARGET_COLUMNS | permuted)
    write_results(table, out / "targets.tsv")
    write_results(_table(peaks, _PEAK_COLUMNS), out / "peaks.tsv")
    strength = np.nan_to_num(table["max_abs_t"], nan=-1.0)
    strongest = [int(k) for k in np.argsort(-strength, kind="stable") if strength[k] > 0]
    for k in strongest[: config.figures]:
        _draw(study, np.array(spool[k][_MAPS.index("t")]), study.names[k], out / folders[k] / "t.png")
    return table


def _n_tests(study: _Study, spool: np.ndarray) -> int:
    """Return how many tests of all targets have a result."""
    at = _MAPS.index("t")
    return sum(int(np.isfinite(spool[k, at]).sum()) for k in np.flatnonzero(study.design.status == "ok"))


_TARGET_COLUMNS = {
    "target": "", "n": 0, "n_voxels": 0, "max_abs_t": np.nan, "r": np.nan, "beta": np.nan, "standard_error": np.nan,
    "t": np.nan, "neg_log10_p": np.nan, "x_mm": np.nan, "y_mm": np.nan, "z_mm": np.nan, "n_bonferroni": 0, "n_fdr": 0,
    "n_bonferroni_study": 0, "status": "",
}  # fmt: skip
"""Columns of targets.tsv with what stands where there is nothing."""
_PERMUTED_COLUMNS = {"n_permuted": 0, "n_fwe": 0, "n_fwe_tfce": 0}
_PEAK_COLUMNS = {
    "target": "", "x_mm": np.nan, "y_mm": np.nan, "z_mm": np.nan, "n": 0, "beta": np.nan, "standard_error": np.nan,
    "t": np.nan, "r": np.nan, "neg_log10_p": np.nan, "q_bh": np.nan,
}  # fmt: skip


def _table(rows: Sequence[dict[str, Any]], columns: dict[str, Any]) -> ResultTable:
    def column(name: str, empty: Any) -> np.ndarray:
        values = [row.get(name, empty) for row in rows]
        return text_array(values) if isinstance(empty, str) else np.array(values, dtype=type(empty))

    return ResultTable({name: column(name, empty) for name, empty in columns.items()})


def _target(
    config: AssociateVoxelwiseConfig,
    study: _Study,
    k: int,
    values: Float32[np.ndarray, "maps voxels"],
    n_tests: int,
    folder: Path,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write the maps of one target; return its row and its peaks."""
    status = str(study.design.status[k])
    maps = dict(zip(_MAPS, values, strict=True))
    row: dict[str, Any] = {"target": study.names[k], "n": int(study.design.n[k]), "status": status}
    if status != "ok":
        return row, []
    tested = np.isfinite(maps["t"])
    if not tested.any():
        return row | {"status": "no voxel could be tested"}, []
    for name in _MAPS:
        write_derivative(_volume(study, name, maps[name]), folder / f"{name}.nii.gz", _sidecar(config, study, k))
    neg_log10_p = maps["neg_log10_p"].astype(np.float64)
    q = benjamini_hochberg_q(neg_log10_p)
    row |= {
        "n_voxels": int(tested.sum()),
        "max_abs_t": float(np.nanmax(np.abs(maps["t"]))),
        "n_bonferroni": int((neg_log10_p > np.log10(tested.sum() / _ALPHA)).sum()),
        "n_bonferroni_study": int((neg_log10_p > np.log10(n_tests / _ALPHA)).sum()),
        "n_fdr": int((q < _ALPHA).sum()),
    }
    row |= _at(study, maps, int(np.nanargmax(np.abs(maps["t"]))))
    row["n"] = int(study.design.n[k])
    found = []
    if row["n_fdr"]:
        strength = np.full(int(np.prod(study.grid.shape)), np.nan)
        strength[study.voxels] = np.where(q < _ALPHA, np.abs(maps["t"]), np.nan)
        place = np.full(strength.size, -1)
        place[study.voxels] = np.arange(study.voxels.size)
        for peak in find_peaks(strength.reshape(study.grid.shape), study.grid.affine, least=0.0, most=_PEAKS):
            at = int(place.reshape(study.grid.shape)[tuple(peak)])
            found.append({"target": study.names[k], "q_bh": float(q[at]), **_at(study, maps, at)})
    return row, found


def _at(study: _Study, maps: dict[str, Float32[np.ndarray, " voxels"]], at: int) -> dict[str, Any]:
    """Return the estimates of one voxel and where it lies."""
    index = np.array([*np.unravel_index(study.voxels[at], study.grid.shape), 1], dtype=np.float64)
    x, y, z = (float(v) for v in (study.grid.affine @ index)[:3])
    estimates = {name: float(maps[name][at]) for name in _MAPS if name != "n"}
    return {"x_mm": x, "y_mm": y, "z_mm": z, "n": int(maps["n"][at]), **estimates}


def _volume(study: _Study, name: str, values: Float32[np.ndarray, " voxels"]) -> Volume:
    data = np.full(int(np.prod(study.grid.shape)), 0.0 if name == "n" else np.nan, dtype=np.float32)
    data[study.voxels] = values
    return Volume(data.reshape(study.grid.shape), study.grid.affine, name)


def _sidecar(config: AssociateVoxelwiseConfig, study: _Study, k: int) -> dict[str, Any]:
    return {
        "Target": study.names[k],
        "Covariates": config.covariates,
        "People": int(study.design.n[k]),
        "MinimalShareOfPeople": config.min_share,
        "ZerosAre": config.zeros,
        "Outliers": config.outliers,
        "Normalise": config.normalise,
    }


def _draw(study: _Study, t: Float32[np.ndarray, " voxels"], name: str, path: Path) -> None:
    limit = max(4.0, float(np.nanpercentile(np.abs(t), 99.5)))
    figure = mosaic(_volume(study, "t", t), window=(-limit, limit), colours="coolwarm", title=name)
    save_figure(figure, path)


def _result(study: _Study, table: ResultTable, tested: _Tested) -> StepResult:
    statuses = {str(s): int(n) for s, n in zip(*np.unique(table["status"], return_counts=True), strict=True)}
    n_read, n_voxels = len(study.images), study.voxels.size
    counts = study.counts | {
        "voxels": int(n_voxels),
        "targets": len(table),
        "status": statuses,
        **tested.counts,
        "values_of_exactly_0": tested.zeros,
        "targets_with_fdr": int((table["n_fdr"] > 0).sum()),
        "targets_with_bonferroni_study": int((table["n_bonferroni_study"] > 0).sum()),
    }
    ok = statuses.get("ok", 0)
    text = [
        f"{n_read} people, {n_voxels} voxels, {ok} of {len(table)} targets tested; {counts['targets_with_fdr']} with a "
        f"voxel at FDR 5 %, {counts['targets_with_bonferroni_study']} after Bonferroni over all targets and voxels"
    ]
    if study.permutations is not None:
        counts |= {"permutations": study.permutations.count, "targets_with_fwe": int((table["n_fwe"] > 0).sum())}
        lacking = int((n_voxels - table["n_permuted"][table["status"] == "ok"]).sum())
        text.append(
            f"{study.permutations.count} permutations: {counts['targets_with_fwe']} targets with a voxel at FWE 5 %; "
            f"{lacking} voxels of targets that somebody lacks, or that do not vary, have no FWE p"
            + ("; --outliers none keeps the values of everybody" if tested.counts.get("outliers") else "")
        )
    text += tested.text
    share = tested.zeros / max((len(study.every) if study.scored else n_read) * n_voxels, 1)
    if share > _MANY_ZEROS:
        text.append(f"{share:.0%} of the values are exactly 0 and count as values; --zeros missing leaves them out.")
    return StepResult(counts, n_failed=len(table) - ok, summary=tuple(text))


ASSOCIATE_VOXELWISE = Step(
    "associate voxelwise",
    "Regress maps of people on targets, voxel by voxel.",
    AssociateVoxelwiseConfig,
    associate_voxelwise,
    out="folder",
)
