"""``simulate head``: a BIDS dataset that holds what `simulate_head` returns."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.io.bids import find_gradient_echoes
from brainlocus.io.gradient_echo import read_gradient_echo
from brainlocus.io.nifti import read_mask, read_parcellation, read_volume
from brainlocus.simulate import head_settings, simulate_head


def _run(*arguments: object) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("heads") / "bids"
    arguments = ["--grid", "3mm", "--participants", 2, "--sessions", 2, "--seed", 5, "--spread", 0.1, "--threads", 2]
    assert _run("simulate", "head", out, *arguments, "--quiet") == 0
    return out


def _participants(dataset: Path) -> dict[str, int]:
    lines = (dataset / "participants.tsv").read_text().splitlines()
    assert lines[0] == "participant_id\tseed"
    return {name: int(seed) for name, seed in (line.split("\t") for line in lines[1:])}


def test_files_hold_the_simulated_scan_and_its_truth(dataset: Path) -> None:
    settings = replace(head_settings("3mm"), spread=0.1)
    for name, seed in _participants(dataset).items():
        second = simulate_head(settings, seed=seed, scan=1)
        folder = dataset / name / "ses-2" / "anat"
        for echo in (0, 1):
            stem = f"{name}_ses-2_echo-{echo + 1}_part"
            phase = read_volume(folder / f"{stem}-phase_MEGRE.nii.gz")
            np.testing.assert_array_equal(phase.data, second.series.phase_rad[echo])
            magnitude = read_volume(folder / f"{stem}-mag_MEGRE.nii.gz")
            np.testing.assert_array_equal(magnitude.data, second.series.magnitude[echo])
            np.testing.assert_allclose(phase.affine, second.acquisition.grid.affine)
            sidecar = json.loads((folder / f"{stem}-phase_MEGRE.json").read_text())
            assert sidecar["EchoTime"] == (0.0094, 0.020)[echo]
            assert (sidecar["MagneticFieldStrength"], sidecar["Units"]) == (3.0, "rad")
        truth = dataset / "derivatives" / "truth" / name / "anat"
        np.testing.assert_array_equal(read_volume(truth / f"{name}_Chimap.nii.gz").data, second.chi_ppm)
        np.testing.assert_array_equal(read_mask(truth / f"{name}_desc-brain_mask.nii.gz").data, second.brain_mask)
        labels = read_parcellation(truth / f"{name}_dseg.nii.gz")
        np.testing.assert_array_equal(labels.labels, second.labels.labels)
        assert labels.names == second.labels.names
        field = read_volume(truth / f"{name}_desc-local_fieldmap.nii.gz").data
        np.testing.assert_allclose(field, second.local_field_ppm * 127.732435, rtol=1e-5, atol=1e-7)


def test_the_dataset_is_read_as_any_other(dataset: Path) -> None:
    found = find_gradient_echoes(dataset)
    assert [files.stem for files in found] == [f"sub-0{k}_ses-{n}" for k in (1, 2) for n in (1, 2)]
    loaded = read_gradient_echo(found.series[1])
    head = simulate_head(replace(head_settings("3mm"), spread=0.1), seed=5, scan=1)
    np.testing.assert_array_equal(loaded.series.magnitude, head.series.magnitude)
    np.testing.assert_allclose(np.exp(1j * loaded.series.phase_rad), np.exp(1j * head.series.phase_rad), atol=1e-6)
    assert loaded.series.acquisition.b0_direction == head.acquisition.b0_direction
    assert not [note for note in loaded.notes if note.is_warning]


def test_sessions_share_the_truth_and_people_do_not(dataset: Path) -> None:
    assert _participants(dataset)["sub-01"] == 5
    phases = {
        (name, session): read_volume(
            dataset / name / session / "anat" / f"{name}_{session}_echo-1_part-phase_MEGRE.nii.gz"
        ).data
        for name in ("sub-01", "sub-02")
        for session in ("ses-1", "ses-2")
    }
    assert len({phase.tobytes() for phase in phases.values()}) == 4
    maps = [
        read_volume(dataset / "derivatives" / "truth" / name / "anat" / f"{name}_Chimap.nii.gz").data
        for name in ("sub-01", "sub-02")
    ]
    assert np.abs(maps[0] - maps[1]).max() > 0.01
    listed = sorted(path.name for path in (dataset / "derivatives" / "truth").iterdir())
    assert listed == ["dataset_description.json", "sub-01", "sub-02"]


def test_another_executor_writes_the_same_bytes(dataset: Path, tmp_path: Path) -> None:
    arguments = ["--grid", "3mm", "--participants", 2, "--sessions", 2, "--seed", 5, "--spread", 0.1, "--threads", 1]
    assert _run("simulate", "head", tmp_path / "bids", *arguments, "--executor", "serial", "--quiet") == 0
    for path in sorted(dataset.rglob("*.nii.gz")):
        assert (tmp_path / "bids" / path.relative_to(dataset)).read_bytes() == path.read_bytes()


def test_coils_are_files_of_their_own(tmp_path: Path) -> None:
    assert _run("simulate", "head", tmp_path / "coils", "--grid", "3mm", "--channels", 3, "--seed", 1, "--quiet") == 0
    anat = tmp_path / "coils" / "sub-01" / "anat"
    coil = simulate_head("3mm", seed=1).channels(3).read(2)
    found = read_volume(anat / "sub-01_echo-2_part-phase_coil-03_MEGRE.nii.gz").data
    np.testing.assert_array_equal(found, coil.phase_rad[1])
    assert len(list(anat.glob("*.nii.gz"))) == 12


def test_what_cannot_be_simulated_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("simulate", "head", tmp_path / "a", "--grid", "7mm") == 2
    assert "Expected a grid among ukb" in capsys.readouterr().err
    assert _run("simulate", "head", tmp_path / "b", "--grid", "ukb", "--memory", "1GiB") == 2
    assert "MiB are given" in capsys.readouterr().err
    assert _run("simulate", "head", tmp_path / "c", "--echo-times", "0.02,0.01") == 2
    assert "increasing echo times" in capsys.readouterr().err
    assert _run("simulate", "head", tmp_path / "d", "--echo-times", "9.4,20") == 2
    assert "milliseconds" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
