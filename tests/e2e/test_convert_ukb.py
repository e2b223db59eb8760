"""`qsm convert-ukb` from the command line: zips to a dataset that every later step reads, exit codes, any executor."""

import json
import re
import subprocess
import sys
import zipfile

import nibabel
import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.io import find_gradient_echoes, read_gradient_echo
from tests.qsm_dataset import image_of, series, stored_phase

AFFINE = np.diag([-0.8, 0.8, 3.0, 1.0])


def convert(*arguments):
    """Run the command and return its exit code."""
    try:
        main(["qsm", "convert-ukb", *map(str, arguments), "--quiet"])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def zips(tmp_path):
    folder = tmp_path / "zips"
    folder.mkdir()
    for k in range(3):
        phase, magnitude = series(seed=k)
        images = {f"SWI/SWI_TOTAL_MAG{te}_orig": image_of(magnitude[e], AFFINE) for e, te in enumerate(("", "_TE2"))}
        images |= {f"SWI/PHASE_TE{e + 1}": stored_phase(phase[e], AFFINE, "siemens") for e in (0, 1)}
        with zipfile.ZipFile(folder / f"100000{k}_20251_2_0.zip", "w") as archive:
            for name, image in images.items():
                nibabel.save(image, tmp_path / "image.nii.gz")
                archive.write(tmp_path / "image.nii.gz", f"{name}.nii.gz")
    return folder


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_executor_writes_the_same_dataset(tmp_path, zips):
    for executor in ("serial", "threads", "processes"):
        assert convert(zips, tmp_path / executor, "--executor", executor, "--threads", "2") == 0
    assert files(tmp_path / "serial") == files(tmp_path / "threads") == files(tmp_path / "processes")
    found = find_gradient_echoes(tmp_path / "serial")
    assert len(found) == 3
    for k, subject in enumerate(found):
        np.testing.assert_array_equal(read_gradient_echo(subject).series.magnitude, series(seed=k)[1])
    manifest = json.loads((tmp_path / "serial.json").read_text())
    assert (manifest["step"], manifest["counts"]["converted"]) == ("qsm convert-ukb", 3)


def test_one_bad_zip_is_exit_code_3_and_can_be_mended(tmp_path, zips, capsys):
    bad = zips / "1000001_20251_2_0.zip"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:4000])
    out = tmp_path / "bids"
    assert convert(zips, out) == 3
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    assert sorted(p.name for p in out.glob("sub-*")) == ["sub-1000000", "sub-1000002"]
    table = (out / "derivatives/ukb/conversion.tsv").read_text()
    assert re.search(r"sub-1000001\tses-2\tfailed\t.*Download it again", table)
    bad.write_bytes(whole)
    assert convert(zips, out, "--resume") == 0
    assert convert(zips, tmp_path / "at once") == 0
    raw = {path: content for path, content in files(out).items() if path.name != "conversion.tsv"}
    assert raw == {p: c for p, c in files(tmp_path / "at once").items() if p.name != "conversion.tsv"}
    assert convert(zips, out) == 0
    assert "failed" not in (out / "derivatives/ukb/conversion.tsv").read_text()


def test_runs_at_the_same_time_add_to_one_dataset(tmp_path, zips):
    """As on a cluster: one process a zip, one dataset."""
    command = [sys.executable, "-m", "brainlocus.cli.main", "qsm", "convert-ukb"]
    paths = sorted(zips.glob("*.zip"))
    (tmp_path / "bids").mkdir()
    (tmp_path / "bids/dataset_description.json").write_text("{}")
    runs = [subprocess.Popen([*command, path, tmp_path / "bids", "--quiet", "--threads", "1"]) for path in paths]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert (tmp_path / "bids/participants.tsv").read_text().split()[1:] == [f"sub-100000{k}" for k in range(3)]
    assert (tmp_path / "bids/derivatives/ukb/conversion.tsv").read_text().count("done") == 3
    assert not list((tmp_path / "bids").rglob("*.partial*"))


@pytest.mark.parametrize("source", ["absent", "empty", "notes.txt"])
def test_no_zips_are_exit_code_2(tmp_path, source, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    assert convert(tmp_path / source, tmp_path / "bids") == 2
    shown = capsys.readouterr()
    assert "expected" in shown.err
    assert "Traceback" not in shown.out + shown.err
    assert not (tmp_path / "bids").exists()


def test_folders_of_something_else_are_not_written_to(tmp_path, zips, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("1")
    assert convert(zips, tmp_path / "thesis") == 2
    assert "expected a new or empty folder" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]
    assert convert(zips, zips) == 2
