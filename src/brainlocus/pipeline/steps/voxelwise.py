"""``associate voxelwise``: maps of people in one space against many targets, voxel by voxel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from brainlocus.cohort.associate import (
    VoxelwiseDesign,
    prepare_one_sample,
    prepare_voxelwise,
)
from brainlocus.core import (
    PhenotypeTable,
    ResultTable,
    SampleIndex,
    SchemaError,
    check_same_grid,
    concat_results,
    shared_samples,
)
from brainlocus.core.text import text_array
from brainlocus.io import ImageList, find_images, read_grid, read_mask, write_results
from brainlocus.numerics import Design, design_from_formula
from brainlocus.pipeline.config import CommaList, InputPath, KeptPath, Positional, StepConfig
from brainlocus.pipeline.image_voxels import unit_of
from brainlocus.pipeline.people import batch_labels, choose_traits, formula_columns, outlier_mads, read_people
from brainlocus.pipeline.step import Context, Step, StepResult
from brainlocus.pipeline.voxelwise_maps import (
    CLUSTER_COLUMNS,
    MAPS,
    PEAK_COLUMNS,
    REGION_COLUMNS,
    Study,
    draw_target,
    read_around,
    table_of,
    target_columns,
    target_folders,
    write_family_wise,
    write_mean,
    write_target,
)
from brainlocus.pipeline.voxelwise_permutation import Exchange, Permutations, permute_targets
from brainlocus.pipeline.voxelwise_scan import Scan, Scanned, scan_images

__all__ = ["ASSOCIATE_VOXELWISE", "AssociateVoxelwiseConfig"]

_MANY_ZEROS = 0.01
_FEWEST_MIRRORED = 10
_EDGES = 0.3
"""gradient_r or boundary_share above which a target is named: planted shifts have 0.6 and more, blobs below 0.2."""


class AssociateVoxelwiseConfig(StepConfig):
    """Settings of ``associate voxelwise``."""

    images: Annotated[InputPath, Positional()] = Field(
        description="Maps on one grid: a BIDS folder, a table with participant_id and path, or a list of paths"
    )
    targets: InputPath | None = Field(None, description="Table of what the maps are regressed on, a target a column")
    mask: InputPath = Field(description="Voxels to test")
    columns: CommaList = Field((), description="Targets, names or patterns; every numeric column by default")
    one_sample: bool = Field(False, description="Test whether the mean of the maps is 0, instead of --targets")
    covariates: str = Field("", description="Formula of covariates: 'age + sex + C(site)'")
    participants: InputPath | None = Field(None, description="Table with the covariates; TARGETS by default")
    pattern: str = Field("sub-*/**/*_space-*.nii*", description="Which files of a folder are images")
    zeros: Literal["missing", "value"] = Field("value", description="Whether voxels of exactly 0 have no value")
    outliers: str = Field("none", description="mad:K removes values of a voxel beyond K unscaled MADs, such as mad:6")
    normalise: Literal["rank", "none"] = Field("none", description="Normal scores of each voxel, over all images")
    store: KeptPath | None = Field(
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
    cluster_threshold: float | None = Field(
        None, gt=0, description="|t| that forms clusters, such as 3.1; their sizes and masses are permuted, too"
    )
    permute: Exchange | None = Field(
        None, description="People change places (default), signs of residuals flip (default of --one-sample), or both"
    )
    tail: bool = Field(True, description="Family-wise p below 10 / permutations from a fitted tail")
    blocks: str | None = Field(None, description="Column of exchangeability blocks, such as site or family")
    block_mode: Literal["within", "whole"] = Field(
        "within", description="Permute people within blocks, or whole blocks of the same size"
    )
    atlas: InputPath | None = Field(None, description="Labels of regions: names of peaks, and a table of regions")
    template: InputPath | None = Field(
        None, description="Mean map, as idp template writes: t is compared with its edges"
    )
    ageing: InputPath | None = Field(None, description="Map of change with age, as idp template writes, for comparison")
    tissue: InputPath | None = Field(None, description="Labels of grey and white matter, for effects on their boundary")
    background: InputPath | None = Field(
        None, description="Map that significant voxels are drawn over; the images' mean by default"
    )
    figures: int = Field(12, ge=0, description="Targets that are drawn, those with the largest |t| first")


def _study(config: AssociateVoxelwiseConfig) -> Scan:
    """Read tables and lists, and leave out images of people with no target or without a covariate."""
    mads = outlier_mads(config.outliers)
    _check(config, mads)
    images = find_images(config.images, pattern=config.pattern)
    kept, design, names, people, counts = _people(config, images)
    at = images.samples.indices_of(kept)
    chosen = ImageList(kept, tuple(images.paths[k] for k in at))
    grid = read_grid(chosen.paths[0])
    mask = read_mask(config.mask)
    check_same_grid(mask.grid, grid, what=str(config.mask))
    voxels = np.flatnonzero(mask.data)
    around = read_around(
        grid, voxels, atlas=config.atlas, template=config.template, ageing=config.ageing, tissue=config.tissue,
        background=config.background,
    )  # fmt: skip
    counts["voxels_with_a_mirror_image"] = int((around.mirror >= 0).sum())
    rank = config.normalise == "rank"
    sidecar = {
        "Covariates": config.covariates, "MinimalShareOfPeople": config.min_share, "ZerosAre": config.zeros,
        "Outliers": config.outliers, "Normalise": config.normalise,
    }  # fmt: skip
    image_unit = unit_of(chosen.paths[0])
    unit = "standard deviations" if rank else image_unit
    maps = Study(
        tuple(names), design.status, design.n, grid, voxels, unit, image_unit, sidecar, around, config.one_sample
    )
    plan = _permutations(config, people)
    return Scan(
        images=chosen, maps=maps, design=design, permutations=plan, every=images, rows=at, mads=mads, rank=rank,
        zeros=config.zeros, store=config.store, counts=counts,
    )  # fmt: skip


def _check(config: AssociateVoxelwiseConfig, mads: float | None) -> None:
    """Check that options go together.

    Raises
    ------
    SchemaError
        They do not.
    """
    if config.store is not None and mads is None and config.normalise == "none":
        raise SchemaError(
            "--store goes with --outliers or --normalise: the images are read once and not kept otherwise."
        )
    if config.one_sample == (config.targets is not None):
        raise SchemaError(
            "Expected one of --targets TABLE (regress the maps on its columns) and --one-sample (test their mean), "
            "found " + ("both." if config.one_sample else "neither.")
        )
    if config.one_sample and config.columns:
        raise SchemaError("--columns chooses targets, and --one-sample has none; leave one of them out.")
    if config.one_sample and config.normalise == "rank":
        raise SchemaError("--one-sample: normal scores have a mean of 0 in every voxel. Leave --normalise rank out.")
    if config.one_sample and config.permute in ("shuffle", "both"):
        raise SchemaError(
            f"--one-sample: the mean is the same when people change places, so --permute {config.permute} tests "
            "nothing. Leave it out: signs are flipped."
        )
    if config.permutations:
        return
    given = {
        "--tfce": config.tfce, "--blocks": config.blocks is not None, "--permute": config.permute is not None,
        "--cluster-threshold": config.cluster_threshold is not None,
    }  # fmt: skip
    alone = [name for name, there in given.items() if there]
    if alone:
        verb = "goes" if len(alone) == 1 else "go"
        raise SchemaError(f"{' and '.join(alone)} {verb} with --permutations; give their number, such as 5000.")


def _people(
    config: AssociateVoxelwiseConfig, images: ImageList
) -> tuple[SampleIndex, VoxelwiseDesign, list[str], PhenotypeTable | None, dict[str, Any]]:
    """Return who is analysed, the design, the targets' names, the people's table, and counts."""
    targets = None if config.targets is None else read_people(config.targets)
    people = targets if config.participants is None else read_people(config.participants)
    if people is None and (config.covariates or config.blocks):
        raise SchemaError("--covariates and --blocks need the table that has them; give it with --participants.")
    tables = [
        (found.samples, name)
        for found, name in ((targets, "the targets"), (people, "the covariates"))
        if found is not None
    ]
    shared = shared_samples(
        images.samples, *(samples for samples, _ in tables), names=("the images", *(name for _, name in tables))
    )
    counts: dict[str, Any] = {"participants_images": len(images), "participants": len(shared)}
    covariates = Design(np.empty((len(shared), 0)), (), np.ones(len(shared), dtype=bool))
    if people is not None:
        covariates = design_from_formula(config.covariates, people.take(shared))
    matrix, names = np.ones((len(shared), 1)), ["mean"]
    if targets is not None:
        used = formula_columns(config.covariates)
        names = choose_traits(targets, config.columns, besides=used, option="--columns")
        matrix = targets.take(shared).matrix(names)
        counts["participants_targets"] = len(targets.samples)
        counts["text_columns_left_out"] = [] if config.columns else _text(targets, used)
    target_folders(names)
    needed = covariates.complete & ~np.isnan(matrix).all(axis=1)
    counts["people_without_covariates"] = int((~covariates.complete).sum())
    counts["images_read"] = int(needed.sum())
    if not needed.any():
        raise SchemaError(f"None of the {len(shared)} people with an image has a target and all covariates.")
    design = _design(config, matrix[needed], covariates.matrix[needed], covariates.names)
    counts["covariates"] = list(covariates.names)
    counts["dropped_covariates"] = list(design.dropped)
    kept = shared.take(np.flatnonzero(needed))
    return kept, design, names, None if people is None else people.take(kept), counts


def _design(
    config: AssociateVoxelwiseConfig,
    targets: Float64[np.ndarray, "people targets"],
    covariates: Float64[np.ndarray, "people covariates"],
    names: Sequence[str],
) -> VoxelwiseDesign:
    if config.one_sample:
        return prepare_one_sample(
            targets.shape[0], covariates=covariates, covariate_names=names, min_share=config.min_share,
            min_people=config.min_people, precision=config.precision,
        )  # fmt: skip
    return prepare_voxelwise(
        targets, covariates=covariates, covariate_names=names, min_share=config.min_share,
        min_people=config.min_people, precision=config.precision,
    )  # fmt: skip


def _permutations(config: AssociateVoxelwiseConfig, people: PhenotypeTable | None) -> Permutations | None:
    if not config.permutations:
        return None
    blocks = None if config.blocks is None or people is None else batch_labels(people, config.blocks)
    if blocks is not None and (blocks == "").any():
        raise SchemaError(
            f"--blocks {config.blocks}: {int((blocks == '').sum())} of {blocks.size} people have none. Fill it in, or "
            "leave them out."
        )
    return Permutations(
        count=config.permutations,
        tfce=config.tfce,
        tail=config.tail,
        blocks=blocks,
        mode=config.block_mode,
        exchange=config.permute or ("flip" if config.one_sample else "shuffle"),
        cluster_threshold=config.cluster_threshold,
    )


def _text(targets: PhenotypeTable, used: set[str]) -> list[str]:
    return [c.name for c in targets.columns if c.kind == "categorical" and c.name not in used]


def associate_voxelwise(config: AssociateVoxelwiseConfig, out: Path, context: Context) -> StepResult:
    """Stream the images through the sums, then write the maps target by target."""
    study = _study(config)
    context.shards.mkdir(parents=True, exist_ok=True)
    shape = (len(study.maps.names), len(MAPS), study.maps.voxels.size)
    spool = np.lib.format.open_memmap(context.shards / "maps.npy", mode="w+", dtype=np.float32, shape=shape)
    kept = None
    if study.permutations is not None:
        kept = np.lib.format.open_memmap(
            context.shards / "images.npy", mode="w+", dtype=np.float32, shape=(len(study.images), shape[2])
        )
    tested = scan_images(study, context, spool, kept)
    family: dict[int, dict[str, int]] = {}
    fwe = None
    if kept is not None and study.permutations is not None:
        fwe = np.lib.format.open_memmap(
            context.shards / "fwe.npy", mode="w+", dtype=np.float32, shape=(shape[0], shape[2])
        )
        family = _permute(study, out, spool, kept, fwe, study.permutations, context)
    table = _write(config, study, out, spool, context, family, fwe, tested.mean)
    return _result(study, table, tested)


def _permute(
    study: Scan,
    out: Path,
    spool: np.ndarray,
    images: np.ndarray,
    fwe: np.ndarray,
    plan: Permutations,
    context: Context,
) -> dict[int, dict[str, int]]:
    """Write the family-wise maps of every target, clusters and the null; return what the table of targets says of them.

    Parameters
    ----------
    fwe
        Filled with -log10 of the family-wise p of |t|.
    """
    names, folders = study.maps.names, target_folders(study.maps.names)
    t = spool[:, MAPS.index("t")]
    rows: dict[int, dict[str, int]] = {}
    clusters: list[dict[str, Any]] = []
    nulls = []
    sidecar = {"Permutations": plan.count, "Exchange": plan.exchange, "ClusterThreshold": plan.cluster_threshold}
    where = (study.maps.grid, study.maps.voxels)
    for number, group in enumerate(study.design.groups):
        for k, found in permute_targets(group, number, images, t, where, plan, context):
            fwe[k] = found.neg_log10_p
            rows[k], some = write_family_wise(study.maps, k, found, t[k], out / folders[k], sidecar)
            clusters += some
            if not found.n_permuted:
                continue
            columns = {
                "target": text_array([names[k]] * plan.count), "permutation": np.arange(1, plan.count + 1),
                "max_abs_t": found.max_abs_t, "max_tfce": found.max_tfce,
            }  # fmt: skip
            if plan.cluster_threshold is not None:
                columns["max_cluster_size"] = found.max_size.astype(np.int64)
                columns["max_cluster_mass"] = found.max_mass
            nulls.append(ResultTable(columns))
    if nulls:
        write_results(concat_results(nulls), out / "null.parquet")
    if plan.cluster_threshold is not None:
        write_results(table_of(clusters, CLUSTER_COLUMNS), out / "clusters.tsv")
    return rows


def _write(
    config: AssociateVoxelwiseConfig,
    study: Scan,
    out: Path,
    spool: np.ndarray,
    context: Context,
    family: dict[int, dict[str, int]],
    fwe: np.ndarray | None,
    mean: Float64[np.ndarray, " voxels"],
) -> ResultTable:
    """Write the maps, the tables of targets, peaks and regions and the figures; return the table of targets."""
    rows: list[dict[str, Any]] = []
    peaks: list[dict[str, Any]] = []
    regions: list[dict[str, Any]] = []
    maps, folders = study.maps, target_folders(study.maps.names)
    n_tests = _n_tests(study, spool)
    for k in context.progress.track(range(len(folders)), "Writing maps", len(folders)):
        permuted = None if fwe is None or k not in family else np.array(fwe[k])
        written = write_target(maps, k, np.array(spool[k]), n_tests, out / folders[k], permuted)
        rows.append(written.row | family.get(k, {}))
        peaks += written.peaks
        regions += written.regions
    columns = target_columns(maps.around, permuted=fwe is not None, clusters=config.cluster_threshold is not None)
    table = table_of(rows, columns)
    write_results(table, out / "targets.tsv")
    write_results(table_of(peaks, PEAK_COLUMNS), out / "peaks.tsv")
    if maps.around.regions is not None:
        write_results(table_of(regions, REGION_COLUMNS | ({} if fwe is None else {"n_fwe": 0})), out / "regions.tsv")
    average = write_mean(maps, mean, out)
    background = maps.around.background or average
    strength = np.nan_to_num(table["max_abs_t"], nan=-1.0)
    strongest = [int(k) for k in np.argsort(-strength, kind="stable") if strength[k] > 0]
    for k in strongest[: config.figures]:
        draw_target(maps, k, np.array(spool[k]), out / folders[k], background)
    return table


def _n_tests(study: Scan, spool: np.ndarray) -> int:
    """Return how many tests of all targets have a result."""
    at = MAPS.index("t")
    return sum(int(np.isfinite(spool[k, at]).sum()) for k in np.flatnonzero(study.design.status == "ok"))


def _result(study: Scan, table: ResultTable, tested: Scanned) -> StepResult:
    statuses = {str(s): int(n) for s, n in zip(*np.unique(table["status"], return_counts=True), strict=True)}
    n_read, n_voxels = len(study.images), study.maps.voxels.size
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
    text += _artefacts(table)
    if counts["voxels_with_a_mirror_image"] < _FEWEST_MIRRORED:
        text.append("symmetry_r is empty: no ten voxels of the mask have a voxel of it across x = 0 of the world.")
    share = tested.zeros / max((len(study.every) if study.scored else n_read) * n_voxels, 1)
    if share > _MANY_ZEROS:
        text.append(f"{share:.0%} of the values are exactly 0 and count as values; --zeros missing leaves them out.")
    return StepResult(counts, n_failed=len(table) - ok, summary=tuple(text))


def _artefacts(table: ResultTable) -> list[str]:
    """Return a line that names targets whose maps follow edges."""
    named: list[str] = []
    for k, target in enumerate(table["target"]):
        found = {name: float(table[name][k]) for name in ("gradient_r", "boundary_share") if name in table.columns}
        if any(value > _EDGES for value in found.values()):
            named.append(f"{target} ({', '.join(f'{name} {value:.2f}' for name, value in found.items())})")
    if not named:
        return []
    shown = ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")
    return [f"Maps that follow the edges of tissue, as atrophy makes them: {shown}"]


ASSOCIATE_VOXELWISE = Step(
    "associate voxelwise",
    "Regress maps of people on targets, voxel by voxel.",
    AssociateVoxelwiseConfig,
    associate_voxelwise,
    out="folder",
)
