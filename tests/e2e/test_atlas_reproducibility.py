"""``atlas reproducibility`` through the command line: halves of a planted cohort, a column, two finished fits."""

import json

import numpy as np
import pytest

from brainlocus.core import Volume
from brainlocus.io import read_results, write_volume
from brainlocus.pipeline import atlas_agreement
from brainlocus.pipeline.steps import atlas as fit_step
from brainlocus.pipeline.steps import atlas_reproducibility as step
from tests.e2e.test_cohort_commands import run

SHAPE, AFFINE = (9, 10, 8), np.diag([4.0, 4, 4, 1])
N = 48


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Maps with four planted parcels, and a table of people."""
    root = tmp_path_factory.mktemp("halves")
    rng = np.random.default_rng(0)
    parcels = np.zeros(SHAPE, dtype=np.int32)
    parcels[1:8, 1:9, 1:7] = 1 + (np.arange(1, 8)[:, None, None] > 4) + 2 * (np.arange(1, 9)[None, :, None] > 4)
    grey = rng.uniform(0.4, 0.9, SHAPE) * (parcels > 0)
    lines = ["participant_id\tage\tsex\tsite\tdiagnosis"]
    for k in range(N):
        name = f"sub-{k:03d}"
        factor = 1 + 0.15 * rng.standard_normal(5)
        data = grey * factor[parcels] * (1 + 0.02 * rng.standard_normal(SHAPE))
        path = root / "bids" / name / "anat" / f"{name}_label-GM_probseg.nii.gz"
        write_volume(Volume(np.maximum(data, 0).astype(np.float32), AFFINE, ""), path)
        sex = "n/a" if k == 5 else "FM"[k % 2]
        lines.append(f"{name}\t{rng.uniform(20, 80):.1f}\t{sex}\t{k % 3}\t{'abc'[k % 3]}")
    (root / "participants.tsv").write_text("\n".join(lines) + "\n")
    write_volume(Volume((parcels > 0).astype(np.float32), AFFINE, ""), root / "mask.nii.gz")
    return root


def reproducibility(capsys, study, out, *arguments):
    return run(
        capsys, "atlas", "reproducibility", study / "bids", "--mask", study / "mask.nii.gz", "--out", out, "--quiet",
        *arguments,
    )  # fmt: skip


SPLIT = ("--scales", "4,6", "--repeats", "2", "--stratify", "site,sex,age", "--permutations", "4")


def test_random_halves(study, tmp_path, capsys, monkeypatch):
    def unread(*_args, **_kwargs):
        raise AssertionError("a fit read the images again")

    monkeypatch.setattr(fit_step, "convert_images", unread)
    code, said = reproducibility(
        capsys, study, tmp_path / "r", *SPLIT, "--participants", study / "participants.tsv"
    )  # fmt: skip
    assert code == 0, said
    table = read_results(tmp_path / "r" / "reproducibility.tsv")
    assert list(zip(table["scale"], table["repeat"], strict=True)) == [(4, 0), (6, 0), (4, 1), (6, 1)]
    planted = table["scale"] == 4
    assert table["reproducibility"][planted].min() > 0.98
    assert table["adjusted_rand"][planted].min() > 0.95
    assert table["adjusted_mutual_information"][planted].min() > 0.9
    assert table["mean_dice"][planted].min() > 0.95
    assert table["null_reproducibility"].max() < 0.6
    # Two components more than there are parcels divide noise, otherwise in each half.
    assert table["reproducibility"][~planted].max() < table["reproducibility"][planted].min()
    assert set(table["status"]) == {"ok"}
    components = read_results(tmp_path / "r" / "components.tsv")
    assert len(components) == 2 * (4 + 6)
    rows = (components["scale"] == 6) & (components["repeat"] == 1)
    assert sorted(components["region"][rows].tolist()) == sorted(components["matched_region"][rows].tolist())
    assert components["inner_product"][rows].mean() == pytest.approx(table["reproducibility"][3], rel=1e-12)
    halves = read_results(tmp_path / "r" / "splits.tsv")
    assert len(halves) == 2 * N
    first = (halves["half"] == "first") & (halves["repeat"] == 0)
    for site in range(3):  # 16 people of each site
        assert first[:N][np.arange(N) % 3 == site].sum() == 8
    assert not np.array_equal(halves["half"][:N], halves["half"][N:])
    assert (tmp_path / "r" / "reproducibility.png").stat().st_size > 10_000
    manifest = json.loads((tmp_path / "r.json").read_text())
    assert manifest["counts"]["participants"] == N
    assert manifest["summary"][0].startswith("C4: reproducibility ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r", "r.json"]


@pytest.mark.parametrize(
    "options", [("--solver", "mu", "--start", "seeds"), ("--solver", "em+mu"), ("--batch-size", "8")]
)
def test_options_of_the_fit_pass_through(study, tmp_path, capsys, monkeypatch, options):
    """Soft fits are compared as hard ones are; what `atlas fit` takes, both halves get."""
    fitted, seen = step.fit_images, []

    def records(config, *rest):
        seen.append(config)
        return fitted(config, *rest)

    monkeypatch.setattr(step, "fit_images", records)
    code, said = reproducibility(
        capsys, study, tmp_path / "r", "--scales", "4", "--permutations", "2", "--no-figures", *options,
        "--max-iterations", "3000", "--max-epochs", "200",
    )  # fmt: skip
    assert code in (0, 3), said  # 3: a fit that the limits ended; the status says so
    table = read_results(tmp_path / "r" / "reproducibility.tsv")
    assert (table["status"][0] == "ok") == (code == 0)
    assert table["reproducibility"][0] > 0.9
    assert table["adjusted_rand"][0] > 0.9
    assert len(seen) == 2
    expected = {"mu": ("mu", None), "em+mu": ("em+mu", None), "8": (None, 8)}[options[1]]
    assert {(config.solver, config.batch_size) for config in seen} == {expected}


def test_interrupted_run_goes_on(study, tmp_path, capsys, monkeypatch):
    arguments = (*SPLIT, "--participants", study / "participants.tsv", "--no-figures")
    assert reproducibility(capsys, study, tmp_path / "whole", *arguments)[0] == 0
    compare, calls = atlas_agreement.compare_fits, []

    def stops(*given, **options):
        calls.append(1)
        if len(calls) == 3:  # in the second repeat
            raise KeyboardInterrupt
        return compare(*given, **options)

    monkeypatch.setattr(atlas_agreement, "compare_fits", stops)
    assert reproducibility(capsys, study, tmp_path / "part", *arguments)[0] == 130
    monkeypatch.setattr(atlas_agreement, "compare_fits", compare)

    def refit(*_args, **_kwargs):
        raise AssertionError("a finished fit was made again")

    monkeypatch.setattr(step, "fit_images", refit)
    assert reproducibility(capsys, study, tmp_path / "part", *arguments, "--resume")[0] == 0
    for name in ("reproducibility.tsv", "components.tsv", "splits.tsv"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_parts_by_a_column(study, tmp_path, capsys):
    code, said = reproducibility(
        capsys, study, tmp_path / "r", "--scales", "4", "--split", "sex", "--participants", study / "participants.tsv"
    )
    assert code == 0, said
    table = read_results(tmp_path / "r" / "reproducibility.tsv")
    assert (table["n_first"].tolist(), table["n_second"].tolist()) == ([24], [23])
    halves = read_results(tmp_path / "r" / "splits.tsv")
    assert set(halves["half"]) == {"F", "M"}
    assert "sub-005" not in set(halves["participant_id"])
    assert json.loads((tmp_path / "r.json").read_text())["counts"]["without_split"] == 1


def test_two_finished_fits(study, tmp_path, capsys):
    for name, scales in (("a", "2,4"), ("b", "4,5")):
        code, said = run(
            capsys, "atlas", "fit", study / "bids", "--mask", study / "mask.nii.gz", "--scales", scales, "--out",
            tmp_path / name, "--no-figures", "--quiet",
        )  # fmt: skip
        assert code == 0, said
    assert not list((tmp_path / "a").rglob("*.png"))
    code, said = run(
        capsys, "atlas", "reproducibility", tmp_path / "a", "--against", tmp_path / "b", "--out", tmp_path / "r",
        "--quiet",
    )  # fmt: skip
    assert code == 0, said
    table = read_results(tmp_path / "r" / "reproducibility.tsv")
    assert table["scale"].tolist() == [4]
    assert table["n_first"].tolist() == [N]
    assert table["reproducibility"][0] == pytest.approx(1.0, abs=1e-6)  # same people, scale and seed: the same fit
    assert json.loads((tmp_path / "r.json").read_text())["counts"]["scales_of_one_only"] == [2, 5]

    def refused(*arguments):
        code, said = run(capsys, "atlas", "reproducibility", *arguments, "--out", tmp_path / "no", "--quiet")
        assert code == 2
        assert not (tmp_path / "no").exists()
        return said

    assert "expected a folder that atlas fit wrote" in refused(
        tmp_path / "a", "--against", tmp_path / "b" / "C4" / "labels.nii.gz"
    )
    assert "expected C*/labels.nii.gz" in refused(tmp_path / "a", "--against", study)
    assert "takes no --participants" in refused(
        tmp_path / "a", "--against", tmp_path / "b", "--participants", study / "participants.tsv"
    )
    (tmp_path / "b" / "C4" / "components.npy").unlink()
    assert "found no C4/components.npy" in refused(tmp_path / "a", "--against", tmp_path / "b")


def test_bad_input(study, tmp_path, capsys):
    people = study / "participants.tsv"

    def refused(*arguments):
        code, said = reproducibility(capsys, study, tmp_path / "no", *arguments)
        assert code == 2, said
        assert not (tmp_path / "no").exists()
        return said

    assert "need --participants" in refused("--split", "sex")
    assert "need --participants" in refused("--stratify", "sex")
    assert "expected two levels, found 3: a (16), b (16), c (16)" in refused(
        "--split", "diagnosis", "--participants", people
    )
    assert "a column gives one split" in refused("--split", "sex", "--participants", people, "--repeats", "2")
    assert "'sexx'" in refused("--split", "sexx", "--participants", people)
    assert "'sexx'" in refused("--stratify", "sexx", "--participants", people)
    assert "need as many voxels" in refused("--scales", "4,9999")
    assert "expected different numbers" in refused("--scales", "4,4")
    (tmp_path / "twice.tsv").write_text("participant_id\tsex\nsub-001\tF\nsub-001\tM\n")
    assert "'sub-001'" in refused("--split", "sex", "--participants", tmp_path / "twice.tsv")
    (tmp_path / "others.tsv").write_text("participant_id\tsex\nx\tF\ny\tM\n")
    assert "No participant" in refused("--split", "sex", "--participants", tmp_path / "others.tsv")
    (tmp_path / "few.tsv").write_text("participant_id\tsex\nsub-001\tF\nsub-002\tM\nsub-003\tM\n")
    assert "found 1 in 'F' and 2 in 'M'" in refused("--split", "sex", "--participants", tmp_path / "few.tsv")
    assert "--solver" in refused("--solver", "none")
