"""Scores of a susceptibility map against the truth: those of the QSM Challenge 2.0, and errors of regions.

::

    python -m benchmarks.qsm_scores RECON TRUTH MASK [--labels LABELS]

With r and t the reconstruction and the truth inside the mask, each minus its own mean there:

* nrmse = 100 |r - t| / |t|; detrended = 100 |r / s - t| / |t|, s the slope of r on t. Detrended equals
  100 sqrt(1 / correlation^2 - 1): it knows no scale, and grows without bound as the correlation falls.
* hfen = 100 |LoG r - LoG t| / |LoG t|, a 15-voxel Laplacian of a Gaussian of 1.5 voxels, both maps 0 outside the mask.
* xsim: structural similarity with L = 1, K1 = 0.01, K2 = 0.001 in 5 x 5 x 5 windows (Milovic et al. 2025), averaged
  over the mask.
* with labels: the first two within tissue, blood (veins and their neighbours) and deep grey matter; DGM linearity;
  regional medians after a reference to the lateral ventricles; a calcification's moment and streaking.

References
----------
QSM Challenge 2.0 Organization Committee (2021), Magn Reson Med 86:1241; Ravishankar & Bresler (2011), IEEE Trans Med
Imaging 30:1028 (HFEN); Milovic et al. (2025), Magn Reson Med 93:411 (XSIM).
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from brainlocus.core import Mask, Parcellation, check_same_grid
from brainlocus.io.nifti import read_mask, read_parcellation, read_volume

__all__ = [
    "CalcificationScores",
    "MapScores",
    "RegionScores",
    "calcification_scores",
    "core_mask",
    "correlation",
    "detrended_nrmse",
    "dgm_linearity",
    "hfen",
    "nrmse",
    "region_medians",
    "region_scores",
    "score_map",
    "xsim",
]

Map = Float[np.ndarray, "x y z"]
Inside = Bool[np.ndarray, "x y z"]

CORE_MM = 5.0
"""Depth below the mask's surface from which background removal no longer decides the error."""
LINEARITY_NUCLEI = ("caudate", "pallidum", "putamen", "substantia_nigra", "red_nucleus", "dentate")
LOG_SIGMA, LOG_RADIUS = 1.5, 7
RIM_VOXELS = 4
VENTRICLES, VEINS, CALCIFICATION = "lateral_ventricles", "veins", "calcification"


@dataclass(frozen=True, slots=True)
class RegionScores:
    """Medians of the nuclei, left and right apart, after the ventricles' mean was taken off both maps."""

    slope: float
    """Of reconstruction on truth."""
    r: float
    mean_absolute_error_ppb: float
    n_regions: int


@dataclass(frozen=True, slots=True)
class CalcificationScores:
    """How a strong source is kept."""

    moment_deviation_ppm_mm3: float
    """|V_t chi_t - V_r chi_r|, each lesion segmented at half its own contrast."""
    streak: float
    """Standard deviation of the error in a rim of 4 voxels around the lesion over the lesion's mean contrast."""


@dataclass(frozen=True, slots=True)
class MapScores:
    """All scores within one mask; percent where not said otherwise; NaN where there are no labels for it."""

    voxels: int
    nrmse: float
    detrended: float
    hfen: float
    xsim: float
    """At most 1."""
    correlation: float
    nrmse_tissue: float = np.nan
    detrended_tissue: float = np.nan
    nrmse_blood: float = np.nan
    detrended_blood: float = np.nan
    nrmse_dgm: float = np.nan
    detrended_dgm: float = np.nan
    dgm_linearity: float = np.nan
    """|1 - slope| of the nuclei's means."""
    regions: RegionScores | None = None
    calcification: CalcificationScores | None = None


def nrmse(recon: Map, truth: Map, mask: Inside) -> float:
    """Return 100 |r - t| / |t|, each map minus its mean in the mask."""
    r, t = _centred(recon, truth, mask)
    return float(100 * np.linalg.norm(r - t) / np.linalg.norm(t))


def detrended_nrmse(recon: Map, truth: Map, mask: Inside) -> float:
    """Return the error in percent after the reconstruction's slope on the truth is divided out."""
    r, t = _centred(recon, truth, mask)
    slope = np.dot(r, t) / np.dot(t, t)
    return float(100 * np.linalg.norm(r / slope - t) / np.linalg.norm(t))


def correlation(recon: Map, truth: Map, mask: Inside) -> float:
    """Return Pearson's correlation in the mask."""
    r, t = _centred(recon, truth, mask)
    return float(np.dot(r, t) / np.sqrt(np.dot(r, r) * np.dot(t, t)))


def hfen(recon: Map, truth: Map, mask: Inside) -> float:
    """Return the high-frequency error norm in percent; norms over all voxels that the filter reaches."""
    r, t = (_laplacian_of_gaussian(part) for part in _cropped(recon, truth, mask, LOG_RADIUS))
    return float(100 * np.linalg.norm(r - t) / np.linalg.norm(t))


def xsim(recon: Map, truth: Map, mask: Inside) -> float:
    """Return the mean structural similarity in the mask, of maps in ppm."""
    first, second = (0.01 * 1.0) ** 2, (0.001 * 1.0) ** 2
    r, t = _cropped(recon, truth, mask, 2)
    inside = _crop(mask, mask, 2)

    def window(image: Map) -> Map:
        return ndimage.uniform_filter(image, 5, mode="constant")

    mean_r, mean_t = window(r), window(t)
    variance_r, variance_t = window(r * r) - mean_r**2, window(t * t) - mean_t**2
    covariance = window(r * t) - mean_r * mean_t
    similarity = ((2 * mean_r * mean_t + first) * (2 * covariance + second)) / (
        (mean_r**2 + mean_t**2 + first) * (variance_r + variance_t + second)
    )
    return float(similarity[inside].mean())


def dgm_linearity(recon: Map, truth: Map, mask: Inside, labels: Parcellation) -> float:
    """Return |1 - slope| of reconstructed on true means of six nuclei, both sides together."""
    means = []
    for name in LINEARITY_NUCLEI:
        inside = mask & _named(labels, f"left_{name}", f"right_{name}")
        if inside.any():
            means.append((float(recon[inside].mean()), float(truth[inside].mean())))
    if len(means) < 3:
        return float("nan")
    found, expected = np.array(means).T
    return float(abs(1 - np.polyfit(expected, found, 1)[0]))


def region_medians(recon: Map, truth: Map, mask: Inside, labels: Parcellation) -> dict[str, tuple[float, float]]:
    """Return each nucleus' median in ppm in the reconstruction and the truth, against the mean of the ventricles.

    Raises
    ------
    ValueError
        No voxel of the lateral ventricles lies in the mask.
    """
    ventricles = mask & _named(labels, VENTRICLES)
    if not ventricles.any():
        raise ValueError("Expected lateral ventricles in the mask for the reference, found none.")
    zero_r, zero_t = (float(image[ventricles].mean(dtype=np.float64)) for image in (recon, truth))
    medians = {}
    for name in labels.names.values():
        if name.startswith(("left_", "right_")):
            inside = mask & _named(labels, name)
            if inside.any():
                medians[name] = float(np.median(recon[inside])) - zero_r, float(np.median(truth[inside])) - zero_t
    return medians


def region_scores(recon: Map, truth: Map, mask: Inside, labels: Parcellation) -> RegionScores:
    """Return slope, correlation and mean absolute error of the nuclei's medians; see `region_medians`."""
    found, expected = np.array(list(region_medians(recon, truth, mask, labels).values())).T
    return RegionScores(
        slope=float(np.polyfit(expected, found, 1)[0]),
        r=float(np.corrcoef(expected, found)[0, 1]),
        mean_absolute_error_ppb=float(1000 * np.mean(np.abs(found - expected))),
        n_regions=len(found),
    )


def calcification_scores(
    recon: Map, truth: Map, mask: Inside, lesion: Inside, voxel_size_mm: tuple[float, float, float]
) -> CalcificationScores:
    """Return how a calcification is kept.

    The lesion is searched within the rim; in each map it is where the contrast to the rim's median is more than half
    of the strongest.

    Raises
    ------
    ValueError
        The lesion is empty.
    """
    if not lesion.any():
        raise ValueError("Expected a lesion, found an empty mask.")
    ball = ndimage.distance_transform_edt(~lesion) <= RIM_VOXELS
    rim = ball & mask & ~lesion
    moments = []
    for image in (recon, truth):
        contrast = np.where(ball & mask, image - np.median(image[rim]), 0.0)
        segment = contrast < 0.5 * contrast[lesion].min()
        moments.append(float(contrast[segment].sum(dtype=np.float64)) * float(np.prod(voxel_size_mm)))
    strength = abs(float(truth[lesion].mean(dtype=np.float64)) - float(np.median(truth[rim])))
    return CalcificationScores(
        moment_deviation_ppm_mm3=abs(moments[0] - moments[1]),
        streak=float(np.std((recon - truth)[rim], dtype=np.float64)) / strength,
    )


def core_mask(mask: Inside, voxel_size_mm: tuple[float, float, float], depth_mm: float = CORE_MM) -> Inside:
    """Return the voxels deeper than `depth_mm` below the mask's surface; the image's border counts as surface."""
    padded = np.pad(mask, 1)
    depth = ndimage.distance_transform_edt(padded, sampling=voxel_size_mm)
    return np.asarray(depth[1:-1, 1:-1, 1:-1] > depth_mm)


def score_map(
    recon: Map,
    truth: Map,
    mask: Inside,
    *,
    voxel_size_mm: tuple[float, float, float],
    labels: Parcellation | None = None,
) -> MapScores:
    """Return every score in a mask.

    Parameters
    ----------
    recon, truth
        ppm.
    labels
        With the names of `brainlocus.simulate.anatomy.LABEL_NAMES`.

    Raises
    ------
    ValueError
        The mask is empty, or a map has values in it that are not finite (counted).
    """
    if not mask.any():
        raise ValueError("Expected a mask with voxels, found an empty one.")
    for name, image in (("reconstruction", recon), ("truth", truth)):
        bad = int((~np.isfinite(image[mask])).sum())
        if bad:
            raise ValueError(f"Expected finite values in the mask, found {bad} voxels of the {name} that are not.")
    plain = MapScores(
        voxels=int(mask.sum()),
        nrmse=nrmse(recon, truth, mask),
        detrended=detrended_nrmse(recon, truth, mask),
        hfen=hfen(recon, truth, mask),
        xsim=xsim(recon, truth, mask),
        correlation=correlation(recon, truth, mask),
    )
    if labels is None:
        return plain
    nuclei = _named(labels, *(name for name in labels.names.values() if name.startswith(("left_", "right_"))))
    veins = _named(labels, VEINS)
    parts = {
        "tissue": _named(labels, "grey_matter", "white_matter") | nuclei,
        "blood": ndimage.binary_dilation(veins, iterations=1),
        "dgm": nuclei,
    }
    extra: dict[str, float] = {}
    for name, part in parts.items():
        inside = mask & part
        if int(inside.sum()) > 1:
            extra[f"nrmse_{name}"] = nrmse(recon, truth, inside)
            extra[f"detrended_{name}"] = detrended_nrmse(recon, truth, inside)
    lesion = mask & _named(labels, CALCIFICATION)
    return MapScores(
        voxels=plain.voxels,
        nrmse=plain.nrmse,
        detrended=plain.detrended,
        hfen=plain.hfen,
        xsim=plain.xsim,
        correlation=plain.correlation,
        dgm_linearity=dgm_linearity(recon, truth, mask, labels),
        regions=region_scores(recon, truth, mask, labels) if (mask & _named(labels, VENTRICLES)).any() else None,
        calcification=calcification_scores(recon, truth, mask, lesion, voxel_size_mm) if lesion.any() else None,
        **extra,
    )


def _named(labels: Parcellation, *names: str) -> Inside:
    return np.isin(labels.labels, [label for label, name in labels.names.items() if name in names])


def _centred(recon: Map, truth: Map, mask: Inside) -> tuple[Float[np.ndarray, " voxels"], Float[np.ndarray, " voxels"]]:
    r, t = recon[mask].astype(np.float64), truth[mask].astype(np.float64)
    return r - r.mean(), t - t.mean()


def _crop(image: np.ndarray, mask: Inside, margin: int) -> np.ndarray:
    """Return the block around the mask, with zeros where it reaches beyond the image."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    return np.pad(image[box], margin)


def _cropped(recon: Map, truth: Map, mask: Inside, margin: int) -> tuple[Map, Map]:
    """Return both maps minus their means, 0 outside the mask, around the mask."""
    filled = []
    for values in _centred(recon, truth, mask):
        image = np.zeros(mask.shape)
        image[mask] = values
        filled.append(_crop(image, mask, margin))
    return filled[0], filled[1]


def _laplacian_of_gaussian(image: Map) -> Map:
    """Return LoG over 15^3 voxels with a sum of 0, as MATLAB's fspecial3 makes it; beyond the image lie zeros.

    h = (|x|^2 - 3 s^2) / s^4 g(x) minus its mean, g a Gaussian with a sum of 1: three separable filters and a mean.
    """
    x = np.arange(-LOG_RADIUS, LOG_RADIUS + 1, dtype=np.float64)
    gauss = np.exp(-(x**2) / (2 * LOG_SIGMA**2))
    gauss /= gauss.sum()
    curved = (x**2 - LOG_SIGMA**2) / LOG_SIGMA**4 * gauss
    total = np.zeros_like(image)
    for bent in range(3):
        part = image
        for axis in range(3):
            part = ndimage.correlate1d(part, curved if axis == bent else gauss, axis=axis, mode="constant")
        total += part
    # The mean of h is 3 sum(curved) / 15^3; a uniform filter over 15^3 voxels divides by 15^3 itself.
    return total - 3 * curved.sum() * ndimage.uniform_filter(image, 2 * LOG_RADIUS + 1, mode="constant")


def _rows(scores: MapScores) -> dict[str, float]:
    rows: dict[str, float] = {}
    for name, value in asdict(scores).items():
        if isinstance(value, dict):
            rows.update({f"{name}_{key}": float(part) for key, part in value.items()})
        elif value is not None:
            rows[name] = float(value)
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Print the scores of a reconstruction, in its mask and 5 mm below the mask's surface."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.qsm_scores", description=main.__doc__)
    for name in ("recon", "truth", "mask"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--labels", type=Path)
    chosen = parser.parse_args(arguments)
    recon, truth = (read_volume(path, quantity="susceptibility", unit="ppm") for path in (chosen.recon, chosen.truth))
    mask: Mask = read_mask(chosen.mask)
    labels = read_parcellation(chosen.labels) if chosen.labels else None
    for what, grid in (("RECON", recon.grid), ("MASK", mask.grid), *((("LABELS", labels.grid),) if labels else ())):
        check_same_grid(grid, truth.grid, what=what)
    x, y, z = (float(v) for v in np.linalg.norm(truth.affine[:3, :3], axis=0))
    core = core_mask(mask.data, (x, y, z))
    columns = {"mask": mask.data, **({"core": core} if core.any() else {})}
    scored = {
        name: _rows(score_map(recon.data, truth.data, inside, voxel_size_mm=(x, y, z), labels=labels))
        for name, inside in columns.items()
    }
    print(f"{'score':<40}" + "".join(f"{name:>12}" for name in scored))
    for row in dict.fromkeys(key for rows in scored.values() for key in rows):
        print(f"{row:<40}" + "".join(f"{rows.get(row, float('nan')):>12.5g}" for rows in scored.values()))


if __name__ == "__main__":
    main()
