"""A study that starts from gradient-echo scans: phase to traits, beside other traits, resumed."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from brainlocus.cli.main import cli
from brainlocus.pipeline.people import read_people
from brainlocus.pipeline.run_study import plan_study
from brainlocus.pipeline.study import load_study

PEOPLE = 6
STUDY = """
[inputs]
scans = "bids"
scan_masks = "bids/derivatives/truth"
scan_segmentations = "bids/derivatives/truth"
participants = "participants.tsv"
phenotypes = "phenotypes.tsv"
[qsm]
inversion = "tkd"
[prepare]
min_people = 3
[phenome]
covariates = "age"
"""


def brainlocus(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("scans")
    done = brainlocus(
        "simulate", "head", root / "bids", "--grid", "3mm", "--participants", PEOPLE, "--spread", 0.2, "--quiet"
    )
    assert done.exit_code == 0, done.output
    names = [f"sub-{k + 1:02d}" for k in range(PEOPLE)]
    rng = np.random.default_rng(0)
    rows = [f"{name}\t{age:.1f}" for name, age in zip(names, rng.uniform(45, 80, PEOPLE), strict=True)]
    (root / "participants.tsv").write_text("participant_id\tage\n" + "\n".join(rows) + "\n")
    rows = [f"{name}\t{score:.3f}" for name, score in zip(names, rng.normal(size=PEOPLE), strict=True)]
    (root / "phenotypes.tsv").write_text("participant_id\tscore\n" + "\n".join(rows) + "\n")
    (root / "study.toml").write_text(STUDY)
    done = brainlocus("run", root / "study.toml", "--out", root / "out", "--quiet", "--threads", 2)
    assert done.exit_code == 0, done.output
    return root


def test_scans_become_traits_and_associations(folder):
    out = folder / "out"
    assert sorted(p.stem for p in out.glob("*.json")) == ["input_traits", "phenome", "susceptibility", "traits"]
    scans = read_people(out / "susceptibility" / "idps.tsv")
    joined = read_people(out / "input_traits.parquet")
    assert joined.names == scans.names
    np.testing.assert_array_equal(
        joined.column("QSM_left_putamen_median").values, scans.column("QSM_left_putamen_median").values
    )
    assert np.ptp(scans.column("QSM_left_putamen_median").values) > 1.0
    assert "QSM_left_putamen_median" in read_people(out / "traits.parquet").names


def test_a_resumed_study_does_nothing_again(folder):
    out = folder / "out"
    scans = {p: p.stat().st_mtime_ns for p in out.glob("susceptibility/sub-*/**/*") if p.is_file()}
    done = brainlocus("run", folder / "study.toml", "--out", out, "--quiet", "--resume")
    assert done.exit_code == 0, done.output
    assert f"0 scans done, {PEOPLE} were there" in done.output
    assert done.output.count("unchanged") == 3
    assert scans == {p: p.stat().st_mtime_ns for p in scans}


def test_a_scan_that_fails_stops_only_itself(folder, tmp_path):
    for name in ("bids", "participants.tsv", "phenotypes.tsv"):
        source = folder / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    for sidecar in (tmp_path / "bids" / "sub-02").rglob("*MEGRE.json"):
        content = json.loads(sidecar.read_text())
        del content["MagneticFieldStrength"]
        sidecar.write_text(json.dumps(content))
    (tmp_path / "study.toml").write_text(STUDY)
    done = brainlocus("run", tmp_path / "study.toml", "--out", tmp_path / "out", "--quiet", "--threads", 2)
    assert done.exit_code == 3
    assert "MagneticFieldStrength" in done.output
    assert len(read_people(tmp_path / "out" / "traits.parquet").samples) == PEOPLE - 1


class TestPlan:
    """Which steps there are and what they read, without running them."""

    def plan(self, folder, text):
        path = folder / "planned.toml"
        path.write_text(text)
        return {p.key: p for p in plan_study(load_study(path), folder / "planned")}

    def test_scans_join_given_traits_and_those_of_images(self, folder):
        text = '[inputs]\nscans = "bids"\ntraits = "phenotypes.tsv"\nimages = "maps"\n'
        planned = self.plan(folder, text)
        assert list(planned) == ["atlas", "idp", "qsm", "traits", "prepare"]
        out = folder / "planned"
        expected = (out / "idps.parquet", folder / "phenotypes.tsv", out / "susceptibility" / "idps.tsv")
        assert planned["traits"].config.tables == expected
        assert planned["prepare"].config.table == out / "input_traits.parquet"

    def test_without_scans_nothing_changes(self, folder):
        planned = self.plan(folder, '[inputs]\ntraits = "phenotypes.tsv"\nimages = "maps"\n')
        assert list(planned) == ["atlas", "idp", "traits", "prepare"]
        assert planned["traits"].config.tables == (folder / "phenotypes.tsv",)
        assert planned["prepare"].config.table == folder / "planned" / "idps.parquet"

    def test_options_of_the_scans_are_inputs_of_the_study(self, folder):
        text = (
            '[inputs]\nscans = "bids"\nscan_masks = "m"\nscan_segmentations = "s"\nscan_transforms = "t"\n'
            'standard = "mni.nii.gz"\nscan_atlas = "nigra.nii.gz"\n[qsm]\nstandard_name = "MNI152NLin6Asym"\n'
        )
        config = self.plan(folder, text)["qsm"].config
        assert (config.masks, config.segmentations, config.transforms) == tuple(folder / n for n in "mst")
        assert (config.standard, config.atlas) == (folder / "mni.nii.gz", folder / "nigra.nii.gz")
        assert config.standard_name == "MNI152NLin6Asym"
