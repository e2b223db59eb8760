"""UK Biobank zips to BIDS: names, sidecars, what is already there, and zips that are damaged or hostile."""

import json
import re
import zipfile
import zlib

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainlocus.core import FormatError
from brainlocus.io import read_label_names, read_parcellation
from brainlocus.io.bids import find_derivative, find_gradient_echoes, read_sidecar
from brainlocus.io.gradient_echo import open_channels, read_gradient_echo
from brainlocus.io.ukb import convert_visit
from brainlocus.io.ukb_zip import find_visits
from brainlocus.pipeline.runner import RunOptions, execute
from brainlocus.pipeline.steps.convert_ukb import QSM_CONVERT_UKB, QsmConvertUkbConfig
from tests.qsm_dataset import coils, image_of, series, stored_phase

# Siemens axial, as UK Biobank stores it: x to the left, 0.8 x 0.8 x 3 mm.
AFFINE = np.array([[-0.8, 0, 0, 100], [0, 0.8, 0, -110], [0, 0, 3, -60], [0, 0, 0, 1]])
SHAPE = (8, 9, 7)
OPTIONS = RunOptions(threads=2, executor="threads", quiet=True)


def gz(image, folder):
    path = folder / "member.nii.gz"
    nibabel.save(image, path)
    return path.read_bytes()


def write_zip(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def members(tmp_path):
    """Return the members of a 20251 and a 26301 zip."""
    phase, magnitude = series(SHAPE)
    swi = {}
    for name, data in (
        ("SWI_TOTAL_MAG_orig", magnitude[0]),
        ("SWI_TOTAL_MAG_TE2_orig", magnitude[1]),
        ("SWI_TOTAL_MAG", 2 * magnitude[0]),
        ("SWI_TOTAL_MAG_TE2", 2 * magnitude[1]),
        ("T2star", 50 + 0 * magnitude[0]),
    ):
        swi[f"SWI/{name}.nii.gz"] = gz(image_of(data, AFFINE), tmp_path)
    swi["SWI/SWI_TOTAL_MAG.json"] = json.dumps({"EchoTime": 0.0094, "ImagingFrequency": 123.2})
    swi["SWI/SWI_TOTAL_MAG_TE2.json"] = json.dumps({"EchoTime": 0.02, "ImagingFrequency": 123.2})
    swi["SWI/SWI_to_T1.mat"] = "1 0 0 2\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
    qsm = {
        f"QSM/PHASE_TE{k + 1}.nii.gz": gz(stored_phase(phase[k], AFFINE, "siemens-signed"), tmp_path) for k in (0, 1)
    }
    qsm["QSM/QSM_mask.nii.gz"] = gz(image_of((magnitude[0] > 800).astype(np.uint8), AFFINE), tmp_path)
    qsm["QSM/QSM.nii.gz"] = gz(image_of(0.01 * phase[0], AFFINE), tmp_path)
    return swi, qsm


@pytest.fixture
def zips(tmp_path, members):
    swi, qsm = members
    folder = tmp_path / "zips"
    for eid in ("1000001", "1000002"):
        write_zip(folder / "batch_1" / f"{eid}_20251_2_0.zip", swi)
        write_zip(folder / "batch_2" / f"{eid}_26301_2_0.zip", qsm)
    return folder


def run(zips, out, **settings):
    return execute(QSM_CONVERT_UKB, QsmConvertUkbConfig(zips=zips, **settings), out, OPTIONS)


def statuses(out):
    lines = (out / "derivatives/ukb/conversion.tsv").read_text().splitlines()
    header = lines[0].split("\t")
    rows = [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]
    return {(row["participant_id"], row["session_id"]): row for row in rows}


def test_a_folder_of_zips_becomes_a_dataset(tmp_path, zips):
    out = tmp_path / "bids"
    outcome = run(zips, out)
    assert outcome.exit_code == 0
    assert outcome.result.counts["converted"] == 2
    found = find_gradient_echoes(out)
    assert [(f.participant_id, f.session_id) for f in found] == [("sub-1000001", "ses-2"), ("sub-1000002", "ses-2")]
    loaded = read_gradient_echo(found.series[0])
    acquisition = loaded.series.acquisition
    assert acquisition.echo_time_s == (0.0094, 0.02)
    assert acquisition.field_strength_t == pytest.approx(2.8935, abs=1e-4)
    assert acquisition.voxel_size_mm == pytest.approx((0.8, 0.8, 3))
    # The magnitude as acquired, not the one corrected for gradient distortion.
    np.testing.assert_array_equal(loaded.series.magnitude, series(SHAPE)[1])
    turn = np.exp(1j * (loaded.series.phase_rad - series(SHAPE)[0]))
    assert np.abs(np.angle(turn)).max() < 2 * np.pi / 4096 * 1.1
    assert loaded.counts["not_finite"] == 0
    sidecar = read_sidecar(found.series[0].echoes[0].phase_sidecars)
    assert sidecar["Sources"] == ["1000001_26301_2_0.zip/QSM/PHASE_TE1.nii.gz"]
    # The phase has no sidecar of its own: its time is the protocol's, and the sidecar says so.
    assert sidecar["ProtocolDefaults"] == [
        "EchoTime",
        "Manufacturer",
        "ManufacturersModelName",
        "MagneticFieldStrength",
        "RepetitionTime",
    ]
    assert "EchoTime" not in read_sidecar(found.series[0].echoes[0].magnitude_sidecars)["ProtocolDefaults"]


def test_the_dataset_is_complete_bids(tmp_path, zips):
    out = tmp_path / "bids"
    run(zips, out)
    description = json.loads((out / "dataset_description.json").read_text())
    assert (description["DatasetType"], description["GeneratedBy"][0]["Name"]) == ("raw", "brainlocus")
    assert (out / "participants.tsv").read_text() == "participant_id\nsub-1000001\nsub-1000002\n"
    assert (out / "README").is_file()
    assert (out / "derivatives/ukb/dataset_description.json").is_file()
    derived = out / "derivatives/ukb"
    mask = find_derivative(derived, "sub-1000001", "ses-2", suffix="mask", entities={"desc": "qsm"})
    assert mask.name == "sub-1000001_ses-2_desc-qsm_mask.nii.gz"
    names = {p.name for p in mask.parent.iterdir()}
    assert "sub-1000001_ses-2_from-MEGRE_to-T1w_mode-image_xfm.mat" in names
    assert {"sub-1000001_ses-2_desc-ukb_Chimap.nii.gz", "sub-1000001_ses-2_desc-ukb_T2starmap.nii.gz"} <= names
    assert not (out / ".work").exists()
    assert not list(out.rglob(".*"))
    assert sorted(p.name for p in tmp_path.glob("*bids*")) == ["bids", "bids.json"]


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_is_done_is_left_and_more_can_be_added(tmp_path, zips, members):
    out = tmp_path / "bids"
    run(zips, out)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("sub-*.nii.gz")}
    write_zip(zips / "1000003_20251_3_0.zip", {**members[0], **members[1]})
    outcome = run(zips, out)
    assert (outcome.result.counts["converted"], outcome.result.counts["present"]) == (1, 2)
    assert all(p.stat().st_mtime_ns == t for p, t in before.items())
    assert (out / "participants.tsv").read_text().split() == [
        "participant_id",
        "sub-1000001",
        "sub-1000002",
        "sub-1000003",
    ]
    # One zip alone adds to the dataset too, and rows of earlier runs stay.
    write_zip(tmp_path / "1000004_20251_2_0.zip", {**members[0], **members[1]})
    run(tmp_path / "1000004_20251_2_0.zip", out)
    assert {k[0]: v["status"] for k, v in statuses(out).items()} == {
        "sub-1000001": "present",
        "sub-1000002": "present",
        "sub-1000003": "present" if outcome.skipped else "done",
        "sub-1000004": "done",
    }


def test_order_and_number_of_runs_do_not_matter(tmp_path, zips):
    run(zips, tmp_path / "a")
    for number in ("1000002", "1000001"):
        for path in zips.rglob(f"{number}*.zip"):
            target = tmp_path / f"part-{number}" / path.name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
        run(tmp_path / f"part-{number}", tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_zip_that_changed_is_converted_again(tmp_path, zips, members):
    out = tmp_path / "bids"
    run(zips, out)
    swi = dict(members[0])
    swi["SWI/SWI_TOTAL_MAG_orig.nii.gz"] = gz(image_of(3 * series(SHAPE)[1][0], AFFINE), tmp_path)
    write_zip(zips / "batch_1" / "1000001_20251_2_0.zip", swi)
    assert run(zips, out).result.counts["converted"] == 1
    (files,) = find_gradient_echoes(out, participant_labels=("1000001",))
    np.testing.assert_array_equal(read_gradient_echo(files).series.magnitude[0], 3 * series(SHAPE)[1][0])


def test_columns_of_others_stay(tmp_path, zips):
    out = tmp_path / "bids"
    run(zips, out)
    (out / "participants.tsv").write_text("participant_id\tage\nsub-1000001\t61\n")
    run(zips, out)
    assert (out / "participants.tsv").read_text() == "participant_id\tage\nsub-1000001\t61\nsub-1000002\tn/a\n"


def damage(path):
    raw = bytearray(path.read_bytes())
    raw[200:260] = bytes(60)
    path.write_bytes(bytes(raw))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-300])


def escape(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../escaped.nii.gz", b"x")


def without(name):
    def change(path):
        with zipfile.ZipFile(path) as archive:
            members = {m: archive.read(m) for m in archive.namelist() if name not in m}
        write_zip(path, members)

    return change


def with_member(name, make):
    def change(path):
        with zipfile.ZipFile(path) as archive:
            members = {m: archive.read(m) for m in archive.namelist()}
        write_zip(path, {**members, name: make(members)})

    return change


BAD_ZIPS = {
    "damaged": (damage, "is damaged: .* Download it again"),
    "truncated": (truncate, "expected a zip, but it cannot be read"),
    "not a zip": (lambda path: path.write_text("<html>403</html>"), "expected a zip, but it cannot be read"),
    "escapes": (escape, "points outside of the zip"),
    "absolute": (with_member("/etc/x.json", lambda m: b"{}"), "points outside of the zip"),
    "windows": (with_member("C:\\x.json", lambda m: b"{}"), "points outside of the zip"),
    "no magnitude": (without("MAG"), "there is no magnitude in .*; looked for SWI_TOTAL_MAG_orig"),
    "an echo missing": (
        without("MAG_TE2"),
        r"found 2 echoes of phase \(PHASE_TE1, PHASE_TE2\) but 1 of magnitude \(SWI_TOTAL_MAG_orig\)",
    ),
    "sidecar": (with_member("SWI/SWI_TOTAL_MAG.json", lambda m: b"{"), "is no JSON sidecar"),
    "image": (with_member("SWI/SWI_TOTAL_MAG_orig.nii.gz", lambda m: b"no image"), "expected a NIfTI image"),
    "grids": (
        with_member("SWI/SWI_TOTAL_MAG_TE2_orig.nii.gz", lambda m: m["other"] if "other" in m else smaller()),
        r"has shape \(8, 9, 6\).*Is a slice missing",
    ),
    "echo times": (
        with_member("SWI/SWI_TOTAL_MAG_TE2.json", lambda m: json.dumps({"EchoTime": 0.03}).encode()),
        "echo times of phase are .* but of magnitude",
    ),
}


def smaller():
    image = image_of(series((8, 9, 6))[1][1], AFFINE)
    return zlib_gz(image.to_bytes())


def zlib_gz(raw):
    packer = zlib.compressobj(wbits=31)
    return packer.compress(raw) + packer.flush()


@pytest.mark.parametrize("name", BAD_ZIPS)
def test_bad_zips_are_a_status_and_stop_nothing(tmp_path, zips, name):
    change, message = BAD_ZIPS[name]
    change(zips / "batch_1/1000001_20251_2_0.zip")
    out = tmp_path / "bids"
    outcome = run(zips, out)
    assert outcome.exit_code == 3
    rows = statuses(out)
    assert rows["sub-1000002", "ses-2"]["status"] == "done"
    failed = rows["sub-1000001", "ses-2"]
    assert failed["status"] == "failed"
    assert re.search(message, failed["message"]), failed["message"]
    assert str(tmp_path / "bids" / ".work") not in failed["message"]
    # Nothing half-written, nothing outside.
    assert not (out / "sub-1000001").exists()
    assert not (out / "derivatives/ukb/sub-1000001").exists()
    assert not (out / ".work").exists()
    assert not list(tmp_path.rglob("*escaped*"))
    assert any("sub-1000001 ses-2: " in line for line in outcome.result.summary)


def test_a_failure_leaves_what_was_converted_before(tmp_path, zips):
    out = tmp_path / "bids"
    run(zips, out)
    before = content(out / "sub-1000001")
    damage(zips / "batch_1/1000001_20251_2_0.zip")
    # The directory of the zip still has the old checksums: nothing to do.
    assert run(zips, out).exit_code == 0
    without("MAG")(zips / "batch_2/1000001_26301_2_0.zip")
    truncate(zips / "batch_2/1000001_26301_2_0.zip")
    assert run(zips, out).exit_code == 3
    assert content(out / "sub-1000001") == before


def test_bombs_are_refused_unread(tmp_path, members, monkeypatch):
    path = write_zip(tmp_path / "1_20251_2_0.zip", {**members[0], **members[1], "SWI/big.nii": bytes(1 << 20)})
    monkeypatch.setattr("brainlocus.io.ukb_zip.MAX_MEMBER_BYTES", (1 << 20) - 1)
    row = convert_visit(find_visits(path)[0][0], tmp_path / "out", tmp_path / "out/.work")
    assert row.status == "failed"
    assert "'SWI/big.nii' has 1048576 bytes, expected at most" in row.message
    monkeypatch.setattr("brainlocus.io.ukb_zip.MAX_MEMBER_BYTES", 1 << 30)
    monkeypatch.setattr("brainlocus.io.ukb_zip.MAX_MEMBERS", 3)
    row = convert_visit(find_visits(path)[0][0], tmp_path / "out", tmp_path / "out/.work")
    assert "members, expected at most 3" in row.message


def test_a_member_longer_than_it_says_is_cut_off(tmp_path, members):
    """The directory says 1000 bytes, the data are more: reading stops there and the checksum fails."""
    path = write_zip(tmp_path / "1_20251_2_0.zip", {**members[0], **members[1]})
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"SWI/SWI_TOTAL_MAG_orig.nii.gz") - 46
    assert raw[at : at + 4] == b"PK\x01\x02"
    raw[at + 24 : at + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(bytes(raw))
    row = convert_visit(find_visits(path)[0][0], tmp_path / "out", tmp_path / "out/.work")
    assert row.status == "failed"
    assert "is damaged" in row.message
    assert not (tmp_path / "out/sub-1").exists()


def test_phase_without_its_magnitude_asks_for_the_other_zip(tmp_path, members):
    path = write_zip(tmp_path / "7_26301_2_0.zip", members[1])
    row = convert_visit(find_visits(path)[0][0], tmp_path / "out", tmp_path / "out/.work")
    assert "Give 7_20251_2_0.zip too, in the same folder" in row.message


def test_second_choices(tmp_path, members):
    swi = {k: v for k, v in members[0].items() if "orig" not in k}
    path = write_zip(tmp_path / "7_20251_2_0.zip", {**swi, **members[1]})
    row = convert_visit(find_visits(path)[0][0], tmp_path / "out", tmp_path / "out/.work")
    assert row.status == "done"
    assert "may be corrected for gradient distortion" in row.message
    magnitude = series(SHAPE)[1]
    sos = {f"swi/sos_te{k + 1}.nii": image_of(5 * magnitude[k], AFFINE).to_bytes() for k in (0, 1)}
    path = write_zip(tmp_path / "8_20251_2_0.zip", {**swi, **members[1], **sos})
    row = convert_visit(find_visits(path)[0][0], tmp_path / "out", tmp_path / "out/.work")
    assert (row.status, row.message) == ("done", "")
    (files,) = find_gradient_echoes(tmp_path / "out", participant_labels=("8",))
    np.testing.assert_array_equal(read_gradient_echo(files).series.magnitude, 5 * magnitude)


def test_what_one_sidecar_says_of_the_scan_holds_for_all(tmp_path, members):
    """Else the protocol's 3 T beside a phase without sidecar would contradict the 2.8936 T of the magnitude."""
    swi = {**members[0], "SWI/SWI_TOTAL_MAG.json": '{"EchoTime": 0.0094, "MagneticFieldStrength": 2.8936}'}
    swi["SWI/SWI_TOTAL_MAG_TE2.json"] = '{"EchoTime": 0.02, "MagneticFieldStrength": 2.8936}'
    path = write_zip(tmp_path / "7_20251_2_0.zip", {**swi, **members[1]})
    row = convert_visit(find_visits(path)[0][0], tmp_path / "out", tmp_path / "out/.work")
    assert (row.status, row.message) == ("done", "")
    (files,) = find_gradient_echoes(tmp_path / "out")
    assert read_gradient_echo(files).series.acquisition.field_strength_t == 2.8936
    assert "MagneticFieldStrength" not in read_sidecar(files.echoes[0].phase_sidecars)["ProtocolDefaults"]


def test_a_field_strength_that_no_sidecar_has_is_said(tmp_path, members):
    everything = {k: v for k, v in {**members[0], **members[1]}.items() if not k.endswith(".json")}
    path = write_zip(tmp_path / "7_20251_2_0.zip", everything)
    row = convert_visit(find_visits(path)[0][0], tmp_path / "out", tmp_path / "out/.work")
    assert row.message == "field strength not in the zips: the protocol's nominal 3 T (Skyra systems image at 2.89 T)"


def test_echo_times_in_milliseconds_are_converted_and_said(tmp_path, members):
    swi = dict(members[0])
    swi["SWI/SWI_TOTAL_MAG.json"] = json.dumps({"EchoTime": 9.42})
    path = write_zip(tmp_path / "7_20251_2_0.zip", {**swi, **members[1], "QSM/PHASE_TE1.json": '{"EchoTime": 9.42}'})
    row = convert_visit(find_visits(path)[0][0], tmp_path / "out", tmp_path / "out/.work")
    assert "EchoTime 9.42 of SWI_TOTAL_MAG_orig was in milliseconds" in row.message
    (files,) = find_gradient_echoes(tmp_path / "out")
    assert read_gradient_echo(files).series.acquisition.echo_time_s == pytest.approx((0.00942, 0.02))


def with_coils(tmp_path, n=3):
    phase, magnitude = coils(*series(SHAPE), n)
    found = {}
    for c in range(n):
        for k in (0, 1):
            name = f"SWI_3MM_ECHO{k + 1}_COIL{c + 1}"
            found[f"SWI/MAG_TE{k + 1}/{name}.nii.gz"] = gz(image_of(magnitude[c, k], AFFINE), tmp_path)
            found[f"SWI/PHA_TE{k + 1}/{name}_PH.nii.gz"] = gz(stored_phase(phase[c, k], AFFINE, "siemens"), tmp_path)
    return found


def test_single_coils_on_request(tmp_path, members):
    everything = {**members[0], **members[1], **with_coils(tmp_path)}
    path = write_zip(tmp_path / "7_20251_2_0.zip", everything)
    run(path, tmp_path / "out")
    assert statuses(tmp_path / "out")["sub-7", "ses-2"]["message"] == "3 single coils left out"
    assert len(find_gradient_echoes(tmp_path / "out")) == 1
    run(path, tmp_path / "out", channels=True)
    combined, single = find_gradient_echoes(tmp_path / "out")
    assert (combined.acquisition, combined.n_coils) == (None, 0)
    assert (single.acquisition, single.n_coils) == ("coils", 3)
    source = open_channels(single)
    np.testing.assert_array_equal(source.read(2).magnitude, coils(*series(SHAPE), 3)[1][2])
    assert (tmp_path / "out/.bidsignore").read_text() == "*_coil-*_MEGRE.*\n"
    # A coil lost: the combined images still are converted.
    del everything["SWI/PHA_TE2/SWI_3MM_ECHO2_COIL2_PH.nii.gz"]
    path = write_zip(tmp_path / "8_20251_2_0.zip", everything)
    row = convert_visit(find_visits(path)[0][0], tmp_path / "o", tmp_path / "o/.work", channels=True)
    assert row.status == "done"
    assert "single coils left out: not the same ones" in row.message


def test_other_zips(tmp_path, zips):
    (zips / "1000001_20252_2_0.zip").write_bytes(b"")
    (zips / "1000001_20251_2_1.zip").write_bytes(b"")
    (zips / "notes.zip").write_bytes(b"")
    visits, others = find_visits(zips)
    assert (len(visits), others) == (2, 3)
    (tmp_path / "other").mkdir()
    with pytest.raises(FormatError, match=r"expected UK Biobank zips named <eid>_20251.*found 0 other zips"):
        find_visits(tmp_path / "other")
    with pytest.raises(FormatError, match="expected UK Biobank zips"):
        find_visits(zips / "notes.zip")
    outcome = run(zips, tmp_path / "out")
    assert outcome.result.counts["zips_left_aside"] == 3


def test_segmentations_of_the_t1_on_request(tmp_path, zips):
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[2:4], labels[4:6] = 11, 50
    image = gz(image_of(labels, AFFINE), tmp_path)
    t1 = {f"T1/{name}.nii.gz": image for name in ("T1", "T1_brain_mask", "T1_first/T1_first_all_fast_firstseg")}
    t1 |= {"T1/T1_fast/T1_brain_pve_0.nii.gz": image, "T1/transforms/T1_to_MNI_warp_coef.nii.gz": image}
    write_zip(zips / "1000001_20252_2_0.zip", t1)
    write_zip(zips / "1000001_20253_2_0.zip", {"T2_FLAIR/lesions/final_mask.nii.gz": image})
    # No swMRI at this visit: nothing to convert.
    write_zip(zips / "1000009_20252_2_0.zip", t1)
    out = tmp_path / "bids"
    assert run(zips, out).result.counts["zips_left_aside"] == 3
    assert run(zips, out, structural=True).result.counts == {
        "visits": 2,
        "participants": 2,
        "converted": 1,
        "present": 1,
        "failed": 0,
        "zips_left_aside": 1,
    }
    # A later run without the flag takes nothing away.
    assert run(zips, out).result.counts["present"] == 2
    derived = out / "derivatives/ukb"
    found = find_derivative(derived, "sub-1000001", "ses-2", suffix="dseg", entities={"desc": "first"})
    np.testing.assert_array_equal(read_parcellation(found).labels, labels)
    names = read_label_names(found)
    assert (names[11], names[50], len(names)) == ("Left-Caudate", "Right-Caudate", 15)
    assert find_derivative(derived, "sub-1000001", "ses-2", suffix="mask", entities={"label": "WMH"}) is not None
    assert find_derivative(derived, "sub-1000001", "ses-2", suffix="probseg", entities={"label": "CSF"}) is not None
    assert find_derivative(derived, "sub-1000001", "ses-2", suffix="xfm") is not None
    mask = find_derivative(derived, "sub-1000001", "ses-2", suffix="mask", entities={"desc": "brain"})
    assert mask.name == "sub-1000001_ses-2_space-T1w_desc-brain_mask.nii.gz"


def test_the_same_zip_in_two_folders_is_ambiguous(tmp_path, zips):
    first = zips / "batch_1/1000001_20251_2_0.zip"
    (zips / "copy").mkdir()
    (zips / "copy" / first.name).write_bytes(first.read_bytes())
    run(zips, tmp_path / "out")
    assert "was found in two folders" in statuses(tmp_path / "out")["sub-1000001", "ses-2"]["message"]


def test_a_run_that_was_killed_goes_on(tmp_path, zips, monkeypatch):
    out = tmp_path / "bids"
    calls = []

    def killed(visit, *arguments, **settings):
        calls.append(visit)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return convert_visit(visit, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr("brainlocus.pipeline.steps.convert_ukb.convert_visit", killed)
        config = QsmConvertUkbConfig(zips=zips)
        with pytest.raises(KeyboardInterrupt):
            execute(QSM_CONVERT_UKB, config, out, RunOptions(threads=1, executor="serial", quiet=True))
    outcome = run(zips, out)
    assert (outcome.result.counts["converted"], outcome.result.counts["present"]) == (1, 1)
    run(zips, tmp_path / "at once")
    assert {k: v for k, v in content(out).items() if k.name != "conversion.tsv"} == {
        k: v for k, v in content(tmp_path / "at once").items() if k.name != "conversion.tsv"
    }


def test_visits_are_sessions(tmp_path, members):
    for instance in (2, 3):
        write_zip(tmp_path / "zips" / f"9_20251_{instance}_0.zip", {**members[0], **members[1]})
    run(tmp_path / "zips", tmp_path / "out")
    assert [f.session_id for f in find_gradient_echoes(tmp_path / "out")] == ["ses-2", "ses-3"]


@given(
    end=st.booleans(),
    place=st.integers(0, 2**16),
    change=st.sampled_from(["change", "cut", "insert"]),
    noise=st.binary(min_size=1, max_size=8),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_zips_never_end_in_a_traceback(tmp_path_factory, whole_zip, end, place, change, noise):
    """Bytes changed, lost or added anywhere: converted, or a status with a message."""
    folder = tmp_path_factory.mktemp("zip")
    raw = bytearray(whole_zip.read_bytes())
    where = len(raw) - 1 - place % 1500 if end else place % len(raw)
    if change == "change":
        raw[where : where + len(noise)] = noise
    elif change == "cut":
        del raw[where:]
    else:
        raw[where:where] = noise
    path = folder / "7_20251_2_0.zip"
    path.write_bytes(bytes(raw))
    row = convert_visit(find_visits(path)[0][0], folder / "out", folder / "out/.work")
    assert row.status in ("done", "failed")
    assert (folder / "out/sub-7/ses-2").is_dir() == (row.status == "done")
    assert row.message or row.status == "done"
    assert not list(folder.rglob("*.partial*"))
    written = {p.relative_to(folder).parts[0] for p in folder.rglob("*")}
    assert written <= {"out", path.name}


@pytest.fixture
def whole_zip(tmp_path, members):
    return write_zip(tmp_path / "whole.zip", {**members[0], **members[1]})
