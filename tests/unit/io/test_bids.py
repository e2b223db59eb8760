"""Finding gradient-echo series, derivatives and label tables in BIDS folders."""

import pickle

import nibabel
import numpy as np
import pytest

from brainlocus.core import FormatError, SchemaError
from brainlocus.io.bids import (
    find_derivative,
    find_gradient_echoes,
    read_label_names,
    read_sidecar,
)
from tests.qsm_dataset import AXIAL, image_of, save, write_bids, write_description, write_json


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_one_file_an_echo(tmp_path):
    found = find_gradient_echoes(write_bids(tmp_path, participants=("02", "01"), sessions=("1", "2")))
    assert [(f.participant_id, f.session_id) for f in found] == [
        ("sub-01", "ses-1"),
        ("sub-01", "ses-2"),
        ("sub-02", "ses-1"),
        ("sub-02", "ses-2"),
    ]
    first = found.series[0]
    assert [echo.echo for echo in first.echoes] == [1, 2]
    assert first.echoes[1].phase.name == "sub-01_ses-1_echo-2_part-phase_MEGRE.nii.gz"
    assert first.echoes[1].magnitude.name == "sub-01_ses-1_echo-2_part-mag_MEGRE.nii.gz"
    assert (first.stem, first.run, first.n_coils, first.problems) == ("sub-01_ses-1", None, 0, ())
    assert len(first.paths) == 8
    assert pickle.loads(pickle.dumps(first)) == first
    assert found.without == ()


@pytest.mark.parametrize(
    ("names", "suffix", "n"),
    [
        (["sub-01_part-mag_swi", "sub-01_part-phase_swi", "sub-01_swi"], "swi", 1),
        (["sub-01_part-mag_GRE", "sub-01_part-phase_GRE"], "GRE", 1),
        (["sub-01_echo-1_T2starw", "sub-01_echo-1_part-phase_T2starw"], "T2starw", 1),
        (["sub-01_echo-01_part-mag_MEGRE", "sub-01_echo-01_part-phase_MEGRE"], "MEGRE", 1),
    ],
)
def test_names_of_the_wild(tmp_path, names, suffix, n):
    touch(*(tmp_path / "sub-01" / ("swi" if suffix == "swi" else "anat") / f"{name}.nii.gz" for name in names))
    (files,) = find_gradient_echoes(tmp_path)
    assert (files.suffix, len(files.echoes), files.problems) == (suffix, n, ())
    assert "part-phase" in files.echoes[0].phase.name
    assert files.echoes[0].magnitude.name == f"{names[0]}.nii.gz"


def test_runs_and_acquisitions_are_series_of_their_own(tmp_path):
    for entities in ("acq-hi_run-1", "acq-hi_run-2", "acq-lo_run-1"):
        write_bids(tmp_path, entities=entities)
    found = find_gradient_echoes(tmp_path)
    assert [(f.acquisition, f.run, f.stem) for f in found] == [
        ("hi", "1", "sub-01_acq-hi_run-1"),
        ("hi", "2", "sub-01_acq-hi_run-2"),
        ("lo", "1", "sub-01_acq-lo_run-1"),
    ]


def test_weighted_images_without_phase_are_not_series(tmp_path):
    write_bids(tmp_path, participants=("01", "02"))
    touch(tmp_path / "sub-01/anat/sub-01_T2starw.nii.gz")
    assert [f.suffix for f in find_gradient_echoes(tmp_path)] == ["MEGRE", "MEGRE"]
    # A subject who has nothing else is listed, so that the cohort's table says why it has no result.
    touch(tmp_path / "sub-03/anat/sub-03_T2starw.nii.gz")
    (alone,) = find_gradient_echoes(tmp_path, participant_labels=("03",))
    assert alone.echoes[0].phase is None


def test_participants_without_series_are_named(tmp_path):
    write_bids(tmp_path, participants=("01",))
    touch(tmp_path / "sub-02/anat/sub-02_T1w.nii.gz")
    found = find_gradient_echoes(tmp_path)
    assert (len(found), found.without) == (1, ("sub-02",))


@pytest.mark.parametrize("label", ["02", "sub-02"])
def test_participants_and_sessions_are_chosen(tmp_path, label):
    write_bids(tmp_path, participants=("01", "02"), sessions=("1", "2"))
    found = find_gradient_echoes(tmp_path, participant_labels=(label,), session_labels=("ses-2",))
    assert [(f.participant_id, f.session_id) for f in found] == [("sub-02", "ses-2")]


def test_unknown_labels_are_refused(tmp_path):
    write_bids(tmp_path, participants=("0101",), sessions=("1",))
    with pytest.raises(SchemaError, match=r"1 of 1 participants.*'sub-0102'.*Did you mean 'sub-0101'"):
        find_gradient_echoes(tmp_path, participant_labels=("0102",))
    with pytest.raises(SchemaError, match="no session 'ses-3'"):
        find_gradient_echoes(tmp_path, session_labels=("3",))


def test_folders_that_are_no_dataset(tmp_path):
    with pytest.raises(FormatError, match=r"expected a BIDS dataset with folders sub-\*, found none"):
        find_gradient_echoes(tmp_path)
    with pytest.raises(FormatError, match="expected a BIDS folder, found nothing"):
        find_gradient_echoes(tmp_path / "absent")
    touch(tmp_path / "file")
    with pytest.raises(FormatError, match="expected a BIDS folder, found a file"):
        find_gradient_echoes(tmp_path / "file")


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["sub-01_echo-1_part-phase_MEGRE.nii", "sub-01_echo-1_part-phase_MEGRE.nii.gz"], "same image twice"),
        (["sub-01_echo-1_part-phase_MEGRE.nii.gz", "sub-01_echo-01_part-phase_MEGRE.nii.gz"], "same image twice"),
        (["sub-01_echo-1_part-real_MEGRE.nii.gz"], "found part-real"),
        (["sub-01_echo-first_part-phase_MEGRE.nii.gz"], "expected a number after echo-"),
        (["sub-01_echo-1_part-phase_MEGRE.nii.gz", "sub-01_part-mag_MEGRE.nii.gz"], "some not"),
        (["sub-02_echo-1_part-phase_MEGRE.nii.gz"], "a file of sub-02 lies in the folder of sub-01"),
    ],
)
def test_problems_of_names_wait_for_loading(tmp_path, names, problem):
    touch(*(tmp_path / "sub-01/anat" / name for name in names))
    (files,) = find_gradient_echoes(tmp_path)
    assert problem in files.problems[0]


def test_sidecars_are_inherited(tmp_path):
    write_bids(tmp_path, sessions=("1",))
    anat = tmp_path / "sub-01/ses-1/anat"
    for path in anat.glob("*.json"):
        path.unlink()
    write_json(tmp_path / "MEGRE.json", {"EchoTime": 0.5, "MagneticFieldStrength": 3, "Manufacturer": "Siemens"})
    write_json(tmp_path / "echo-01_MEGRE.json", {"EchoTime": 0.0094})
    write_json(tmp_path / "T1w.json", {"EchoTime": 0.7})
    write_json(tmp_path / "sub-01/sub-01_MEGRE.json", {"MagneticFieldStrength": 2.89})
    write_json(anat / "sub-01_ses-1_echo-2_part-phase_MEGRE.json", {"EchoTime": 0.02})
    write_json(anat / "sub-01_ses-2_MEGRE.json", {"EchoTime": 0.9})
    (files,) = find_gradient_echoes(tmp_path)
    first, second = (read_sidecar(echo.phase_sidecars) for echo in files.echoes)
    assert first == {"EchoTime": 0.0094, "MagneticFieldStrength": 2.89, "Manufacturer": "Siemens"}
    assert second["EchoTime"] == 0.02
    assert read_sidecar(files.echoes[1].magnitude_sidecars)["EchoTime"] == 0.5


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot be read"), ("[1]", "found list"), ("", "cannot be read"), ("[" * 100_000, "cannot be read")],
)
def test_damaged_sidecars_are_named(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(FormatError, match=message) as error:
        read_sidecar([path])
    assert str(path) in str(error.value)


def test_derivatives_are_found(tmp_path):
    write_bids(tmp_path, participants=("01",), sessions=("1", "2"), masks=True)
    masks = tmp_path / "derivatives/masks"
    found = find_derivative(masks, "sub-01", "ses-2", suffix="mask", entities={"desc": "brain"})
    assert found.name == "sub-01_ses-2_desc-brain_mask.nii.gz"
    assert find_derivative(masks, "sub-01", "ses-3", suffix="mask") is None
    assert find_derivative(masks, "sub-02", None, suffix="mask") is None
    # A segmentation made once a subject serves every session.
    image = image_of(np.ones((2, 2, 2), dtype=np.int16), AXIAL)
    save(image, masks / "sub-01/anat/sub-01_dseg.nii.gz")
    save(image, masks / "sub-01/anat/sub-01_space-T1w_dseg.nii.gz")
    assert find_derivative(masks, "sub-01", "ses-2", suffix="dseg").name == "sub-01_dseg.nii.gz"
    save(image, masks / "sub-01/anat/sub-01_desc-x_mask.nii.gz")
    save(image, masks / "sub-01/anat/sub-01_desc-y_mask.nii.gz")
    with pytest.raises(FormatError, match=r"expected one mask image.*desc-x_mask.nii.gz and sub-01_desc-y"):
        find_derivative(masks, "sub-01", None, suffix="mask")


def test_label_names(tmp_path):
    write_description(tmp_path, dataset_type="derivative")
    image = tmp_path / "sub-01/anat/sub-01_desc-first_dseg.nii.gz"
    save(nibabel.Nifti1Image(np.ones((2, 2, 2), dtype=np.int16), AXIAL), image)
    assert read_label_names(image) == {}
    (tmp_path / "dseg.tsv").write_text("index\tname\tcolor\n11\tLeft-Caudate\t#fff\n50\tRight-Caudate\t#000\n")
    assert read_label_names(image) == {11: "Left-Caudate", 50: "Right-Caudate"}
    (tmp_path / "desc-first_dseg.tsv").write_text("index\tname\n1\tcaudate\n")
    assert read_label_names(image) == {1: "caudate"}
    image.with_name("sub-01_desc-first_dseg.tsv").write_text("name\tindex\nown\t7\n")
    assert read_label_names(image) == {7: "own"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label\tname\n1\ta\n", "expected columns index and name"),
        ("", "expected columns index and name"),
        ("index\tname\none\ta\n", "line 2: expected an integer index"),
        ("index\tname\n1\n", "line 2: expected an integer index"),
        ("index\tname\n1\ta\n1\tb\n", "line 3: label 1 occurs twice"),
    ],
)
def test_bad_label_tables(tmp_path, text, message):
    write_description(tmp_path)
    (tmp_path / "dseg.tsv").write_text(text)
    with pytest.raises(FormatError, match=message):
        read_label_names(tmp_path / "sub-01_dseg.nii.gz")
