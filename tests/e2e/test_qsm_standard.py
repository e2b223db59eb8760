"""`qsm run` and a standard space: heads that lie turned in the scanner, with the turn known."""

import json

import nibabel
import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.core import AffineTransform, Grid, Mask, Parcellation, Volume
from brainlocus.images.idp import REGIONS, measure_regions, region_labels
from brainlocus.io import read_parcellation, read_table, read_volume, write_itk_affine
from brainlocus.io.nifti import read_mask, write_derivative
from brainlocus.numerics.resample import resample_labels, resample_map
from brainlocus.simulate import simulate_head
from tests.qsm_dataset import write_head

STANDARD = Grid((91, 109, 91), np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1.0]]))
FINE = Grid((121, 145, 121), np.array([[-1.5, 0, 0, 90], [0, 1.5, 0, -126], [0, 0, 1.5, -72], [0, 0, 0, 1.0]]))
TAKEN = ("left_pallidum", "right_pallidum")
"""Regions that only the atlas has."""


def turned(degrees, shift):
    """Points of the head's own world to those of the scanner: about the main field, which stays along z."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, shift[0]], [s, c, 0, shift[1]], [0, 0, 1, shift[2]], [0, 0, 0, 1.0]])


def run(*arguments):
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def write_labels(labels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_derivative(labels, path, {"labels": {str(k): name for k, name in labels.names.items()}})


def only(labels, regions, *, without=False):
    numbers = [n for name, n in region_labels(labels).items() if name in regions]
    kept = np.isin(labels.labels, numbers) != without
    names = {n: name for n, name in labels.names.items() if (n in numbers) != without}
    return Parcellation(np.where(kept, labels.labels, 0).astype(np.int16), labels.affine, names)


def put_scan(folder, head, participant, turn):
    """Write a turned head with its mask, and its segmentation without what the atlas has."""
    write_head(folder / "bids", head, participant)
    for path in (folder / "bids").rglob(f"sub-{participant}*.nii.gz"):
        image = nibabel.load(path)
        data, affine = np.asanyarray(image.dataobj), turn @ image.affine
        moved = nibabel.Nifti1Image(data, affine, image.header)
        moved.set_sform(affine, code=1)
        moved.set_qform(affine, code=1)
        nibabel.save(moved, path)
    labels = Parcellation(head.labels.labels.astype(np.int16), turn @ head.acquisition.grid.affine, head.labels.names)
    write_labels(
        only(labels, TAKEN, without=True), folder / f"seg/sub-{participant}/anat/sub-{participant}_dseg.nii.gz"
    )
    place = folder / f"xfm/sub-{participant}/anat"
    place.mkdir(parents=True)
    return place


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A head at 2 mm, brought to the standard space through its T1-weighted image."""
    folder = tmp_path_factory.mktemp("one")
    head = simulate_head("2mm", seed=3)
    turn = turned(14, (5, -7, 4))
    place = put_scan(folder, head, "01", turn)
    halfway = turned(-8, (0, 3, 9))
    write_itk_affine(AffineTransform(halfway), place / "sub-01_from-T1w_to-MNI152_mode-image_xfm.txt")
    to_scan = AffineTransform(turn @ np.linalg.inv(halfway))
    write_itk_affine(to_scan, place / "sub-01_from-MEGRE_to-T1w_mode-image_xfm.txt")
    standard = resample_labels(head.labels, FINE)
    write_labels(standard, folder / "standard.nii.gz")
    write_labels(only(standard, TAKEN), folder / "atlas.nii.gz")
    common = ["qsm", "run", folder / "bids", "--inversion", "tkd", "--threads", 2, "--quiet"]
    common += ["--masks", folder / "bids/derivatives/truth"]
    more = ["--segmentations", folder / "seg", "--transforms", folder / "xfm"]
    more += ["--standard", folder / "standard.nii.gz", "--atlas", folder / "atlas.nii.gz"]
    assert run(*common, *more, folder / "out") == 0
    assert run(*common, "--segmentations", folder / "bids/derivatives/truth", folder / "plain") == 0
    return folder


def regions_of(chi, labels, inside):
    volume = Volume(np.nan_to_num(chi.data), chi.affine, "susceptibility", "ppm")
    return measure_regions(volume, labels, Mask(inside, chi.affine), signed=True)


def test_regions_of_the_standard_map_are_those_of_the_scan(one):
    anat, truth = one / "out/sub-01/anat", one / "bids/derivatives/truth"
    own = regions_of(
        read_volume(anat / "sub-01_Chimap.nii.gz"),
        read_parcellation(truth / "sub-01/anat/sub-01_dseg.nii.gz", lookup=truth / "dseg.tsv"),
        read_mask(anat / "sub-01_mask.nii.gz").data,
    )
    chi = read_volume(anat / "sub-01_space-MNI152_Chimap.nii.gz")
    there = regions_of(chi, read_parcellation(one / "standard.nii.gz"), np.isfinite(chi.data))
    assert own.regions == there.regions
    both = [k for k in range(len(own.regions)) if own.status[k] == there.status[k] == "ok"]
    assert len(both) >= 12
    np.testing.assert_allclose(there.median[both], own.median[both], atol=3.0)
    assert np.ptp(own.median[both]) > 60


def test_standard_maps_lie_on_the_given_grid_and_say_how_they_came_there(one):
    anat = one / "out/sub-01/anat"
    for ending, unit in (("Chimap", "ppm"), ("T2starmap", "s")):
        path = anat / f"sub-01_space-MNI152_{ending}.nii.gz"
        volume = read_volume(path)
        assert volume.data.shape == FINE.shape
        np.testing.assert_allclose(volume.affine, FINE.affine)
        sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        assert sidecar["Units"] == unit
        assert sidecar["OutsideMask"] == "NaN"
        assert np.isnan(volume.data[0, 0, 0])
        assert sidecar["Transforms"] == [
            "sub-01_from-T1w_to-MNI152_mode-image_xfm.txt",
            "sub-01_from-MEGRE_to-T1w_mode-image_xfm.txt",
        ]
        assert sidecar["LabelTransforms"]["atlas"] == [
            "sub-01_from-MEGRE_to-T1w_mode-image_xfm.txt (inverse)",
            "sub-01_from-T1w_to-MNI152_mode-image_xfm.txt (inverse)",
        ]
    record = json.loads((anat / "sub-01_qsm.json").read_text())
    assert {"atlas.nii.gz", "standard.nii.gz", "sub-01_from-MEGRE_to-T1w_mode-image_xfm.txt"} <= set(record["inputs"])
    volume = read_volume(anat / "sub-01_space-MNI152_Chimap.nii.gz")
    share = np.isfinite(volume.data).sum() * 1.5**3 / (read_mask(anat / "sub-01_mask.nii.gz").data.sum() * 8.0)
    assert share == pytest.approx(1.0, abs=0.01)


def test_the_atlas_completes_the_phenotypes(one):
    found, expected = (read_table(one / name / "idps.tsv") for name in ("out", "plain"))
    assert set(found.names) == set(expected.names) == {f"{m}_{r}_median" for m in ("QSM", "T2star") for r in REGIONS}
    for name in expected.names:
        value, own = found.column(name).values[0], expected.column(name).values[0]
        if any(region in name for region in TAKEN):  # labels of 1.5 mm, brought back by the nearest voxel
            assert value == pytest.approx(own, abs=8.0), name
        else:
            np.testing.assert_equal(value, own)


def test_a_missing_way_keeps_the_maps_and_says_what_to_give(one, capsys):
    (one / "nothing").mkdir(exist_ok=True)
    arguments = ["--masks", one / "bids/derivatives/truth", "--segmentations", one / "seg", "--inversion", "tkd"]
    arguments += ["--transforms", one / "xfm", "--standard-name", "Other", "--threads", 2, "--quiet"]
    arguments += ["--standard", one / "standard.nii.gz", "--atlas", one / "atlas.nii.gz", one / "without"]
    assert run("qsm", "run", one / "bids", *arguments) == 3
    record = json.loads((one / "without/sub-01/anat/sub-01_qsm.json").read_text())
    assert record["status"] == "check"
    assert "The atlas's regions are not measured. No transform from Other to MEGRE" in record["reason"]
    assert "There are no maps in Other. No transform from MEGRE to Other" in record["reason"]
    assert "found transforms of MNI152 (--standard-name)" in record["reason"]
    assert (one / "without/sub-01/anat/sub-01_Chimap.nii.gz").is_file()
    assert not list((one / "without/sub-01/anat").glob("*_space-*"))
    wrong = ["--atlas", one / "bids/derivatives/truth/sub-01/anat/sub-01_Chimap.nii.gz", one / "refused"]
    capsys.readouterr()
    assert run("qsm", "run", one / "bids", *wrong, "--quiet") == 2
    assert "expected integer labels" in capsys.readouterr().err


def test_what_the_protocol_supplied_is_flagged(one):
    """Field strengths that `qsm convert-ukb` had to take from the protocol are on the page and in the record."""
    bids = one / "assumed"
    write_head(bids, simulate_head("3mm", seed=1), "01", metadata={"ProtocolDefaults": ["MagneticFieldStrength"]})
    arguments = ["qsm", "run", bids, "--masks", bids / "derivatives/truth", "--inversion", "tkd", "--quiet"]
    assert run(*arguments, one / "flagged") == 0
    record = json.loads((one / "flagged/sub-01/anat/sub-01_qsm.json").read_text())
    flag = "taken from the protocol: field strength (3.0)"
    assert any(flag in text for text in record["flags"])
    assert flag in (one / "flagged/sub-01/anat/sub-01_qc.html").read_text()
    assert run(*arguments, "--field-strength", 2.89, one / "given") == 0
    record = json.loads((one / "given/sub-01/anat/sub-01_qsm.json").read_text())
    assert not any("protocol" in text for text in record["flags"])


@pytest.mark.slow
def test_a_template_of_turned_heads_is_sharp(tmp_path):
    truth, turns = [], [(-20, (4, 0, 3)), (16, (-6, 5, 0)), (7, (0, -8, -5)), (0, (0, 0, 0))]
    for k, (degrees, shift) in enumerate(turns):
        head = simulate_head("3mm", seed=k)
        turn = turned(degrees, shift)
        place = put_scan(tmp_path, head, f"0{k}", turn)
        write_itk_affine(AffineTransform(turn), place / f"sub-0{k}_from-MEGRE_to-MNI152_mode-image_xfm.txt")
        own = Volume(head.chi_ppm, head.acquisition.grid.affine, "susceptibility", "ppm")
        inside = Mask(head.brain_mask, own.affine)
        truth.append(resample_map(own, STANDARD, inside=inside).data)
    write_derivative(Mask(np.ones(STANDARD.shape, dtype=bool), STANDARD.affine), tmp_path / "grid.nii.gz", {})
    arguments = ["--masks", tmp_path / "bids/derivatives/truth", "--standard", tmp_path / "grid.nii.gz"]
    arguments += ["--transforms", tmp_path / "xfm", "--inversion", "tv", "--reference", "none", "--threads", 2]
    assert run("qsm", "run", tmp_path / "bids", *arguments, tmp_path / "out", "--quiet") == 0
    (tmp_path / "people.tsv").write_text("participant_id\tage\nsub-00\t50\nsub-01\t60\nsub-02\t75\nsub-03\t52\n")
    template = ["idp", "template", tmp_path / "out", "--participants", tmp_path / "people.tsv", "--bins", "45,65,80"]
    assert run(*template, "--contrast", "age", "--out", tmp_path / "template", "--quiet") == 0
    mean = read_volume(next((tmp_path / "template").rglob("mean*.nii.gz"))).data
    expected = np.mean(truth, axis=0)
    both = np.isfinite(mean) & (mean != 0) & np.isfinite(expected)
    assert both.sum() > 50_000

    def likeness(image, k=None):
        return np.corrcoef(image[both], (expected if k is None else truth[k])[both])[0, 1]

    singles = [read_volume(tmp_path / f"out/sub-0{k}/anat/sub-0{k}_space-MNI152_Chimap.nii.gz").data for k in range(4)]
    alone = [likeness(np.nan_to_num(image), k) for k, image in enumerate(singles)]
    astray = []
    for k in range(4):
        native = read_volume(tmp_path / f"out/sub-0{k}/anat/sub-0{k}_desc-unreferenced_Chimap.nii.gz")
        astray.append(np.nan_to_num(resample_map(native, STANDARD).data))
    assert likeness(mean) > 0.99 * np.mean(alone)
    assert likeness(np.mean(astray, axis=0)) < likeness(mean) - 0.2
