"""The scorer of `benchmarks.qsm_scores`: closed forms, literal filters and planted regions."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks import qsm_scores as scores

from brainlocus.core import Mask, Parcellation, Volume
from brainlocus.io.nifti import write_mask, write_parcellation, write_volume

SHAPE = (20, 22, 18)
VOXEL = (1.0, 1.0, 2.0)


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(0).normal(0.0, 0.05, SHAPE)


@pytest.fixture
def mask() -> np.ndarray:
    inside = np.zeros(SHAPE, dtype=bool)
    inside[3:17, 2:20, 2:15] = True
    return inside


@pytest.fixture
def labels(mask: np.ndarray) -> Parcellation:
    data = np.zeros(SHAPE, dtype=np.int16)
    names = {
        1: "lateral_ventricles", 2: "grey_matter", 3: "veins", 4: "calcification",
        **{5 + k: f"{side}_{name}" for k, (name, side) in enumerate(
            (n, s) for n in ("caudate", "pallidum", "putamen", "substantia_nigra") for s in ("left", "right")
        )},
    }  # fmt: skip
    data[mask] = 2
    data[3:6, 3:8, 3:8] = 1
    data[10, 10, 4:12] = 3
    data[14:16, 16:18, 10:12] = 4
    for label in range(5, 13):
        data[6 + label % 2 * 4 : 9 + label % 2 * 4, 2 * (label // 2) + 1 : 2 * (label // 2) + 3, 5:9] = label
    return Parcellation(data, np.diag([*VOXEL, 1.0]), names)


def test_a_map_against_itself_is_perfect(truth: np.ndarray, mask: np.ndarray, labels: Parcellation) -> None:
    result = scores.score_map(truth, truth, mask, voxel_size_mm=VOXEL, labels=labels)
    for name in ("nrmse", "hfen", "nrmse_tissue", "nrmse_blood", "nrmse_dgm"):
        assert getattr(result, name) == 0
    for name in ("detrended", "detrended_tissue", "detrended_blood", "detrended_dgm", "dgm_linearity"):
        assert getattr(result, name) == pytest.approx(0, abs=1e-10)
    assert result.xsim == pytest.approx(1)
    assert result.correlation == pytest.approx(1)
    assert result.voxels == mask.sum()
    assert result.regions is not None
    assert result.calcification is not None
    assert (result.regions.slope, result.regions.r) == pytest.approx((1, 1))
    assert (result.regions.mean_absolute_error_ppb, result.regions.n_regions) == (0, 8)
    assert (result.calcification.moment_deviation_ppm_mm3, result.calcification.streak) == (0, 0)


def test_a_scaled_map_loses_what_its_scale_says(truth: np.ndarray, mask: np.ndarray, labels: Parcellation) -> None:
    result = scores.score_map(0.7 * truth, truth, mask, voxel_size_mm=VOXEL, labels=labels)
    assert (result.nrmse, result.nrmse_tissue, result.nrmse_dgm) == pytest.approx((30, 30, 30))
    assert result.hfen == pytest.approx(30)
    assert result.detrended == pytest.approx(0, abs=1e-10)
    assert result.dgm_linearity == pytest.approx(0.3)
    assert result.regions is not None
    assert (result.regions.slope, result.regions.r) == pytest.approx((0.7, 1))
    assert result.xsim < 0.99


def test_a_constant_added_to_a_map_costs_nothing(truth: np.ndarray, mask: np.ndarray, labels: Parcellation) -> None:
    recon = truth + np.random.default_rng(1).normal(0, 0.02, SHAPE)
    plain, shifted = (
        scores.score_map(image, truth, mask, voxel_size_mm=VOXEL, labels=labels) for image in (recon, recon + 0.4)
    )
    assert shifted.regions is not None
    assert plain.regions is not None
    for name in ("nrmse", "detrended", "hfen", "xsim", "correlation", "dgm_linearity", "nrmse_blood"):
        assert getattr(shifted, name) == pytest.approx(getattr(plain, name))
    assert shifted.regions.mean_absolute_error_ppb == pytest.approx(plain.regions.mean_absolute_error_ppb)
    assert shifted.calcification is not None
    assert plain.calcification is not None
    assert shifted.calcification.moment_deviation_ppm_mm3 == pytest.approx(plain.calcification.moment_deviation_ppm_mm3)
    assert shifted.calcification.streak == pytest.approx(plain.calcification.streak)


def test_detrended_error_is_a_function_of_the_correlation(truth: np.ndarray, mask: np.ndarray) -> None:
    recon = 0.4 * truth + np.random.default_rng(1).normal(0, 0.02, SHAPE)
    r = np.corrcoef(recon[mask], truth[mask])[0, 1]
    assert scores.correlation(recon, truth, mask) == pytest.approx(r)
    assert scores.detrended_nrmse(recon, truth, mask) == pytest.approx(100 * np.sqrt(1 / r**2 - 1))


def test_values_outside_the_mask_count_for_nothing(truth: np.ndarray, mask: np.ndarray) -> None:
    recon = truth + np.random.default_rng(1).normal(0, 0.02, SHAPE)
    wild = np.where(mask, recon, np.nan)
    expected = scores.score_map(recon, truth, mask, voxel_size_mm=VOXEL)
    assert scores.score_map(wild, truth, mask, voxel_size_mm=VOXEL).hfen == expected.hfen
    assert scores.score_map(wild, truth, mask, voxel_size_mm=VOXEL).xsim == expected.xsim


def test_hfen_filters_with_the_laplacian_of_a_gaussian(truth: np.ndarray, mask: np.ndarray) -> None:
    recon = truth + np.random.default_rng(1).normal(0, 0.02, SHAPE)
    x = np.arange(-7, 8)
    squared = x[:, None, None] ** 2 + x[None, :, None] ** 2 + x[None, None, :] ** 2
    gauss = np.exp(-squared / (2 * 1.5**2))
    kernel = gauss / gauss.sum() * (squared - 3 * 1.5**2) / 1.5**4
    kernel -= kernel.mean()
    filtered = []
    for image in (recon, truth):
        padded = np.pad(np.where(mask, image - image[mask].mean(), 0), 20)
        full = np.fft.irfftn(
            np.fft.rfftn(padded) * np.fft.rfftn(kernel, s=padded.shape, axes=(0, 1, 2)), s=padded.shape, axes=(0, 1, 2)
        )
        filtered.append(full)
    expected = 100 * np.linalg.norm(filtered[0] - filtered[1]) / np.linalg.norm(filtered[1])
    assert scores.hfen(recon, truth, mask) == pytest.approx(expected, rel=1e-9)


def test_xsim_is_the_mean_of_windows_read_literally(truth: np.ndarray, mask: np.ndarray) -> None:
    recon = truth + np.random.default_rng(1).normal(0, 0.02, SHAPE)
    r, t = (np.pad(np.where(mask, image - image[mask].mean(), 0), 2) for image in (recon, truth))
    values = []
    for i, j, k in np.argwhere(mask):
        a, b = (image[i : i + 5, j : j + 5, k : k + 5] for image in (r, t))
        covariance = np.mean((a - a.mean()) * (b - b.mean()))
        values.append(
            (2 * a.mean() * b.mean() + 1e-4) * (2 * covariance + 1e-6)
            / ((a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (a.var() + b.var() + 1e-6))
        )  # fmt: skip
    assert scores.xsim(recon, truth, mask) == pytest.approx(np.mean(values))


def test_regions_are_medians_against_the_ventricles(truth: np.ndarray, mask: np.ndarray, labels: Parcellation) -> None:
    recon = truth.copy()
    recon[labels.labels == 5] += 0.010
    recon[labels.labels == 1] += 0.004
    medians = scores.region_medians(recon, truth, mask, labels)
    assert len(medians) == 8
    for name, (found, expected) in medians.items():
        assert found - expected == pytest.approx(0.006 if name == "left_caudate" else -0.004)
    result = scores.region_scores(recon, truth, mask, labels)
    assert result.mean_absolute_error_ppb == pytest.approx((6 + 7 * 4) / 8)


def test_a_calcification_keeps_its_moment_when_it_is_kept(mask: np.ndarray) -> None:
    truth = np.zeros(SHAPE)
    lesion = np.zeros(SHAPE, dtype=bool)
    lesion[8:11, 8:11, 8:11] = True
    truth[lesion] = -3.0
    kept = scores.calcification_scores(truth + 0.02, truth, mask, lesion, VOXEL)
    assert kept.moment_deviation_ppm_mm3 == pytest.approx(0, abs=1e-9)
    weak = scores.calcification_scores(0.6 * truth, truth, mask, lesion, VOXEL)
    assert weak.moment_deviation_ppm_mm3 == pytest.approx(0.4 * 3.0 * 27 * 2)
    streaked = truth + np.where(lesion, 0, np.random.default_rng(0).normal(0, 0.3, SHAPE))
    assert scores.calcification_scores(streaked, truth, mask, lesion, VOXEL).streak == pytest.approx(0.1, rel=0.1)


def test_the_core_lies_deeper_than_five_millimetres(mask: np.ndarray) -> None:
    core = scores.core_mask(mask, VOXEL)
    # 14 x 18 x 13 voxels of 1, 1 and 2 mm; depth counts from the centre of the first voxel outside.
    assert core.sum() == (14 - 10) * (18 - 10) * (13 - 4)
    whole = scores.core_mask(np.ones((15, 15, 15), dtype=bool), (1.0, 1.0, 1.0))
    assert whole.sum() == 5**3


def test_bad_maps_are_refused(truth: np.ndarray, mask: np.ndarray, labels: Parcellation) -> None:
    with pytest.raises(ValueError, match="empty"):
        scores.score_map(truth, truth, np.zeros(SHAPE, dtype=bool), voxel_size_mm=VOXEL)
    broken = truth.copy()
    broken[5, 5, 5] = np.nan
    with pytest.raises(ValueError, match="1 voxels of the reconstruction"):
        scores.score_map(broken, truth, mask, voxel_size_mm=VOXEL)
    with pytest.raises(ValueError, match="lesion"):
        scores.calcification_scores(truth, truth, mask, np.zeros(SHAPE, dtype=bool), VOXEL)
    with pytest.raises(ValueError, match="ventricles"):
        scores.region_medians(truth, truth, mask & (labels.labels != 1), labels)


def test_the_command_prints_both_masks(
    truth: np.ndarray, mask: np.ndarray, labels: Parcellation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    affine = labels.affine
    for name, image in (("truth", truth), ("recon", 0.9 * truth)):
        write_volume(Volume(image.astype(np.float32), affine, "susceptibility", "ppm"), tmp_path / f"{name}.nii.gz")
    write_mask(Mask(mask, affine), tmp_path / "mask.nii.gz")
    write_parcellation(labels, tmp_path / "labels.nii.gz")
    files = [str(tmp_path / f"{name}.nii.gz") for name in ("recon", "truth", "mask")]
    scores.main([*files, "--labels", str(tmp_path / "labels.nii.gz")])
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert lines["score"] == ["mask", "core"]
    assert [float(v) for v in lines["nrmse"]] == pytest.approx([10, 10], abs=1e-3)
    assert float(lines["regions_slope"][0]) == pytest.approx(0.9, abs=1e-4)
