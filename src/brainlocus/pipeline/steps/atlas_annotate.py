"""``atlas annotate``: names of parcels by a conventional atlas on any grid, and the side they lie on."""

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from brainlocus.core import AlignmentError, FormatError, Parcellation, ResultTable
from brainlocus.core.results import concat_results
from brainlocus.core.text import text_array
from brainlocus.images.atlas import MIN_FRACTION, Annotation, annotate_parcels, annotate_parcels_peak_bytes
from brainlocus.io import read_grid, read_parcellation, write_results
from brainlocus.numerics import resample_labels
from brainlocus.pipeline.atlas_scales import AtlasScale, read_scales
from brainlocus.pipeline.config import InputPath, InputPaths, Positional, StepConfig
from brainlocus.pipeline.genomes import require_memory
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["ATLAS_ANNOTATE", "AtlasAnnotateConfig"]


class AtlasAnnotateConfig(StepConfig):
    """Settings of ``atlas annotate``."""

    labels: Annotated[InputPaths, Positional()] = Field(
        description="Parcels to name: a folder of atlas fit, or label files (.nii.gz)"
    )
    by: InputPath = Field(description="Label image of a conventional atlas (AAL, MUSE, Harvard-Oxford ...), any grid")
    names: InputPath | None = Field(
        None,
        description="Names of its labels: a table with index and name, JSON, XML of FSL, or a colour table of "
        "FreeSurfer, FSLeyes or ITK-SNAP; by default the .json or .tsv beside the image",
    )
    min_fraction: float = Field(MIN_FRACTION, gt=0, le=1, description="Least share of a parcel that a region needs")


def atlas_annotate(config: AtlasAnnotateConfig, out: Path, context: Context) -> StepResult:
    """Name the parcels of every scale."""
    n_atlas = int(np.prod(read_grid(config.by).shape))
    scales = read_scales(config.labels, what="LABELS")
    needed = 32 * n_atlas + annotate_parcels_peak_bytes(int(np.prod(scales[0].grid.shape)), scales[-1].scale, 500)
    require_memory(needed, context.memory_bytes, f"Annotating by {config.by}")
    atlas = _read_atlas(config)
    moved = resample_labels(atlas, scales[0].grid)
    here = np.unique(moved.labels[moved.labels > 0])
    n_lost = np.unique(atlas.labels[atlas.labels > 0]).size - here.size
    tables, n_without = [], 0
    for one in scales:
        try:
            found = annotate_parcels(one.parcellation, moved, min_fraction=config.min_fraction)
        except AlignmentError as error:
            raise AlignmentError(f"{config.by} and {one.path}: {error}") from error
        tables.append(_table(one, found, atlas.names))
        n_without += found.parcels.size - np.unique(found.pair_parcel).size
    write_results(concat_results(tables), out)
    unnamed = [int(k) for k in here if int(k) not in atlas.names]
    counts = {
        "scales": [s.scale for s in scales],
        "parcels": int(sum(np.unique(s.parcellation.labels[s.parcellation.labels > 0]).size for s in scales)),
        "parcels_without_region": n_without,
        "regions": int(here.size),
        "regions_not_on_the_grid": int(n_lost),
        "regions_without_name": unnamed,
    }
    lines = [f"{counts['parcels']} parcels, {n_without} of them in no region; {here.size} regions"]
    if n_lost:
        lines.append(f"{n_lost} regions of the atlas have no voxel on the parcels' grid")
    if unnamed:
        lines.append(f"{len(unnamed)} regions have no name and are called by their label; give --names")
    return StepResult(counts, summary=tuple(lines))


def _read_atlas(config: AtlasAnnotateConfig) -> Parcellation:
    atlas = read_parcellation(config.by, lookup=config.names)
    present = np.unique(atlas.labels[atlas.labels > 0])
    if not present.size:
        raise FormatError(f"{config.by}: expected labels from 1 up, found background only. Is it the right file?")
    if config.names is not None and not any(int(k) in atlas.names for k in present):
        some = ", ".join(str(k) for k in sorted(atlas.names)[:5])
        raise AlignmentError(
            f"{config.names}: expected names of the labels of {config.by} ({', '.join(map(str, present[:5]))} ...), "
            f"found names of {some} ... only. Give the names of this atlas."
        )
    return atlas


def _table(one: AtlasScale, found: Annotation, names: dict[int, str]) -> ResultTable:
    """Return a row for every parcel and region; a parcel in no region has one row without."""
    rows: list[tuple[int, int, float, float, float]] = []
    starts = np.searchsorted(found.pair_parcel, np.arange(found.parcels.size + 1))
    top: list[int] = []
    for at in range(found.parcels.size):
        pairs = range(int(starts[at]), int(starts[at + 1]))
        rows += [
            (at, int(found.pair_region[k]), found.fraction_in[k], found.coverage[k], found.dice[k]) for k in pairs
        ] or [(at, 0, np.nan, np.nan, np.nan)]
        top += [int(found.pair_region[pairs[0]]) if pairs else 0] * max(len(pairs), 1)
    parcel = np.array([row[0] for row in rows])
    regions = [row[1] for row in rows]

    def name(region: int) -> str:
        return names.get(region, f"label {region}") if region else ""

    return ResultTable(
        {
            "scale": np.full(len(rows), one.scale),
            "region": text_array(one.parcellation.names[int(k)] for k in found.parcels[parcel]),
            "n_voxels": found.sizes[parcel],
            "anatomical_name": text_array(map(name, top)),
            "laterality": text_array(found.laterality(int(k)) for k in parcel),
            "left_fraction": found.left[parcel],
            "atlas_region": text_array(map(name, regions)),
            "atlas_label": np.array(regions),
            **{c: np.array([row[k] for row in rows]) for k, c in ((2, "fraction_in"), (3, "coverage"), (4, "dice"))},
        }
    )


ATLAS_ANNOTATE = Step(
    "atlas annotate",
    "Name parcels by the regions of a conventional atlas, with their side.",
    AtlasAnnotateConfig,
    atlas_annotate,
)
