"""Atlas tools: scales linked, parcels named, fits compared, and image-derived phenotypes of many images.

Grids are those of the published MuSIC atlas (91 x 109 x 91, 84,090 voxels) with random parcels of its six scales, so
that no data are needed; with BRAINLOCUS_DATA the published figures are printed, too.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.measure import Measurement, cpu_seconds, wall_seconds
from brainlocus.cli.main import main
from brainlocus.core import Grid, Parcellation, Volume
from brainlocus.images.atlas import (
    ScaleParcels,
    annotate_parcels,
    compare_fits,
    grow_tree,
    link_scales,
    unit_components,
)
from brainlocus.images.idp import extract_volume, prepare_extraction
from brainlocus.io import read_parcellation, read_volume, write_parcellation, write_volume
from brainlocus.numerics import resample_labels

SHAPE = (91, 109, 91)
AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
N_VOXELS = 84_090
SCALES = (32, 64, 128, 256, 512, 1024)
PUBLISHED = {
    "containment": (0.738, 0.765, 0.773, 0.764, 0.761),
    "adjusted Rand": (0.402, 0.481, 0.441, 0.430, 0.554),
    "median parcel size": (1255.5, 504, 286, 157, 72),
}
N_IMAGES = 400


def atlases() -> list[Parcellation]:
    """Return parcels of every scale over one mask."""
    rng = np.random.default_rng(0)
    inside = np.sort(rng.choice(int(np.prod(SHAPE)), N_VOXELS, replace=False))
    found = []
    for scale in SCALES:
        labels = np.zeros(int(np.prod(SHAPE)), dtype=np.int16)
        labels[inside] = rng.integers(1, scale + 1, N_VOXELS)
        found.append(Parcellation(labels.reshape(SHAPE), AFFINE))
    return found


def hierarchy() -> list[Measurement]:
    rng = np.random.default_rng(1)
    rows = []
    for n in (N_VOXELS, 1_000_000):
        pair = [ScaleParcels(s, rng.integers(1, s + 1, n)) for s in (512, 1024)]
        _, seconds = cpu_seconds(lambda p=pair: link_scales(*p))
        rows.append(Measurement("link 1,024 to 512 parcels, CPU", seconds, "s", 1.0, f"{n:,} voxels"))
    data = Path(os.environ.get("BRAINLOCUS_DATA", "")) / "structural" / "music_atlas"
    if os.environ.get("BRAINLOCUS_DATA") and data.is_dir():
        labels = [read_parcellation(data / f"MuSIC_C{s}.nii.gz").labels for s in SCALES]
        tree = grow_tree([ScaleParcels(s, m[labels[0] > 0]) for s, m in zip(SCALES, labels, strict=True)])
        found = {
            "containment": [link.mean_containment for link in tree.links],
            "adjusted Rand": [link.adjusted_rand for link in tree.links],
            "median parcel size": [float(np.median(s[s > 0])) for s in (tree.sizes(k) for k in range(1, 6))],
        }
        for name, expected in PUBLISHED.items():
            worst = float(np.abs(np.subtract(found[name], expected)).max())
            shown = ", ".join(f"{v:.4g}" for v in found[name])
            rows.append(Measurement(f"MuSIC, {name}, largest difference", worst, "", 5e-4, shown))
    return rows


def annotation() -> list[Measurement]:
    parcels = atlases()[-1]
    affine = np.array([[0, 0, 1.0, -90], [1.0, 0, 0, -125], [0, -1.0, 0, 108], [0, 0, 0, 1]])
    labels = np.random.default_rng(2).integers(0, 120, (217, 181, 181)).astype(np.int16)
    atlas = Parcellation(labels, affine)
    moved, resampling = cpu_seconds(lambda: resample_labels(atlas, Grid(SHAPE, AFFINE)))
    _, naming = cpu_seconds(lambda: annotate_parcels(parcels, moved))
    return [
        Measurement("atlas of 1 mm brought to 2 mm, CPU", resampling, "s", None, "7.1 million voxels, 120 regions"),
        Measurement("1,024 parcels named, CPU", naming, "s", None, "902,629 voxels"),
    ]


def comparison() -> list[Measurement]:
    rows = []
    rng = np.random.default_rng(3)
    for scale in (32, 1024):
        a = rng.integers(1, scale + 1, N_VOXELS)
        b = np.where(rng.random(N_VOXELS) < 0.7, a, rng.integers(1, scale + 1, N_VOXELS))
        weights = []
        for labels in (a, b):
            dense = np.zeros((N_VOXELS, scale), dtype=np.float32)
            dense[np.arange(N_VOXELS), labels - 1] = rng.uniform(0.2, 1, N_VOXELS)
            weights.append(dense)
        units, reading = cpu_seconds(lambda w=weights: [unit_components(x) for x in w])
        found, seconds = cpu_seconds(
            lambda u=units, x=a, y=b: compare_fits(*u, (x, y), generator=np.random.default_rng(0), permutations=10)
        )
        note = f"{N_VOXELS:,} voxels; index {found.index:.3f}, permuted {found.null.mean():.3f}"
        rows.append(Measurement(f"two fits of {scale} compared, CPU", seconds, "s", None, f"{note}; 10 permutations"))
        rows.append(Measurement(f"two fits of {scale}, components read, CPU", reading, "s", None, ""))
    return rows


def phenotypes() -> list[Measurement]:
    parcels = atlases()
    rng = np.random.default_rng(4)
    inside = parcels[0].labels > 0
    rows: list[Measurement] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for k in range(N_IMAGES):
            data = (rng.uniform(size=SHAPE) * inside).astype(np.float32) if k < 20 else data
            write_volume(Volume(data, AFFINE, ""), root / "maps" / f"sub-{k:04d}_map.nii.gz")
        for parcellation, scale in zip(parcels, SCALES, strict=True):
            write_parcellation(parcellation, root / "atlas" / f"C{scale}" / "labels.nii.gz")
        indexes = [prepare_extraction(p) for p in parcels]
        paths = sorted((root / "maps").iterdir())[:40]
        volumes, reading = cpu_seconds(lambda: [read_volume(p) for p in paths])
        note = f"{N_VOXELS:,} voxels of {inside.size:,}, gzip"
        rows.append(Measurement("one map read, CPU", 1e3 * reading / len(paths), "ms", None, note))
        for statistic in ("sum", "median"):
            _, seconds = cpu_seconds(
                lambda s=statistic: [extract_volume(i, v, what="", statistic=s) for v in volumes for i in indexes]
            )
            each = 1e9 * seconds / len(paths) / len(SCALES) / N_VOXELS
            rows.append(
                Measurement(
                    f"six scales of one map, {statistic}, CPU",
                    1e3 * seconds / len(paths),
                    "ms",
                    None,
                    f"{seconds / reading:.2f} of the time to read it; {each:.1f} ns a voxel and scale",
                )
            )
        arguments = ["idp", "extract", str(root / "maps"), "--pattern", "*_map.nii.gz", "--atlas", str(root / "atlas")]
        arguments += ["--out", str(root / "idps.parquet"), "--threads", "1", "--quiet"]
        _, wall = wall_seconds(lambda: _command(arguments))
        rows.append(
            Measurement("idp extract, images a second", N_IMAGES / wall, "1/s", None, f"{N_IMAGES} maps, 6 scales")
        )
        rows += _beside_nilearn(paths[:10], root)
    return rows


def _command(arguments: list[str]) -> None:
    code: object = None
    try:
        main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert not code, f"idp extract ended with {code}"


def _beside_nilearn(paths: list[Path], root: Path) -> list[Measurement]:
    """Return how many times faster sums are than those of nilearn's masker, on the same files, reading included."""
    from nilearn.maskers import NiftiLabelsMasker

    labels = root / "atlas" / "C128" / "labels.nii.gz"
    index = prepare_extraction(read_parcellation(labels))
    masker = NiftiLabelsMasker(
        str(labels), strategy="sum", standardize=None, resampling_target=None, reports=False
    ).fit()
    theirs, slow = cpu_seconds(lambda: np.vstack([masker.transform(str(p)) for p in paths]))
    ours, fast = cpu_seconds(lambda: np.vstack([extract_volume(index, read_volume(p), what="").values for p in paths]))
    worst = float(np.abs(theirs * index.grid.voxel_volume_mm3 / ours - 1).max())
    return [
        Measurement("sums beside nilearn's masker, times faster", slow / fast, "x", None, "reading included, C128"),
        Measurement("sums, largest relative difference from nilearn", worst, "", 1e-5, "nilearn sums in float32"),
    ]


def run() -> list[Measurement]:
    with threadpool_limits(1):
        return [*hierarchy(), *annotation(), *comparison(), *phenotypes()]
