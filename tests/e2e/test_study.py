"""A whole small study, images to store: run, killed and resumed, on every executor, and with bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from brainlocus.cli.main import cli, main
from brainlocus.io import read_results
from brainlocus.pipeline.demo import compare_with_truth

pytest.importorskip("msprime", reason="msprime (extra 'simulate') is not installed")

STUDY = """
name = "small"
[inputs]
images = "cohort"
mask = "cohort/mask.nii.gz"
participants = "cohort/participants.tsv"
phenotypes = "cohort/phenotypes.tsv"
categories = "cohort/categories.tsv"
genotypes = "cohort/genotypes/cohort.pgen"
[atlas]
scales = [4]
[gwas]
hits = 0.05
[signature]
repeats = 2
inner_folds = 3
"""


def brainlocus(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    done = brainlocus(
        "simulate", "cohort", root / "cohort", "--participants", 300, "--regions", 4, "--variants", 2000,
        "--chromosomes", 2, "--chromosome-mb", 15, "--voxel-mm", 8, "--sites", 2, "--causal", 1,
        "--causal-variance", 0.2, "--quiet",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (root / "study.toml").write_text(STUDY)
    return root


@pytest.fixture(scope="module")
def whole(folder):
    done = brainlocus("run", folder / "study.toml", "--out", folder / "whole", "--quiet", "--threads", 2)
    assert done.exit_code == 0, done.output
    return folder / "whole"


def contents(root):
    """Every file below a folder: bytes, and of JSON files what is not about time, memory or place."""
    found = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = str(path.relative_to(root))
        if path.suffix != ".json":
            found[name] = path.read_bytes()
            continue
        content = json.loads(path.read_text())
        for part in ("run", "created", "seconds", "outputs"):
            content.pop(part, None)
        for one in content.get("inputs", []):
            one.pop("path")
            one.pop("size_bytes")  # of folders that hold times
        found[name] = content
    return found


def test_what_was_planted_is_compared_with_what_was_found(folder, whole):
    findings = compare_with_truth(folder / "cohort", whole)
    by_name = {f.figure: f for f in findings}
    assert by_name["Atlas, adjusted Rand index"].ok
    assert by_name["Site variance (mean eta^2)"].ok
    assert len([n for n in by_name if n.startswith("h2 of planted")]) == 4
    assert (whole / "store" / "store.json").is_file()


def test_every_output_has_a_manifest_with_its_inputs(whole):
    manifests = [json.loads(p.read_text()) for p in whole.glob("*.json")]
    assert len(manifests) == 18
    for manifest in manifests:
        assert manifest["inputs"], manifest["step"]
        assert all(len(i["sha256"]) == 64 for i in manifest["inputs"])
        assert manifest["run"]["seconds"] >= 0


def test_resume_does_nothing_when_nothing_changed(folder, whole):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.is_file()}
    done = brainlocus("run", folder / "study.toml", "--out", whole, "--resume", "--quiet")
    assert done.output.count("unchanged") == 18
    assert before == {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.is_file()}


def test_killed_and_resumed_gives_the_same_bytes(folder, whole):
    out = folder / "killed"
    command = [sys.executable, "-m", "brainlocus.cli.main", "run", str(folder / "study.toml"), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    process = subprocess.Popen([*command, "--quiet"], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "qc.json").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "store").exists()
    subprocess.run([*command, "--quiet", "--resume"], env=environment, check=True, stdout=subprocess.DEVNULL)
    first, second = contents(whole), contents(out)
    assert first.keys() == second.keys()
    for name, content in first.items():
        assert second[name] == content, name


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_the_executor_changes_no_bit_of_the_scan(folder, whole, executor):
    out = folder / executor
    shutil.copytree(whole, out)
    arguments = ["--only", "idp", "--only", "gwas", "--executor", executor, "--threads", 2, "--quiet"]
    done = brainlocus("run", folder / "study.toml", "--out", out, *arguments)
    assert done.exit_code == 0, done.output
    for name in ("idps.parquet", "gwas/hits.parquet", "gwas/full/part-00000.parquet"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_leads_are_the_planted_variants(folder, whole):
    truth = json.loads((folder / "cohort" / "truth.json").read_text())
    planted = {(r["chromosome"], r["position"]) for region in truth["regions"] for r in region["causal_variants"]}
    loci = read_results(whole / "loci" / "loci.parquet")
    places = list(zip(loci["chromosome"].tolist(), loci["start"].tolist(), loci["stop"].tolist(), strict=True))
    assert places
    for chromosome, start, stop in places:
        assert any(c == chromosome and start - 250_000 <= p <= stop + 250_000 for c, p in planted)


class TestBadInput:
    """One message on standard error, exit code 2, and nothing but finished steps in the folder."""

    def run(self, folder, capsys, text, *extra):
        path = folder / "bad.toml"
        path.write_text(text)
        out = folder / "bad"
        shutil.rmtree(out, ignore_errors=True)
        with pytest.raises(SystemExit) as stop:
            main(["run", str(path), "--out", str(out), "--quiet", *extra])
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert message.startswith("Error: ")
        assert "Traceback" not in message
        left = [p.name for p in out.glob(".*")] if out.exists() else []
        assert left == []
        return message

    def test_truncated_genotypes(self, folder, capsys, tmp_path):
        for end in ("bed", "bim", "fam"):
            shutil.copy(folder / "cohort" / "genotypes" / f"cohort.{end}", tmp_path)
        with (tmp_path / "cohort.bed").open("r+b") as stream:
            stream.truncate(10_000)
        text = f'[inputs]\ngenotypes = "{tmp_path}/cohort.bed"\n'
        assert "10000" in self.run(folder, capsys, text).replace(",", "")

    def test_wrong_magic(self, folder, capsys, tmp_path):
        for end in ("bed", "bim", "fam"):
            shutil.copy(folder / "cohort" / "genotypes" / f"cohort.{end}", tmp_path)
        with (tmp_path / "cohort.bed").open("r+b") as stream:
            stream.write(b"PK\x03")
        assert "cohort.bed" in self.run(folder, capsys, f'[inputs]\ngenotypes = "{tmp_path}/cohort.bed"\n')

    def test_mismatched_grids(self, folder, capsys):
        text = STUDY.replace('mask = "cohort/mask.nii.gz"', 'mask = "other.nii.gz"')
        from brainlocus.core import Mask
        from brainlocus.io.nifti import read_mask, write_mask

        mask = read_mask(folder / "cohort" / "mask.nii.gz")
        write_mask(Mask(mask.data[:-1], mask.affine), folder / "other.nii.gz")
        assert "has shape" in self.run(folder, capsys, text)

    def test_ids_that_do_not_meet(self, folder, capsys):
        people = (folder / "cohort" / "participants.tsv").read_text().replace("sub-", "P")
        (folder / "strangers.tsv").write_text(people)
        text = STUDY.replace("cohort/participants.tsv", "strangers.tsv")
        message = self.run(folder, capsys, text)
        assert "sub-0001" in message
        assert "P0001" in message

    def test_duplicate_ids(self, folder, capsys):
        lines = (folder / "cohort" / "participants.tsv").read_text().splitlines()
        (folder / "twice.tsv").write_text("\n".join([*lines, lines[1]]) + "\n")
        text = STUDY.replace("cohort/participants.tsv", "twice.tsv")
        assert "sub-0001" in self.run(folder, capsys, text)

    def test_missing_files(self, folder, capsys):
        message = self.run(folder, capsys, STUDY.replace("cohort/phenotypes.tsv", "phenotypez.tsv"))
        assert "phenotypez.tsv" in message
        assert "absent.pgen" in self.run(folder, capsys, '[inputs]\ngenotypes = "absent.pgen"\n')

    def test_unknown_key(self, folder, capsys):
        message = self.run(folder, capsys, STUDY.replace("[gwas]\nhits", "[gwas]\nhitz"))
        assert "Did you mean 'hits'" in message


def test_simulation_stays_within_what_it_declares_and_refuses_less(tmp_path):
    from brainlocus.pipeline.steps.simulate import SimulateCohortConfig, simulate_cohort_peak_bytes

    settings = {"participants": 600, "variants": 2000, "chromosomes": 2, "chromosome_mb": 20, "voxel_mm": 8}
    options = [f"--{k.replace('_', '-')}={v}" for k, v in settings.items()]
    command = [sys.executable, "-m", "brainlocus.cli.main", "simulate", "cohort"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    more = [*options, "--regions=4", "--threads=2", "--quiet"]
    subprocess.run([*command, str(tmp_path / "c"), *more], env=environment, check=True, stdout=subprocess.DEVNULL)
    measured = json.loads((tmp_path / "c.json").read_text())["run"]["peak_memory_bytes"]
    assert measured <= simulate_cohort_peak_bytes(SimulateCohortConfig(**settings, regions=4), 2)
    small = [*command, str(tmp_path / "d"), *more, "--memory=100MiB"]
    refused = subprocess.run(small, env=environment, check=False, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "needs 7" in refused.stderr
    assert not (tmp_path / "d").exists()
