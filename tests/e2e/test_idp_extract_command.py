"""``idp extract``: weighted by components, and of maps on other grids."""

import json

import numpy as np
import pytest

from brainlocus.core import Mask, Parcellation, Volume
from brainlocus.io import read_table, write_mask, write_parcellation, write_volume
from tests.e2e.test_cohort_commands import run

SHAPE = (12, 14, 10)
AFFINE = np.array([[-2.0, 0, 0, 11], [0, 2, 0, -13], [0, 0, 2, -9], [0, 0, 0, 1]])
FINE = np.array([[0, 1.0, 0, -11.5], [0, 0, -1.0, 13.5], [1.0, 0, 0, -9.5], [0, 0, 0, 1]])
"""The same box in voxels of 1 mm, axes S, R, P."""
FINE_SHAPE = (20, 24, 28)


def smooth(affine, shape, shift):
    """A map that is linear in the world's coordinates, so that linear interpolation is exact."""
    index = np.indices(shape).reshape(3, -1)
    x, y, z = affine[:3, :3] @ index + affine[:3, 3:]
    return (5.0 + shift + 0.05 * x - 0.04 * y + 0.03 * z).reshape(shape).astype(np.float32)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("extract")
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[2:6, 2:12, 2:8], labels[6:10, 2:12, 2:5], labels[6:10, 2:12, 5:8] = 1, 2, 4
    mask = Mask(labels > 0, AFFINE)
    names = {k: f"C4_{k}" for k in range(1, 5)}
    write_parcellation(Parcellation(labels, AFFINE, names), root / "atlas" / "C4" / "labels.nii.gz")
    write_mask(mask, root / "atlas" / "mask.nii.gz")
    weights = np.random.default_rng(0).uniform(0.1, 1, (int(mask.data.sum()), 4)).astype(np.float32)
    weights *= labels[mask.data][:, None] == np.arange(1, 5)
    np.save(root / "atlas" / "C4" / "components.npy", weights)
    for k in range(3):
        write_volume(Volume(smooth(AFFINE, SHAPE, k), AFFINE, ""), root / "maps" / f"sub-{k}_map.nii.gz")
        write_volume(Volume(smooth(FINE, FINE_SHAPE, k), FINE, ""), root / "fine" / f"sub-{k}_map.nii.gz")
    return root


def extracted(capsys, study, maps, out, *arguments):
    code, said = run(
        capsys, "idp", "extract", study / maps, "--pattern", "*_map.nii.gz", "--atlas", study / "atlas", "--out", out,
        "--quiet", *arguments,
    )  # fmt: skip
    return code, said, read_table(out).matrix() if code == 0 else None


def test_loading(study, tmp_path, capsys):
    code, said, found = extracted(capsys, study, "maps", tmp_path / "l.tsv", "--statistic", "loading")
    assert code == 0, said
    assert read_table(tmp_path / "l.tsv").names == ("C4_1", "C4_2", "C4_4")
    weights = np.load(study / "atlas" / "C4" / "components.npy").astype(float)[:, [0, 1, 3]]
    inside = np.flatnonzero(_labels(study).ravel())
    for k in range(3):
        x = smooth(AFFINE, SHAPE, k).ravel()[inside].astype(float)
        np.testing.assert_allclose(found[k], weights.T @ x / weights.sum(axis=0), rtol=1e-6)
    assert json.loads((tmp_path / "l.tsv.json").read_text())["counts"]["vanished_parcels"] == ["C4_3"]


def _labels(study):
    from brainlocus.io import read_parcellation

    return read_parcellation(study / "atlas" / "C4" / "labels.nii.gz").labels


def test_another_grid_is_refused_unless_asked_for(study, tmp_path, capsys):
    code, said, _ = extracted(capsys, study, "fine", tmp_path / "no.tsv")
    assert code == 2
    assert "sub-0_map.nii.gz has shape (20, 24, 28), expected (12, 14, 10)" in said
    assert "--resample labels" in said
    assert not (tmp_path / "no.tsv").exists()


@pytest.mark.parametrize("statistic", ["sum", "mean", "median", "loading"])
def test_maps_brought_to_the_atlas(study, tmp_path, capsys, statistic):
    """Linear interpolation of a linear map gives the map's own values at the atlas's voxels."""
    _, _, expected = extracted(capsys, study, "maps", tmp_path / "a.parquet", "--statistic", statistic)
    code, said, found = extracted(
        capsys, study, "fine", tmp_path / "b.parquet", "--statistic", statistic, "--resample", "maps"
    )
    assert code == 0, said
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_labels_brought_to_the_maps(study, tmp_path, capsys):
    """Each atlas voxel is eight of the maps', which have the same mean and the same volume together."""
    for statistic in ("sum", "mean"):
        _, _, expected = extracted(capsys, study, "maps", tmp_path / "a.parquet", "--statistic", statistic)
        code, said, found = extracted(
            capsys, study, "fine", tmp_path / "b.parquet", "--statistic", statistic, "--resample", "labels"
        )
        assert code == 0, said
        np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_equal_grids_need_no_resampling(study, tmp_path, capsys):
    _, _, plain = extracted(capsys, study, "maps", tmp_path / "a.parquet")
    for how in ("labels", "maps"):
        _, _, found = extracted(capsys, study, "maps", tmp_path / f"{how}.parquet", "--resample", how)
        np.testing.assert_array_equal(found, plain)


def test_parcel_without_a_voxel_of_the_map(study, tmp_path, capsys):
    """A map that ends before a parcel: no value for it by labels, missing voxels by maps."""
    (tmp_path / "short").mkdir()
    affine = AFFINE @ np.array([[1.0, 0, 0, 6], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    write_volume(Volume(smooth(affine, (6, 14, 10), 0), affine, ""), tmp_path / "short" / "sub-0_map.nii.gz")
    common = ("--pattern", "*_map.nii.gz", "--atlas", study / "atlas", "--quiet")
    code, _ = run(
        capsys, "idp", "extract", tmp_path / "short", *common, "--resample", "labels", "--out", tmp_path / "a.tsv"
    )
    assert code == 0
    assert np.isnan(read_table(tmp_path / "a.tsv").matrix()).tolist() == [[True, False, False]]
    code, _ = run(
        capsys, "idp", "extract", tmp_path / "short", *common, "--resample", "maps", "--statistic", "mean", "--out",
        tmp_path / "b.tsv",
    )  # fmt: skip
    assert code == 0
    assert np.isnan(read_table(tmp_path / "b.tsv").matrix()).tolist() == [[True, False, False]]
    assert json.loads((tmp_path / "b.tsv.json").read_text())["counts"]["missing_voxels"] == 4 * 10 * 6


def test_bad_input(study, tmp_path, capsys):
    code, said, _ = extracted(
        capsys, study, "fine", tmp_path / "no.tsv", "--statistic", "loading", "--resample", "labels"
    )
    assert code == 2
    assert "take --resample maps instead" in said
    far = AFFINE.copy()
    far[1, 3] += 900
    write_volume(Volume(smooth(AFFINE, SHAPE, 0), far, ""), tmp_path / "far" / "sub-0_map.nii.gz")
    for how, message in (("maps", "no voxel of the map lies on the atlas's grid"), ("labels", "no label lies on")):
        code, said = run(
            capsys, "idp", "extract", tmp_path / "far", "--pattern", "*_map.nii.gz", "--atlas", study / "atlas",
            "--resample", how, "--out", tmp_path / "no.tsv", "--quiet",
        )  # fmt: skip
        assert code == 2
        assert message in said
    labels = study / "atlas" / "C4" / "labels.nii.gz"
    (tmp_path / "alone.nii.gz").write_bytes(labels.read_bytes())
    code, said = run(
        capsys, "idp", "extract", study / "maps", "--pattern", "*_map.nii.gz", "--atlas", tmp_path / "alone.nii.gz",
        "--statistic", "loading", "--out", tmp_path / "no.tsv", "--quiet",
    )  # fmt: skip
    assert code == 2
    assert "expected components.npy beside" in said
    assert not (tmp_path / "no.tsv").exists()
