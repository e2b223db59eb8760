"""NIfTI round trips and what is refused."""

import gzip
import json

import nibabel
import numpy as np
import pytest

from brainlocus.core import FormatError, Mask, Parcellation, Volume
from brainlocus.io import (
    read_mask,
    read_parcellation,
    read_volume,
    write_dataset_description,
    write_derivative,
    write_mask,
    write_parcellation,
    write_volume,
)
from brainlocus.io.nifti_header import read_header
from tests.real_data import real_data

AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])


@pytest.fixture
def data():
    return np.random.default_rng(0).uniform(size=(4, 5, 6)).astype(np.float32)


@pytest.mark.parametrize("name", ["map.nii", "map.nii.gz"])
def test_volume_round_trip(tmp_path, data, name):
    write_volume(Volume(data, AFFINE, "grey_matter"), tmp_path / name)
    back = read_volume(tmp_path / name, quantity="grey_matter", unit="fraction")
    np.testing.assert_array_equal(back.data, data)
    np.testing.assert_array_equal(back.affine, AFFINE)
    assert (back.quantity, back.unit) == ("grey_matter", "fraction")
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_same_volume_same_bytes(tmp_path, data):
    for name in ("a", "b"):
        write_volume(Volume(data, AFFINE, ""), tmp_path / name / "x.nii.gz")
    assert (tmp_path / "a/x.nii.gz").read_bytes() == (tmp_path / "b/x.nii.gz").read_bytes()


def test_scaling_is_applied(tmp_path):
    image = nibabel.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(0.5, 1.0)
    nibabel.save(image, tmp_path / "s.nii")
    expected = 0.5 * np.arange(8).reshape(2, 2, 2) + 1.0
    np.testing.assert_array_equal(read_volume(tmp_path / "s.nii").data, expected)


def set_scaling(path, slope, intercept):
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[112:120] = np.array([slope, intercept], dtype=np.float32).tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))


@pytest.mark.parametrize(
    ("slope", "intercept"), [(np.nan, np.nan), (np.nan, 0.0), (np.nan, 3.0), (0.0, 5.0), (0.0, np.nan), (np.inf, 1.0)]
)
def test_a_slope_that_is_no_scaling_leaves_the_values_as_stored(tmp_path, slope, intercept):
    """As nibabel reads them, and as the NIfTI standard says of 0."""
    path = tmp_path / "x.nii.gz"
    stored = np.arange(1, 9, dtype=np.int16).reshape(2, 2, 2)
    nibabel.save(nibabel.Nifti1Image(stored, AFFINE), path)
    set_scaling(path, slope, intercept)
    for found in (read_volume(path).data, read_parcellation(path).labels, nibabel.load(path).get_fdata()):
        np.testing.assert_array_equal(found, stored)
    assert read_mask(path).data.all()


def test_mask_and_parcellation_round_trip(tmp_path, data):
    mask = Mask(data > 0.5, AFFINE)
    write_mask(mask, tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.nii.gz").data, mask.data)
    labels = (data * 4).astype(np.int32)
    parcels = Parcellation(labels, AFFINE, {1: "C3_1", 2: "C3_2", 3: "C3_3", 4: "C3_4"})
    write_parcellation(parcels, tmp_path / "labels.nii.gz")
    back = read_parcellation(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(back.labels, labels)
    assert back.labels.dtype == np.int8
    assert back.names == parcels.names


def test_float_labels_are_rounded_to_the_smallest_type(tmp_path):
    values = np.array([0, 1, 2, 1023.9999]).reshape(2, 2, 1)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), tmp_path / "f.nii")
    parcels = read_parcellation(tmp_path / "f.nii")
    assert parcels.labels.ravel().tolist() == [0, 1, 2, 1024]
    assert parcels.labels.dtype == np.int16


def corrupt(path, kind, data):
    image = nibabel.Nifti1Image(data, AFFINE)
    nibabel.save(image, path)
    if kind == "text":
        path.write_text("not an image")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "4-D":
        nibabel.save(nibabel.Nifti1Image(np.stack([data, data], axis=-1), AFFINE), path)
    elif kind == "nan intercept":
        set_scaling(path, 2.0, np.nan)
    elif kind == "missing":
        path.unlink()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "there is no such file"),
        ("text", "expected a NIfTI image"),
        ("truncated", "truncated or damaged|header cannot be read"),
        ("4-D", r"three-dimensional image, found shape \(4, 5, 6, 2\)"),
        ("nan intercept", "Valid slope but invalid intercept nan"),
    ],
)
def test_bad_files_are_named(tmp_path, data, kind, message):
    path = tmp_path / "bad.nii.gz"
    corrupt(path, kind, data)
    for reader in (read_volume, read_mask, read_parcellation):
        with pytest.raises(FormatError, match=message) as error:
            reader(path)
        assert str(path) in str(error.value)


def test_truncation_within_the_voxels(tmp_path):
    path = tmp_path / "big.nii.gz"
    write_volume(Volume(np.random.default_rng(0).uniform(size=(20, 20, 20)).astype(np.float32), AFFINE, ""), path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(FormatError, match="truncated or damaged"):
        read_volume(path)


def test_maps_are_not_labels_and_empty_masks_are_refused(tmp_path, data):
    write_volume(Volume(data, AFFINE, ""), tmp_path / "map.nii")
    with pytest.raises(FormatError, match="expected integer labels"):
        read_parcellation(tmp_path / "map.nii")
    write_volume(Volume(0 * data, AFFINE, ""), tmp_path / "zero.nii")
    with pytest.raises(FormatError, match="mask is empty"):
        read_mask(tmp_path / "zero.nii")


def test_published_atlas_is_left_posterior_superior():
    parcels = read_parcellation(real_data("structural/music_atlas/MuSIC_C1024.nii.gz"))
    assert parcels.labels.dtype == np.int16
    assert np.unique(parcels.labels).size - 1 == 1011
    assert nibabel.aff2axcodes(parcels.affine) == ("L", "P", "S")


def test_derivatives_have_sidecars_units_and_intent(tmp_path, data):
    volume = Volume(data, AFFINE, "chi_ppm", "ppm")
    path = tmp_path / "sub-01/anat/sub-01_Chimap.nii.gz"
    write_derivative(volume, path, {"EchoTime": np.array([0.0094, 0.02]), "Reference": float("nan"), "Source": path})
    image = nibabel.load(path)
    assert image.header.get_intent()[::2] == ("estimate", "chi_ppm")
    assert image.header.get_xyzt_units()[0] == "mm"
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(read_volume(path).data, data)
    content = json.loads(path.with_name("sub-01_Chimap.json").read_text())
    assert content == {"Units": "ppm", "EchoTime": [0.0094, 0.02], "Reference": None, "Source": str(path)}
    before = path.read_bytes()
    write_derivative(volume, path, {})
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["sub-01_Chimap.json", "sub-01_Chimap.nii.gz"]


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (2, 1), (1, 1)])
def test_derivatives_keep_orientation_codes(tmp_path, data, codes):
    source = nibabel.Nifti1Image(data, AFFINE)
    turned = AFFINE.copy()
    turned[0, 3] = 70
    source.set_qform(turned, code=codes[1])
    source.set_sform(AFFINE, code=codes[0])
    nibabel.save(source, tmp_path / "source.nii")
    header = read_header(tmp_path / "source.nii")
    for name, image in (
        ("mask", Mask(data > 0.5, header.affine)),
        ("labels", Parcellation((3 * data).astype(np.int64), header.affine)),
        ("map", Volume(data, header.affine, "x")),
    ):
        write_derivative(image, tmp_path / f"{name}.nii", {}, like=header)
        again = read_header(tmp_path / f"{name}.nii")
        assert (again.sform_code, again.qform_code) == codes
        np.testing.assert_allclose(again.affine, header.affine, atol=1e-5)
        if codes[1]:
            np.testing.assert_allclose(again.qform, header.qform, atol=1e-5)


def test_dataset_description(tmp_path):
    write_dataset_description(tmp_path / "out", name="QSM", more={"SourceDatasets": [{"URL": "raw"}]})
    content = json.loads((tmp_path / "out/dataset_description.json").read_text())
    assert (content["Name"], content["DatasetType"]) == ("QSM", "derivative")
    assert content["GeneratedBy"][0]["Name"] == "brainlocus"
    assert content["SourceDatasets"] == [{"URL": "raw"}]


def test_headers_that_contradict_their_file(tmp_path, data):
    path = tmp_path / "x.nii"
    write_volume(Volume(data, AFFINE, ""), path)
    raw = bytearray(path.read_bytes())
    raw[42:44] = np.int16(20_000).tobytes()
    path.write_bytes(bytes(raw))
    with pytest.raises(FormatError, match=r"the header tells of .* bytes, but the file has"):
        read_volume(path)
    path.with_suffix(".nii.gz").write_bytes(gzip.compress(bytes(raw)))
    with pytest.raises(FormatError, match="truncated or damaged"):
        read_volume(path.with_suffix(".nii.gz"))


def test_names_of_a_bids_lookup_table(tmp_path):
    labels = np.zeros((3, 3, 3), dtype=np.int16)
    labels[0] = 12
    path = tmp_path / "sub-1_dseg.nii.gz"
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), path)
    assert read_parcellation(path).names == {}
    (tmp_path / "sub-1_dseg.tsv").write_text("index\tname\tabbreviation\n12\tLeft-Putamen\tLP\n51\tRight-Putamen\tRP\n")
    assert read_parcellation(path).names == {12: "Left-Putamen", 51: "Right-Putamen"}
    (tmp_path / "other.tsv").write_text("index\tname\n12\tL_Puta\n")
    assert read_parcellation(path, lookup=tmp_path / "other.tsv").names == {12: "L_Puta"}
    (tmp_path / "other.tsv").write_text("index\tname\nx\tL_Puta\n")
    with pytest.raises(FormatError, match="label number in line 2, found 'x'"):
        read_parcellation(path, lookup=tmp_path / "other.tsv")
    (tmp_path / "other.tsv").write_text("label\tname\n12\tL_Puta\n")
    with pytest.raises(FormatError, match="columns index and name"):
        read_parcellation(path, lookup=tmp_path / "other.tsv")


@pytest.mark.parametrize(
    ("largest", "kind"), [(255, np.uint8), (256, np.int16), (32_767, np.int16), (32_768, np.int32)]
)
def test_labels_are_written_in_the_smallest_type(tmp_path, largest, kind):
    labels = np.array([0, 1, largest], dtype=np.int64).reshape(3, 1, 1)
    write_parcellation(Parcellation(labels, AFFINE), tmp_path / "labels.nii.gz")
    assert nibabel.load(tmp_path / "labels.nii.gz").get_data_dtype() == kind
    np.testing.assert_array_equal(read_parcellation(tmp_path / "labels.nii.gz").labels, labels)


def test_vanished_parcels_are_listed(tmp_path):
    names = {1: "C3_1", 2: "C3_2", 3: "C3_3"}
    labels = np.array([0, 1, 3], dtype=np.int16).reshape(3, 1, 1)
    write_parcellation(Parcellation(labels, AFFINE, names), tmp_path / "labels.nii.gz")
    assert json.loads((tmp_path / "labels.json").read_text())["vanished"] == ["C3_2"]
    assert read_parcellation(tmp_path / "labels.nii.gz").names == names
