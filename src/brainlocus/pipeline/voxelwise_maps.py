"""What ``associate voxelwise`` writes of a target: maps with sidecars, its row, peaks, regions and pictures."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Shaped

from brainlocus.cohort.associate import (
    boundary_share,
    correlation,
    find_peaks,
    gradient_magnitude,
    mirror_places,
    symmetry_r,
)
from brainlocus.core import Grid, Parcellation, ResultTable, SchemaError, Volume, check_same_grid
from brainlocus.core.text import text_array
from brainlocus.io import read_parcellation, read_volume, write_derivative
from brainlocus.numerics import benjamini_hochberg_q
from brainlocus.pipeline.figures.canvas import save_figure
from brainlocus.pipeline.figures.slices import Overlay, mosaic
from brainlocus.pipeline.voxelwise_permutation import ClusterInference, FamilyWise

__all__ = [
    "ALPHA",
    "CLUSTER_COLUMNS",
    "MAPS",
    "PEAK_COLUMNS",
    "REGION_COLUMNS",
    "Around",
    "Study",
    "draw_target",
    "read_around",
    "table_of",
    "target_columns",
    "target_folders",
    "write_family_wise",
    "write_mean",
    "write_target",
]

ALPHA = 0.05
MAPS = ("r", "beta", "standard_error", "t", "neg_log10_p", "n")
_PEAKS = 20
_UNCORRECTED = 3.1
"""|t| from which an overlay is drawn where no voxel passes FDR."""
_MEANING = {
    "r": "Partial correlation of voxel and target given the covariates",
    "beta": "Slope of the voxel on the target, covariates in the model",
    "standard_error": "Standard error of beta",
    "t": "t of beta",
    "neg_log10_p": "-log10 of the two-sided p of t",
    "n": "People of the target who have the voxel",
    "neg_log10_p_fwe": "-log10 of the family-wise p of |t| over the voxels, by permutation",
    "tfce": "t enhanced by clusters without a threshold (E 0.5, H 2, 100 steps)",
    "neg_log10_p_fwe_tfce": "-log10 of the family-wise p of |tfce|, by permutation",
}


@dataclass(frozen=True, slots=True, eq=False)
class Around:
    """What a map is compared with, in the order of the mask's voxels; None where nothing was given."""

    regions: Int[np.ndarray, " voxels"] | None
    region_names: dict[int, str]
    gradient: Float64[np.ndarray, " voxels"] | None
    """Length of the template's gradient."""
    ageing: Float64[np.ndarray, " voxels"] | None
    tissue: Int[np.ndarray, "x y z"] | None
    mirror: Int[np.ndarray, " voxels"]
    """Voxel across x = 0, -1 for none."""
    background: Volume | None


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """What all targets have in common."""

    names: tuple[str, ...]
    status: Shaped[np.ndarray, " targets"]
    n: Int[np.ndarray, " targets"]
    grid: Grid
    voxels: Int[np.ndarray, " voxels"]
    unit: str
    """Of what is regressed, empty where unknown."""
    image_unit: str
    """Of the maps of people."""
    sidecar: dict[str, Any]
    around: Around
    one_sample: bool


def read_around(
    grid: Grid,
    voxels: Int[np.ndarray, " voxels"],
    *,
    atlas: Path | None,
    template: Path | None,
    ageing: Path | None,
    tissue: Path | None,
    background: Path | None,
) -> Around:
    """Read the images that maps are compared with.

    Raises
    ------
    AlignmentError
        An image lies on another grid (named).
    FormatError
        An image cannot be read, or labels are no labels.
    """

    def volume(path: Path | None) -> Volume | None:
        if path is None:
            return None
        found = read_volume(path)
        check_same_grid(found.grid, grid, what=str(path))
        return found

    def labels(path: Path | None) -> Parcellation | None:
        if path is None:
            return None
        found = read_parcellation(path)
        check_same_grid(found.grid, grid, what=str(path))
        return found

    parcels, tissues = labels(atlas), labels(tissue)
    edges, change = volume(template), volume(ageing)
    return Around(
        regions=None if parcels is None else parcels.labels.ravel()[voxels].astype(np.int64),
        region_names={} if parcels is None else parcels.names,
        gradient=None if edges is None else gradient_magnitude(edges.data, grid.affine).ravel()[voxels],
        ageing=None if change is None else change.data.ravel()[voxels].astype(np.float64),
        tissue=None if tissues is None else tissues.labels.astype(np.int64),
        mirror=mirror_places(voxels, grid.shape, np.asarray(grid.affine, dtype=np.float64)),
        background=volume(background),
    )


def target_folders(names: Sequence[str]) -> list[str]:
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


_TARGET_COLUMNS = {
    "target": "", "n": 0, "n_voxels": 0, "max_abs_t": np.nan, "r": np.nan, "beta": np.nan, "standard_error": np.nan,
    "t": np.nan, "neg_log10_p": np.nan, "x_mm": np.nan, "y_mm": np.nan, "z_mm": np.nan, "n_bonferroni": 0, "n_fdr": 0,
    "n_bonferroni_study": 0, "symmetry_r": np.nan,
}  # fmt: skip
"""Columns of targets.tsv with what stands where there is nothing."""
PEAK_COLUMNS = {
    "target": "", "x_mm": np.nan, "y_mm": np.nan, "z_mm": np.nan, "region": "", "n": 0, "beta": np.nan,
    "standard_error": np.nan, "t": np.nan, "r": np.nan, "neg_log10_p": np.nan, "q_bh": np.nan,
}  # fmt: skip
CLUSTER_COLUMNS = {
    "target": "", "cluster_number": 0, "sign": 0, "n_voxels": 0, "mass": np.nan, "x_mm": np.nan, "y_mm": np.nan,
    "z_mm": np.nan, "region": "", "t": np.nan, "neg_log10_p_fwe_size": np.nan, "neg_log10_p_fwe_mass": np.nan,
}  # fmt: skip
REGION_COLUMNS = {
    "target": "", "region": "", "n_voxels": 0, "mean_t": np.nan, "mean_abs_t": np.nan, "max_abs_t": np.nan, "n_fdr": 0,
}  # fmt: skip


def target_columns(around: Around, *, permuted: bool, clusters: bool) -> dict[str, Any]:
    """Return the columns of targets.tsv, by what was asked for."""
    columns: dict[str, Any] = dict(_TARGET_COLUMNS)
    given = {"gradient_r": around.gradient, "ageing_r": around.ageing, "boundary_share": around.tissue}
    columns |= {name: np.nan for name, what in given.items() if what is not None}
    columns |= {"n_permuted": 0, "n_fwe": 0, "n_fwe_tfce": 0} if permuted else {}
    columns |= {"n_clusters_fwe": 0} if clusters else {}
    return columns | {"status": ""}


def table_of(rows: Sequence[dict[str, Any]], columns: dict[str, Any]) -> ResultTable:
    """Return rows as a table; what a row lacks is the column's empty value."""

    def column(name: str, empty: Any) -> np.ndarray:
        values = [row.get(name, empty) for row in rows]
        return text_array(values) if isinstance(empty, str) else np.array(values, dtype=type(empty))

    return ResultTable({name: column(name, empty) for name, empty in columns.items()})


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """What tables say of a target."""

    row: dict[str, Any]
    peaks: list[dict[str, Any]]
    regions: list[dict[str, Any]]


def write_target(
    study: Study,
    k: int,
    values: Float32[np.ndarray, "maps voxels"],
    n_tests: int,
    folder: Path,
    fwe: Float32[np.ndarray, " voxels"] | None = None,
) -> Written:
    """Write the maps of one target; return its row, its peaks and its regions.

    Parameters
    ----------
    n_tests
        Tests of all targets.
    fwe
        -log10 of the family-wise p of |t|.
    """
    status = str(study.status[k])
    maps = dict(zip(MAPS, values, strict=True))
    row: dict[str, Any] = {"target": study.names[k], "n": int(study.n[k]), "status": status}
    if status != "ok":
        return Written(row, [], [])
    tested = np.isfinite(maps["t"])
    if not tested.any():
        return Written(row | {"status": "no voxel could be tested"}, [], [])
    for name in MAPS:
        write_derivative(_volume(study, k, name, maps[name]), folder / f"{name}.nii.gz", _sidecar(study, k, name))
    neg_log10_p = maps["neg_log10_p"].astype(np.float64)
    q = benjamini_hochberg_q(neg_log10_p)
    row |= {
        "n_voxels": int(tested.sum()),
        "max_abs_t": float(np.nanmax(np.abs(maps["t"]))),
        "n_bonferroni": int((neg_log10_p > np.log10(tested.sum() / ALPHA)).sum()),
        "n_bonferroni_study": int((neg_log10_p > np.log10(n_tests / ALPHA)).sum()),
        "n_fdr": int((q < ALPHA).sum()),
    }
    row |= _at(study, maps, int(np.nanargmax(np.abs(maps["t"]))))
    row |= _shape(study, maps["t"].astype(np.float64), q < ALPHA)
    row["n"] = int(study.n[k])
    return Written(row, _peaks(study, k, maps, q), _regions(study, k, maps["t"].astype(np.float64), q < ALPHA, fwe))


def _shape(study: Study, t: Float64[np.ndarray, " voxels"], strong: Bool[np.ndarray, " voxels"]) -> dict[str, float]:
    """Return how a map lies to its mirror image and to edges."""
    around = study.around
    found = {"symmetry_r": symmetry_r(t, around.mirror)}
    if around.gradient is not None:
        found["gradient_r"] = correlation(np.abs(t), around.gradient)
    if around.ageing is not None:
        found["ageing_r"] = correlation(t, around.ageing)
    if around.tissue is not None:
        edge_mm = float(np.cbrt(study.grid.voxel_volume_mm3))
        found["boundary_share"] = boundary_share(
            _filled(study, t, np.nan), _filled(study, strong, False), around.tissue, voxel_mm=edge_mm
        )
    return found


def _peaks(
    study: Study, k: int, maps: dict[str, Float32[np.ndarray, " voxels"]], q: Float64[np.ndarray, " voxels"]
) -> list[dict[str, Any]]:
    if not (q < ALPHA).any():
        return []
    strength = _filled(study, np.where(q < ALPHA, np.abs(maps["t"]), np.nan), np.nan)
    place = _filled(study, np.arange(study.voxels.size), -1)
    found = []
    for peak in find_peaks(strength, study.grid.affine, least=0.0, most=_PEAKS):
        at = int(place[tuple(peak)])
        found.append({"target": study.names[k], "q_bh": float(q[at]), **_at(study, maps, at)})
    return found


def _regions(
    study: Study,
    k: int,
    t: Float64[np.ndarray, " voxels"],
    strong: Bool[np.ndarray, " voxels"],
    fwe: Float32[np.ndarray, " voxels"] | None,
) -> list[dict[str, Any]]:
    """Return a row for every region of the atlas with a tested voxel."""
    labels = study.around.regions
    if labels is None:
        return []
    used = (labels > 0) & np.isfinite(t)
    present, place = np.unique(labels[used], return_inverse=True)

    def total(values: Shaped[np.ndarray, " used"]) -> Float64[np.ndarray, " regions"]:
        return np.bincount(place, weights=values, minlength=present.size)

    count, strength = np.bincount(place, minlength=present.size), np.abs(t[used])
    largest = np.zeros(present.size)
    np.maximum.at(largest, place, strength)
    columns: dict[str, np.ndarray] = {
        "n_voxels": count, "mean_t": total(t[used]) / count, "mean_abs_t": total(strength) / count,
        "max_abs_t": largest, "n_fdr": total(strong[used]),
    }  # fmt: skip
    if fwe is not None:
        columns["n_fwe"] = total(fwe[used] > -np.log10(ALPHA))
    return [
        {"target": study.names[k], "region": _region(study, int(label))}
        | {name: values[at] for name, values in columns.items()}
        for at, label in enumerate(present)
    ]


def _region(study: Study, label: int) -> str:
    return study.around.region_names.get(label, str(label)) if label > 0 else ""


def _at(study: Study, maps: dict[str, Float32[np.ndarray, " voxels"]], at: int) -> dict[str, Any]:
    """Return the estimates of one voxel and where it lies."""
    estimates = {name: float(maps[name][at]) for name in MAPS if name != "n"}
    return {**_place(study, at), "n": int(maps["n"][at]), **estimates}


def _place(study: Study, at: int) -> dict[str, Any]:
    index = np.array([*np.unravel_index(study.voxels[at], study.grid.shape), 1], dtype=np.float64)
    x, y, z = (float(v) for v in (study.grid.affine @ index)[:3])
    place: dict[str, Any] = {"x_mm": x, "y_mm": y, "z_mm": z}
    if study.around.regions is not None:
        place["region"] = _region(study, int(study.around.regions[at]))
    return place


def _filled(study: Study, values: Shaped[np.ndarray, " voxels"], empty: Any) -> Shaped[np.ndarray, "x y z"]:
    """Return values in their places in the grid."""
    whole = np.full(int(np.prod(study.grid.shape)), empty, dtype=values.dtype)
    whole[study.voxels] = values
    return whole.reshape(study.grid.shape)


def _volume(study: Study, k: int, name: str, values: Float32[np.ndarray, " voxels"]) -> Volume:
    unit = ""
    if name in ("beta", "standard_error"):
        own = study.unit or "map units"
        unit = own if study.one_sample else f"{own} per unit of {study.names[k]}"
    return Volume(_filled(study, values, 0.0 if name == "n" else np.nan), study.grid.affine, name, unit)


def _sidecar(study: Study, k: int, name: str) -> dict[str, Any]:
    """Return what stands beside a map."""
    basis = "covariates" if study.one_sample else "intercept and covariates"
    return {
        "Target": study.names[k],
        "Statistic": _MEANING[name],
        "DegreesOfFreedom": f"people who have the voxel - rank of {basis} among them - 1",
        "People": int(study.n[k]),
        **study.sidecar,
    }


def write_family_wise(
    study: Study,
    k: int,
    found: FamilyWise,
    t: Float32[np.ndarray, " voxels"],
    folder: Path,
    sidecar: dict[str, Any],
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Write the family-wise maps of a target; return what its row and the table of clusters say of them."""
    row = {"n_permuted": found.n_permuted}
    if not found.n_permuted:
        return row, []
    maps = {
        "neg_log10_p_fwe": found.neg_log10_p, "tfce": found.tfce, "neg_log10_p_fwe_tfce": found.neg_log10_p_tfce,
    }  # fmt: skip
    for name, values in maps.items():
        if values is not None:
            beside = _sidecar(study, k, name) | sidecar
            write_derivative(_volume(study, k, name, values), folder / f"{name}.nii.gz", beside)
    limit = -np.log10(ALPHA)
    row["n_fwe"] = int((found.neg_log10_p > limit).sum())
    if found.neg_log10_p_tfce is not None:
        row["n_fwe_tfce"] = int((found.neg_log10_p_tfce > limit).sum())
    if found.clusters is None:
        return row, []
    row["n_clusters_fwe"] = int((found.clusters.neg_log10_p_mass > limit).sum())
    labels = _filled(study, (found.clusters.found.label + 1).astype(np.int32), 0)
    beside = {"Target": study.names[k], "Labels": "cluster_number of clusters.tsv", **sidecar}
    write_derivative(Parcellation(labels, study.grid.affine), folder / "clusters.nii.gz", beside)
    return row, _clusters(study, k, found.clusters, t)


def _clusters(
    study: Study, k: int, clusters: ClusterInference, t: Float32[np.ndarray, " voxels"]
) -> list[dict[str, Any]]:
    found = clusters.found
    return [
        {
            "target": study.names[k], "cluster_number": number + 1, "sign": int(found.sign[number]),
            "n_voxels": int(found.size[number]), "mass": float(found.mass[number]),
            **_place(study, int(found.peak[number])), "t": float(t[found.peak[number]]),
            "neg_log10_p_fwe_size": float(clusters.neg_log10_p_size[number]),
            "neg_log10_p_fwe_mass": float(clusters.neg_log10_p_mass[number]),
        }
        for number in range(found.size.size)
    ]  # fmt: skip


def write_mean(study: Study, mean: Float64[np.ndarray, " voxels"], out: Path) -> Volume:
    """Write the mean of the people's maps, and return it."""
    volume = Volume(_filled(study, mean.astype(np.float32), np.nan), study.grid.affine, "mean", study.image_unit)
    write_derivative(volume, out / "mean.nii.gz", {"Statistic": "Mean of the maps of the people who have the voxel"})
    return volume


def draw_target(
    study: Study, k: int, values: Float32[np.ndarray, "maps voxels"], folder: Path, background: Volume
) -> None:
    """Draw t in slices, and over the background."""
    t = values[MAPS.index("t")]
    volume = _volume(study, k, "t", t)
    limit = max(4.0, float(np.nanpercentile(np.abs(t), 99.5)))
    figure = mosaic(volume, window=(-limit, limit), colours="coolwarm", title=study.names[k])
    save_figure(figure, folder / "t.png")
    strong = benjamini_hochberg_q(values[MAPS.index("neg_log10_p")].astype(np.float64)) < ALPHA
    threshold = float(np.abs(t[strong]).min()) if strong.any() else _UNCORRECTED
    rule = "FDR 5 %" if strong.any() else "uncorrected"
    lightest = float(np.percentile(np.abs(t[strong]), 95)) if strong.any() else limit
    over = Overlay(volume, threshold, max(lightest, 1.25 * threshold))
    title = f"{study.names[k]}: |t| at least {threshold:.2f} ({rule})"
    figure = mosaic(background, window=_dimmed(background.data), title=title, overlay=over)
    save_figure(figure, folder / "overlay.png")


def _dimmed(data: Float[np.ndarray, "x y z"]) -> tuple[float, float]:
    """Return a window in which nothing is white, so that colours stand out."""
    values = data[np.isfinite(data) & (data != 0)]
    low, high = (float(v) for v in np.percentile(values, (2.0, 98.0))) if values.size else (0.0, 1.0)
    spread = high - low if high > low else 1.0
    return min(low, 0.0) if low < 0.2 * spread else low - 0.1 * spread, high + 0.4 * spread
