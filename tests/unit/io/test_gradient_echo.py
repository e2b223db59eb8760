"""Reading gradient-echo series: scanner units, sidecars, geometry, and everything that must be refused."""

import contextlib
import gzip
import json
import pickle

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainlocus.core import AlignmentError, BrainlocusError, ChannelSource, FormatError, Grid
from brainlocus.io.bids import find_gradient_echoes
from brainlocus.io.gradient_echo import (
    ReadSettings,
    count_channels,
    open_channels,
    read_brain_mask,
    read_gradient_echo,
    read_gradient_echo_peak_bytes,
)
from tests.qsm_dataset import AXIAL, coils, image_of, save, series, wrap, write_bids, write_json, write_series
from tests.real_data import real_data

TIMES = (0.0094, 0.020)


def read(folder, **options):
    (files,) = find_gradient_echoes(folder)
    return read_gradient_echo(files, ReadSettings(**options))


def codes(loaded):
    return {note.code for note in loaded.notes}


def same_phase(found, true, tolerance):
    """Compare wrapped phases up to one constant."""
    turn = np.exp(1j * (found.astype(np.float64) - true))
    turn /= turn.mean() / abs(turn.mean())
    assert np.abs(np.angle(turn)).max() < tolerance


def anat(folder):
    return folder / "sub-01/anat"


def edit(path, **changes):
    """Change keys of a sidecar; None removes one."""
    content = {**json.loads(path.read_text()), **changes}
    write_json(path, {key: value for key, value in content.items() if value is not None})


def edit_all(folder, **changes):
    for path in anat(folder).glob("*.json"):
        edit(path, **changes)


def phase_file(folder, echo=1):
    return anat(folder) / f"sub-01_echo-{echo}_part-phase_MEGRE.nii.gz"


def magnitude_file(folder, echo=1):
    return anat(folder) / f"sub-01_echo-{echo}_part-mag_MEGRE.nii.gz"


@pytest.mark.parametrize("layout", ["files", "stacked"])
@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_radians_come_back(tmp_path, layout, extension):
    write_bids(tmp_path, layout=layout, extension=extension)
    loaded = read(tmp_path)
    phase, magnitude = series()
    np.testing.assert_array_equal(loaded.series.phase_rad, phase)
    np.testing.assert_array_equal(loaded.series.magnitude, magnitude)
    assert loaded.series.phase_rad.dtype == loaded.series.magnitude.dtype == np.float32
    assert loaded.series.valid.all()
    acquisition = loaded.series.acquisition
    assert (acquisition.echo_time_s, acquisition.field_strength_t) == (TIMES, 3.0)
    assert acquisition.b0_direction == (0.0, 0.0, 1.0)
    assert loaded.notes == ()
    assert loaded.counts == {"voxels": 504, "echoes": 2, "not_finite": 0, "negative_magnitude": 0}
    assert loaded.metadata["Units"] == "rad"


@pytest.mark.parametrize(
    ("stored", "code", "tolerance"),
    [
        ("siemens", "phase_scaled", 2 * np.pi / 4096),
        ("siemens-signed", "phase_scaled", 2 * np.pi / 4096),
        ("degrees", "phase_stretched", np.pi / 180),
    ],
)
def test_scanner_units_become_radians(tmp_path, stored, code, tolerance):
    write_bids(tmp_path, stored=stored)
    loaded = read(tmp_path)
    assert code in codes(loaded)
    assert np.abs(loaded.series.phase_rad).max() <= np.pi + 1e-3
    same_phase(loaded.series.phase_rad, series()[0], tolerance * 1.01)


def test_an_echo_that_does_not_wrap_keeps_its_scale(tmp_path):
    """The scale is that of the series: an early echo does not fill its range."""
    phase, magnitude = series()
    phase[0] *= 0.2
    write_series(tmp_path, "01", phase, magnitude, stored="siemens")
    same_phase(read(tmp_path).series.phase_rad, phase, 2 * np.pi / 4096)


def test_radians_that_do_not_wrap_need_their_unit(tmp_path):
    phase, magnitude = series()
    write_series(tmp_path, "01", 0.3 * phase, magnitude)
    np.testing.assert_allclose(read(tmp_path).series.phase_rad, 0.3 * phase, rtol=1e-6)
    edit_all(tmp_path, Units=None)
    loaded = read(tmp_path)
    assert "phase_stretched" in codes(loaded)
    np.testing.assert_allclose(loaded.series.phase_rad, phase, atol=1e-5)


def test_phase_from_zero_to_two_pi_is_wrapped(tmp_path):
    phase, magnitude = series()
    write_series(tmp_path, "01", phase + np.float32(np.pi), magnitude)
    loaded = read(tmp_path)
    assert np.abs(loaded.series.phase_rad).max() <= np.pi + 1e-3
    same_phase(loaded.series.phase_rad, phase, 1e-5)


def test_header_scaling_beside_radians_is_ignored(tmp_path):
    """Research reconstructions keep the slope of the DICOM; mriresearchtools_small is one."""
    phase, magnitude = series()
    write_series(tmp_path, "01", phase, magnitude)
    for echo in (1, 2):
        raw = bytearray(gzip.decompress(phase_file(tmp_path, echo).read_bytes()))
        raw[112:116] = np.float32(0.00117).tobytes()
        phase_file(tmp_path, echo).write_bytes(gzip.compress(bytes(raw)))
    loaded = read(tmp_path)
    assert "phase_header_ignored" in codes(loaded)
    np.testing.assert_array_equal(loaded.series.phase_rad, phase)


@pytest.mark.parametrize("slope", [np.nan, 0.0, np.inf])
def test_scaling_that_is_no_number_is_ignored_with_a_note(tmp_path, slope):
    write_bids(tmp_path)
    for part in (phase_file, magnitude_file):
        raw = bytearray(gzip.decompress(part(tmp_path).read_bytes()))
        raw[112:120] = np.array([slope, np.nan], dtype=np.float32).tobytes()
        part(tmp_path).write_bytes(gzip.compress(bytes(raw)))
    loaded = read(tmp_path)
    np.testing.assert_array_equal(loaded.series.phase_rad, series()[0])
    np.testing.assert_array_equal(loaded.series.magnitude, series()[1])
    # A slope of 0 says by the standard that there is none.
    expected = set() if slope == 0 else {"phase_slope_ignored", "magnitude_slope_ignored"}
    assert codes(loaded) == expected


def test_sign_and_slices_are_changed_when_asked(tmp_path):
    write_bids(tmp_path)
    phase = series()[0]
    inverted = read(tmp_path, invert_phase=True)
    np.testing.assert_array_equal(inverted.series.phase_rad, -phase)
    assert codes(inverted) == {"phase_inverted"}
    flipped = read(tmp_path, ge_slice_flip=True)
    expected = phase.copy()
    expected[..., 1::2] += np.pi
    assert np.abs(flipped.series.phase_rad).max() <= np.pi + 1e-3
    np.testing.assert_allclose(wrap(flipped.series.phase_rad - expected), 0, atol=1e-6)
    assert codes(flipped) == {"slices_flipped"}


def test_unwrapped_phase_needs_the_flag(tmp_path):
    phase, magnitude = series()
    write_series(tmp_path, "01", 2 * phase, magnitude)
    with pytest.raises(FormatError, match="assume_unwrapped"):
        read(tmp_path)
    loaded = read(tmp_path, assume_unwrapped=True)
    np.testing.assert_array_equal(loaded.series.phase_rad, 2 * phase)
    assert codes(loaded) == {"phase_unwrapped"}


def test_a_single_echo_is_read(tmp_path):
    write_bids(tmp_path, echo_time_s=(0.02,), suffix="swi", layout="stacked")
    loaded = read(tmp_path)
    assert loaded.series.phase_rad.shape == (1, 8, 9, 7)
    assert "single_echo" in codes(loaded)


def test_singleton_axes_are_dropped(tmp_path):
    phase, magnitude = series()
    write_series(tmp_path, "01", phase[..., None], magnitude[..., None])
    np.testing.assert_array_equal(read(tmp_path).series.phase_rad, phase)


def test_echoes_are_sorted_by_time(tmp_path):
    write_bids(tmp_path)
    for part in ("mag", "phase"):
        for echo, te in ((1, 0.02), (2, 0.0094)):
            edit(anat(tmp_path) / f"sub-01_echo-{echo}_part-{part}_MEGRE.json", EchoTime=te)
    loaded = read(tmp_path)
    assert loaded.series.acquisition.echo_time_s == TIMES
    np.testing.assert_array_equal(loaded.series.phase_rad, series()[0][::-1])
    assert codes(loaded) == {"echoes_sorted"}


def test_voxels_that_are_not_finite_are_left_out(tmp_path):
    phase, magnitude = series()
    phase[0, 2, 3, 4] = np.nan
    magnitude[1, 5, 5, 5] = np.inf
    magnitude[0, 1, 1, 1] = -0.5
    write_series(tmp_path, "01", phase, magnitude)
    loaded = read(tmp_path)
    found = loaded.series
    assert np.argwhere(~found.valid).tolist() == [[2, 3, 4], [5, 5, 5]]
    assert np.isfinite(found.phase_rad).all()
    assert (found.phase_rad[:, 2, 3, 4] == 0).all()
    assert (found.magnitude[:, 5, 5, 5] == 0).all()
    assert found.magnitude[0, 1, 1, 1] == 0
    assert (loaded.counts["not_finite"], loaded.counts["negative_magnitude"]) == (2, 1)
    assert codes(loaded) == {"not_finite", "negative_magnitude"}


def drop(part):
    def change(folder):
        for path in anat(folder).glob(f"*part-{part}*"):
            path.unlink()

    return change


def replace_image(part, make):
    def change(folder):
        path = part(folder)
        image = nibabel.load(path)
        save(make(np.asarray(image.dataobj), image.affine), path)

    return change


def header_bytes(part, where, value):
    """Overwrite bytes of a header that no library would write."""

    def change(folder):
        raw = bytearray(gzip.decompress(part(folder).read_bytes()))
        raw[where : where + len(value)] = value
        part(folder).write_bytes(gzip.compress(bytes(raw)))

    return change


SHEAR = np.array([[1.0, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])

BAD_INPUT = {
    "no magnitude": (drop("mag"), FormatError, "there is no magnitude image"),
    "no phase": (drop("phase"), FormatError, "there is no phase image"),
    "an echo of the magnitude missing": (
        lambda f: magnitude_file(f, 2).unlink(),
        FormatError,
        "found 2 echoes of phase but 1 of magnitude",
    ),
    "echo times in ms": (
        lambda f: edit_all(f, EchoTime=9.4),
        FormatError,
        r"EchoTime is 9.4, expected seconds: is it in milliseconds\? Divide by 1000 \(9.4 ms is 0.0094\)",
    ),
    "no echo time": (lambda f: edit_all(f, EchoTime=None), FormatError, "expected EchoTime .seconds. in the sidecar"),
    "echo time of one echo only": (
        lambda f: [edit(p, EchoTime=None) for p in anat(f).glob("*echo-2*.json")],
        FormatError,
        "found 1 echo times for 2 echoes",
    ),
    "echo time as text": (lambda f: edit_all(f, EchoTime="9.4 ms"), FormatError, "found '9.4 ms'"),
    "echo time of zero": (lambda f: edit_all(f, EchoTime=0), FormatError, "above 0, found 0"),
    "the same echo time twice": (lambda f: edit_all(f, EchoTime=0.01), FormatError, "expected different echo times"),
    "echo times of phase and magnitude differ": (
        lambda f: [edit(p, EchoTime=0.03) for p in anat(f).glob("*echo-2_part-mag*.json")],
        FormatError,
        r"echo times of phase are \[0.0094, 0.02\] s but of magnitude \[0.0094, 0.03\]",
    ),
    "a list of echo times for one echo": (
        lambda f: edit_all(f, EchoTime=[0.01, 0.02]),
        FormatError,
        "found 2 echo times for the one echo",
    ),
    "no field strength": (
        lambda f: edit_all(f, MagneticFieldStrength=None),
        FormatError,
        "expected MagneticFieldStrength .tesla. or ImagingFrequency .MHz. in the sidecar, found neither",
    ),
    "field strength in mT": (lambda f: edit_all(f, MagneticFieldStrength=3000), FormatError, "expected tesla"),
    "field strength as text": (lambda f: edit_all(f, MagneticFieldStrength="3T"), FormatError, "found '3T'"),
    "field strengths differ": (
        lambda f: [edit(p, MagneticFieldStrength=7) for p in anat(f).glob("*echo-2*.json")],
        FormatError,
        "differs between the images of one series, from 3 to 7",
    ),
    "frequency of another field": (
        lambda f: edit_all(f, ImagingFrequency=298.0),
        FormatError,
        "protons at 7 T, but MagneticFieldStrength is 3 T",
    ),
    "sidecar damaged": (
        lambda f: phase_file(f).with_name("sub-01_echo-1_part-phase_MEGRE.json").write_text("{"),
        FormatError,
        "expected a JSON sidecar",
    ),
    "phase on another grid": (
        replace_image(phase_file, lambda d, a: image_of(d[:, :, :-1], a)),
        AlignmentError,
        r"has shape \(8, 9, 7\), expected \(8, 9, 6\) as sub-01_echo-1_part-phase.*Is a slice missing",
    ),
    "magnitude elsewhere": (
        replace_image(magnitude_file, lambda d, a: image_of(d, a + np.diag([0, 0, 0.01, 0]))),
        AlignmentError,
        "right shape but another affine",
    ),
    "phase constant": (
        replace_image(phase_file, lambda d, a: image_of(0 * d + 1, a)),
        FormatError,
        "the phase is 1 everywhere",
    ),
    "phase zero": (
        replace_image(lambda f: phase_file(f, 2), lambda d, a: image_of(0 * d, a)),
        FormatError,
        "echo-2_part-phase_MEGRE.nii.gz: the phase is 0 everywhere",
    ),
    "magnitude zero": (
        replace_image(magnitude_file, lambda d, a: image_of(0 * d, a)),
        FormatError,
        "the magnitude is 0 everywhere",
    ),
    "phase as magnitude": (
        lambda f: [magnitude_file(f, k).write_bytes(phase_file(f, k).read_bytes()) for k in (1, 2)],
        FormatError,
        "voxels are negative, expected a magnitude",
    ),
    "magnitude twice": (
        lambda f: [phase_file(f, k).write_bytes(magnitude_file(f, k).read_bytes()) for k in (1, 2)],
        FormatError,
        "expected wrapped phase",
    ),
    "integer magnitude twice": (
        lambda f: [
            save(image_of(np.rint(series()[1][k - 1]).astype(np.int16), AXIAL), part(f, k))
            for k in (1, 2)
            for part in (phase_file, magnitude_file)
        ],
        FormatError,
        "a magnitude image",
    ),
    "magnitude twice with the range of phase": (
        lambda f: (
            [
                save(
                    image_of(np.rint(series()[1][k - 1] * 4095 / series()[1].max()).astype(np.int16) - offset, AXIAL), p
                )
                for k in (1, 2)
                for p, offset in ((phase_file(f, k), 0), (magnitude_file(f, k), 0))
            ]
            + [
                save(
                    image_of(np.where(np.arange(504).reshape(8, 9, 7) == 0, 0, d).astype(np.int16), AXIAL),
                    phase_file(f),
                )
                for d in [np.rint(series()[1][0] * 4095 / series()[1].max())]
            ]
        ),
        FormatError,
        "this is the magnitude again",
    ),
    "no finite voxel": (
        replace_image(phase_file, lambda d, a: image_of(d * np.float32(np.nan), a)),
        FormatError,
        "no voxel is a finite number",
    ),
    "sheared": (
        lambda f: [save(sheared(p), p) for p in anat(f).glob("*.nii.gz")],
        FormatError,
        "sub-01: The affine is sheared",
    ),
    "pixdim zero": (
        header_bytes(phase_file, 80, np.float32(0).tobytes()),
        FormatError,
        r"voxel sizes in the header .pixdim. are \[0.0, 1.0, 1.0\]",
    ),
    "pixdim NaN": (header_bytes(phase_file, 84, np.float32(np.nan).tobytes()), FormatError, "pixdim. are"),
    "pixdim contradicts the affine": (
        header_bytes(phase_file, 88, np.float32(3).tobytes()),
        FormatError,
        "mm in pixdim but",
    ),
    "lengths in metres": (header_bytes(phase_file, 123, bytes([1])), FormatError, "lengths are in m .xyzt_units."),
    "unit unknown to the standard": (header_bytes(phase_file, 123, bytes([5])), FormatError, "lengths are in code 5"),
    "several volumes in the file of an echo": (
        replace_image(phase_file, lambda d, a: image_of(np.stack([d, d], axis=-1), a)),
        FormatError,
        "expected one echo in a file named echo-1",
    ),
    "two-dimensional": (
        replace_image(phase_file, lambda d, a: image_of(d[:, :, 0], a)),
        FormatError,
        "expected a three-dimensional image",
    ),
    "complex": (
        replace_image(phase_file, lambda d, a: image_of(d.astype(np.complex64), a)),
        FormatError,
        "complex numbers: write magnitude and phase as two images",
    ),
    "text": (lambda f: phase_file(f).write_text("no image"), FormatError, "expected a NIfTI image"),
    "empty file": (lambda f: phase_file(f).write_bytes(b""), FormatError, "expected a NIfTI image"),
}


def sheared(path):
    image = nibabel.load(path)
    result = nibabel.Nifti1Image(np.asarray(image.dataobj), SHEAR)
    result.header.set_xyzt_units("mm")
    result.set_sform(SHEAR, code=1)
    result.set_qform(None, code=0)
    return result


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_refused(tmp_path, name):
    change, kind, message = BAD_INPUT[name]
    write_bids(tmp_path, participants=("01",))
    change(tmp_path)
    with pytest.raises(kind, match=message) as error:
        read(tmp_path)
    assert "sub-01" in str(error.value)


def test_options_stand_in_for_the_sidecar(tmp_path):
    write_bids(tmp_path)
    edit_all(tmp_path, EchoTime=None, MagneticFieldStrength=None)
    loaded = read(tmp_path, echo_time_s=(0.01, 0.03), field_strength_t=7.0)
    assert loaded.series.acquisition.echo_time_s == (0.01, 0.03)
    assert loaded.series.acquisition.field_strength_t == 7.0
    assert codes(loaded) == {"echo_time_given", "field_given"}
    assert not any(note.is_warning for note in loaded.notes)
    with pytest.raises(FormatError, match="3 echo times were given for 2 echoes"):
        read(tmp_path, echo_time_s=(0.01, 0.02, 0.03), field_strength_t=7.0)


def test_options_that_contradict_the_sidecar_win_with_a_warning(tmp_path):
    write_bids(tmp_path)
    loaded = read(tmp_path, echo_time_s=(0.01, 0.03), field_strength_t=7.0)
    assert {note.code for note in loaded.notes if note.is_warning} == {"echo_time_given", "field_given"}


def test_the_imaging_frequency_wins_over_a_nominal_field(tmp_path):
    write_bids(tmp_path)
    edit_all(tmp_path, ImagingFrequency=123.2)
    loaded = read(tmp_path)
    assert loaded.series.acquisition.field_strength_t == pytest.approx(123.2 / 42.577478518)
    assert codes(loaded) == {"field_from_frequency"}
    edit_all(tmp_path, ImagingFrequency=123.2e6, MagneticFieldStrength=None)
    assert read(tmp_path).series.acquisition.field_strength_t == pytest.approx(2.8935, abs=1e-4)


def rotation(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[1:3, 1:3] = [[c, -s], [s, c]]
    return affine


@pytest.mark.parametrize(("degrees", "noted"), [(5, False), (25, True), (65, True), (90, False)])
def test_oblique_slices_carry_the_field(tmp_path, degrees, noted):
    write_bids(tmp_path, affine=rotation(degrees))
    loaded = read(tmp_path)
    expected = rotation(degrees)[2, :3]
    np.testing.assert_allclose(loaded.series.acquisition.b0_direction, expected, atol=1e-6)
    assert ("oblique" in codes(loaded)) == noted


def test_thick_slices_are_noted(tmp_path):
    write_bids(tmp_path, affine=np.diag([0.5, 0.5, 3.5, 1.0]))
    assert "anisotropic" in codes(read(tmp_path))


def recode(folder, sform, qform, *, qform_affine=None):
    for path in anat(folder).glob("*.nii.gz"):
        image = nibabel.load(path)
        data, affine = np.asarray(image.dataobj), image.affine
        again = image_of(data, affine)
        again.set_qform(affine if qform_affine is None else qform_affine, code=qform)
        again.set_sform(affine, code=sform)
        save(again, path)


def test_images_without_orientation(tmp_path):
    write_bids(tmp_path)
    recode(tmp_path, 0, 0)
    loaded = read(tmp_path)
    (note,) = loaded.notes
    assert (note.code, note.is_warning) == ("orientation_unknown", True)
    assert loaded.series.acquisition.b0_direction == (0.0, 0.0, 1.0)
    (note,) = read(tmp_path, assume_axial=True).notes
    assert not note.is_warning


def test_the_field_comes_from_scanner_coordinates(tmp_path):
    """A rotated sform to a template must not turn the main field when the qform still knows the scanner."""
    write_bids(tmp_path, affine=rotation(25))
    recode(tmp_path, 4, 1, qform_affine=AXIAL)
    loaded = read(tmp_path)
    np.testing.assert_allclose(loaded.series.acquisition.b0_direction, (0, 0, 1), atol=1e-6)
    np.testing.assert_allclose(loaded.series.acquisition.grid.affine, rotation(25), atol=1e-6)
    assert codes(loaded) == {"field_from_qform"}
    recode(tmp_path, 2, 2)
    assert "orientation_not_scanner" in codes(read(tmp_path))


def test_bipolar_readouts_are_noted(tmp_path):
    write_bids(tmp_path, metadata={"ReadoutPolarity": "Bipolar"})
    assert codes(read(tmp_path)) == {"bipolar"}


def test_units_that_are_not_set_are_taken_for_mm(tmp_path):
    write_bids(tmp_path)
    header_bytes(phase_file, 123, bytes([0]))(tmp_path)
    assert codes(read(tmp_path)) == {"units_unset"}


@given(flips=st.tuples(st.booleans(), st.booleans(), st.booleans()), order=st.permutations([0, 1, 2]))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reoriented_files_are_the_same_image_in_the_world(tmp_path_factory, flips, order):
    """Axis order and flips with their affine: values and field direction at a point of the world stay."""
    phase, magnitude = series()
    affine = rotation(20)
    orientation = np.array([[axis, -1 if flip else 1] for axis, flip in zip(order, flips, strict=True)])
    turned = [nibabel.orientations.apply_orientation(np.moveaxis(d, 0, -1), orientation) for d in (phase, magnitude)]
    to_old = nibabel.orientations.inv_ornt_aff(orientation, phase.shape[1:])
    folder = tmp_path_factory.mktemp("flip")
    write_series(folder, "01", *(np.moveaxis(d, -1, 0) for d in turned), affine=affine @ to_old)
    found = read(folder).series
    back = to_old[:3, :3]
    # b0 in old voxel axes: the signed permutation of the new one.
    np.testing.assert_allclose(back @ np.array(found.acquisition.b0_direction), affine[2, :3], atol=1e-6)
    index = np.array([1, 2, 3])
    old = to_old @ np.array([*index, 1.0])
    x, y, z = np.rint(old[:3]).astype(int)
    assert found.phase_rad[1][tuple(index)] == phase[1, x, y, z]
    assert found.magnitude[0][tuple(index)] == magnitude[0, x, y, z]


@pytest.mark.parametrize("layout", ["5-D", "coils"])
@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
@pytest.mark.parametrize("stored", ["radians", "siemens"])
def test_channels_are_read_one_at_a_time(tmp_path, layout, extension, stored):
    write_bids(tmp_path, n_channels=3, layout=layout, extension=extension, stored=stored)
    (files,) = find_gradient_echoes(tmp_path)
    assert count_channels(files) == 3
    source = open_channels(files)
    assert isinstance(source, ChannelSource)
    assert (source.n_channels, source.acquisition.shape) == (3, (8, 9, 7))
    phase, magnitude = coils(*series(), 3)
    again = pickle.loads(pickle.dumps(source))
    for k in (2, 0, 1, 1):
        for opened in (source, again):
            channel = opened.read(k)
            same_phase(channel.phase_rad, phase[k], 1e-5 if stored == "radians" else 2 * np.pi / 4096 * 1.01)
            np.testing.assert_array_equal(channel.magnitude, magnitude[k])
    with pytest.raises(IndexError, match="no channel 3, they are counted from 0 to 2"):
        source.read(3)
    with pytest.raises(FormatError, match=r"found 3 receive coils. Combine them first"):
        read_gradient_echo(files)


def test_combined_images_are_one_channel(tmp_path):
    write_bids(tmp_path)
    (files,) = find_gradient_echoes(tmp_path)
    source = open_channels(files)
    assert (source.n_channels, count_channels(files)) == (1, 1)
    np.testing.assert_array_equal(source.read(0).phase_rad, series()[0])


def test_channels_that_do_not_fit(tmp_path):
    write_bids(tmp_path, n_channels=3, layout="coils")
    lost = anat(tmp_path) / "sub-01_echo-2_part-phase_coil-02_MEGRE.nii.gz"
    content = lost.read_bytes()
    lost.unlink()
    (files,) = find_gradient_echoes(tmp_path)
    with pytest.raises(FormatError, match=r"found \{1: 3, 2: 2\} phase images by echo, expected 3 for each coil"):
        open_channels(files)
    lost.write_bytes(content)
    image = nibabel.load(lost)
    save(image_of(np.asarray(image.dataobj) * 700, AXIAL), lost)
    (files,) = find_gradient_echoes(tmp_path)
    source = open_channels(files)
    source.read(0)
    with pytest.raises(FormatError, match=r"coil-02.*on the scale that the first coil was read with"):
        source.read(1)


def test_channels_with_bad_voxels(tmp_path):
    phase, magnitude = coils(*series(), 2)
    phase[1, 0, 3, 3, 3] = np.nan
    write_series(tmp_path, "01", phase, magnitude, layout="5-D")
    (files,) = find_gradient_echoes(tmp_path)
    channel = open_channels(files).read(1)
    assert (channel.phase_rad[:, 3, 3, 3] == 0).all()
    assert (channel.magnitude[:, 3, 3, 3] == 0).all()


@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_truncated_images_are_refused_at_any_length(tmp_path, extension):
    write_bids(tmp_path, extension=extension)
    path = anat(tmp_path) / f"sub-01_echo-2_part-phase_MEGRE{extension}"
    content = path.read_bytes()
    for length in [*range(0, 400, 13), *np.linspace(400, len(content) - 1, 15).astype(int)]:
        path.write_bytes(content[:length])
        with pytest.raises(FormatError):
            read(tmp_path)


def test_a_changed_byte_of_a_compressed_image_is_noticed(tmp_path):
    """Its checksum is read to the end, which nibabel leaves out."""
    write_bids(tmp_path)
    content = phase_file(tmp_path, 2).read_bytes()
    for where in np.linspace(40, len(content) - 1, 25).astype(int):
        damaged = bytearray(content)
        damaged[where] ^= 0x10
        phase_file(tmp_path, 2).write_bytes(bytes(damaged))
        with pytest.raises(FormatError):
            read(tmp_path)


@given(where=st.integers(0, 347), value=st.binary(min_size=1, max_size=6))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_headers_never_end_in_a_traceback(tmp_path_factory, where, value):
    folder = tmp_path_factory.mktemp("damage")
    write_bids(folder, extension=".nii", shape=(4, 5, 6))
    path = folder / "sub-01/anat/sub-01_echo-1_part-phase_MEGRE.nii"
    raw = bytearray(path.read_bytes())
    raw[where : where + len(value)] = value
    path.write_bytes(bytes(raw))
    try:
        loaded = read(folder)
    except BrainlocusError:
        return
    assert np.isfinite(loaded.series.phase_rad).all()


@given(cut=st.integers(0, 120), noise=st.binary(max_size=4))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_sidecars_never_end_in_a_traceback(tmp_path_factory, cut, noise):
    folder = tmp_path_factory.mktemp("json")
    write_bids(folder, shape=(4, 5, 6))
    path = folder / "sub-01/anat/sub-01_echo-1_part-phase_MEGRE.json"
    content = path.read_bytes()
    path.write_bytes(content[:cut] + noise + content[cut + len(noise) :])
    with contextlib.suppress(BrainlocusError):
        read(folder)


def test_brain_masks(tmp_path):
    inside = np.zeros((4, 5, 6), dtype=np.uint8)
    inside[1:3, 1:4, 1:5] = 1
    grid = Grid((4, 5, 6), AXIAL)
    path = tmp_path / "mask.nii.gz"
    save(image_of(inside, AXIAL), path)
    mask, notes = read_brain_mask(path, grid)
    np.testing.assert_array_equal(mask.data, inside == 1)
    assert notes == ()
    save(image_of(0.7 * inside.astype(np.float32) + 0.1, AXIAL), path)
    mask, (note,) = read_brain_mask(path, grid)
    np.testing.assert_array_equal(mask.data, inside == 1)
    assert (note.code, note.is_warning) == ("mask_not_binary", True)
    save(image_of(255 * inside, AXIAL), path)
    mask, (note,) = read_brain_mask(path, grid)
    np.testing.assert_array_equal(mask.data, inside == 1)
    with_nan = inside.astype(np.float32)
    with_nan[0, 0, 0] = np.nan
    save(image_of(with_nan, AXIAL), path)
    mask, (note,) = read_brain_mask(path, grid)
    np.testing.assert_array_equal(mask.data, inside == 1)
    with pytest.raises(AlignmentError, match=r"mask.nii.gz has shape \(4, 5, 6\), expected \(4, 5, 7\)"):
        read_brain_mask(path, Grid((4, 5, 7), AXIAL))
    with pytest.raises(AlignmentError, match="another affine"):
        read_brain_mask(path, Grid((4, 5, 6), 2 * AXIAL))
    save(image_of(0 * inside, AXIAL), path)
    with pytest.raises(FormatError, match="the mask is empty"):
        read_brain_mask(path, grid)
    save(image_of(0.4 * inside.astype(np.float32), AXIAL), path)
    with pytest.raises(FormatError, match=r"the mask is empty, no voxel is above 0.5"):
        read_brain_mask(path, grid)


def as_dataset(folder, phase, magnitude, times, **metadata):
    """Link published images into a dataset."""
    place = folder / "sub-01/anat"
    place.mkdir(parents=True)
    for part, path in (("phase", phase), ("mag", magnitude)):
        (place / f"sub-01_part-{part}_MEGRE.nii").symlink_to(path)
        write_json(place / f"sub-01_part-{part}_MEGRE.json", {"EchoTime": times, **metadata})


def test_published_three_echo_series(tmp_path):
    """Its header scales radians to 0.0037; nibabel shows that slope as NaN once loaded."""
    source = real_data("qsm/mriresearchtools_small")
    times = [0.004, 0.008, 0.012]
    as_dataset(tmp_path, source / "Phase.nii", source / "Mag.nii", times, MagneticFieldStrength=7)
    loaded = read(tmp_path)
    assert loaded.series.phase_rad.shape == (3, 51, 51, 41)
    assert codes(loaded) == {"units_unset", "phase_header_ignored"}
    stored = np.asarray(nibabel.load(source / "Phase.nii").dataobj.get_unscaled())
    np.testing.assert_array_equal(loaded.series.phase_rad, np.moveaxis(stored, -1, 0))
    assert np.ptp(loaded.series.phase_rad) == pytest.approx(2 * np.pi, abs=1e-5)
    assert loaded.series.acquisition.voxel_size_mm == pytest.approx((0.46875, 0.46875, 1.0))


def test_published_single_echo(tmp_path):
    source = real_data("qsm/romeo_small2")
    as_dataset(tmp_path, source / "Phase.nii", source / "Mag.nii", 0.004, MagneticFieldStrength=7)
    loaded = read(tmp_path)
    assert loaded.series.phase_rad.shape == (1, 21, 21, 21)
    assert codes(loaded) == {"single_echo", "orientation_unknown"}


def test_published_phase_with_nan(tmp_path):
    """NaN voxels, values beyond pi: refused as unwrapped until the user says that it is."""
    phase = real_data("qsm/romeo_small2/phase_with_nan.nii")
    image = nibabel.load(phase)
    magnitude = tmp_path / "Mag.nii"
    save(nibabel.Nifti1Image(np.full(image.shape, 100.0, dtype=np.float32), image.affine, image.header), magnitude)
    as_dataset(tmp_path / "bids", phase, magnitude, [0.004, 0.008], MagneticFieldStrength=7)
    with pytest.raises(FormatError, match="unwrapped phase in radians"):
        read(tmp_path / "bids")
    loaded = read(tmp_path / "bids", assume_unwrapped=True)
    missing = int(np.isnan(np.asarray(image.dataobj)).any(axis=3).sum())
    assert loaded.counts["not_finite"] == missing > 0
    assert "not_finite" in codes(loaded)


def test_declared_memory_is_not_exceeded(tmp_path):
    """Measured beside the interpreter: NumPy reports its buffers to tracemalloc."""
    import tracemalloc

    shape = (64, 60, 50)
    write_bids(tmp_path, shape=shape, stored="siemens", layout="stacked")
    read(tmp_path)
    tracemalloc.start()
    read(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= read_gradient_echo_peak_bytes(shape, 2)
    # The bound is that of two parts of two echoes and one volume in hand, not of several copies.
    assert read_gradient_echo_peak_bytes(shape, 2) - (16 << 20) < 34 * np.prod(shape)
