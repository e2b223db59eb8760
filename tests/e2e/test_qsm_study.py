"""A study that starts from gradient-echo scans: phase to traits, beside other traits, resumed."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from brainlocus.cli.main import cli
from brainlocus.io import read_results
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
reference = "white-matter"
[prepare]
confounds = "age"
min_people = 3
[phenome]
min_people = 3
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
    for sidecar in (root / "bids" / f"sub-{PEOPLE:02d}").rglob("*MEGRE.json"):
        content = json.loads(sidecar.read_text())
        del content["MagneticFieldStrength"]
        sidecar.write_text(json.dumps(content))
    (root / "study.toml").write_text(STUDY)
    return root


@pytest.fixture(scope="module")
def first(folder):
    return brainlocus("run", folder / "study.toml", "--out", folder / "out", "--quiet", "--threads", 2)


def test_scans_become_traits_and_one_that_fails_stops_only_itself(folder, first):
    assert first.exit_code == 3
    assert f"{PEOPLE - 1} scans done, 0 were there, 1 failed" in first.output
    assert "MagneticFieldStrength" in first.output
    out = folder / "out"
    written = ["input_traits.parquet", "phenome.parquet", "susceptibility", "traits.parquet"]
    assert sorted(p.stem for p in out.glob("*.json")) == written
    scans = read_people(out / "susceptibility" / "idps.tsv")
    joined = read_people(out / "input_traits.parquet")
    assert joined.names == scans.names
    assert len(joined.samples) == PEOPLE - 1
    np.testing.assert_array_equal(
        joined.column("QSM_left_thalamus_median").values, scans.column("QSM_left_thalamus_median").values
    )
    assert np.ptp(scans.column("QSM_left_thalamus_median").values) > 1.0
    assert "QSM_left_thalamus_median" in read_people(out / "traits.parquet").names
    tests = read_results(out / "phenome.parquet")
    assert np.isfinite(tests["neg_log10_p"][tests["trait"] == "QSM_left_thalamus_median"]).all()


def test_a_resumed_study_does_only_what_failed_again(folder, first):
    out = folder / "out"
    scans = {p: p.stat().st_mtime_ns for p in out.glob("susceptibility/sub-*/**/*.nii.gz")}
    done = brainlocus("run", folder / "study.toml", "--out", out, "--quiet", "--resume")
    assert done.exit_code == 3
    assert f"0 scans done, {PEOPLE - 1} were there, 1 failed" in done.output
    assert done.output.count("unchanged") == 3
    assert scans == {p: p.stat().st_mtime_ns for p in scans}


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
