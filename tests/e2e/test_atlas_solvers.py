"""``atlas fit`` with every solver, on small images with planted parcels."""

import json

import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.core import Mask, Volume
from brainlocus.images.atlas import adjusted_rand
from brainlocus.io import read_parcellation, write_mask, write_volume

SHAPE = (12, 12, 8)
N = 24


def code_of(*arguments) -> int:
    """Run the command line and return its exit code."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def run(capsys, *arguments):
    """Return exit code and what was printed."""
    capsys.readouterr()
    code = code_of(*arguments)
    streams = capsys.readouterr()
    return code, streams.err + streams.out


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("atlas")
    rng = np.random.default_rng(0)
    parcels = np.zeros(SHAPE, dtype=np.int64)
    parcels[1:-1, 1:-1, 1:-1] = 1 + 2 * (np.arange(10) >= 5)[:, None, None] + (np.arange(10) >= 5)[None, :, None]
    people = 1 + 0.3 * rng.standard_normal((5, N))
    height = rng.uniform(0.4, 1.0, SHAPE)
    for i in range(N):
        data = np.where(parcels > 0, height * people[parcels, i] * (1 + 0.03 * rng.standard_normal(SHAPE)), 0.0)
        folder = root / f"bids/sub-{i:02d}/anat"
        folder.mkdir(parents=True)
        write_volume(
            Volume(np.maximum(data, 0).astype(np.float32), np.eye(4), "grey_matter"),
            folder / f"sub-{i:02d}_label-GM_probseg.nii.gz",
        )
    write_mask(Mask(parcels > 0, np.eye(4)), root / "mask.nii.gz")
    np.save(root / "truth.npy", parcels)
    return root


def fit(root, out, *more):
    return ("atlas", "fit", root / "bids", "--mask", root / "mask.nii.gz", "--out", out, "--quiet", *more)


def check(root, out, scale=4):
    """Return the report after checking what every solver promises of its files."""
    truth = np.load(root / "truth.npy")
    labels = read_parcellation(out / f"C{scale}/labels.nii.gz")
    assert adjusted_rand(truth[truth > 0], labels.labels[truth > 0].astype(np.int64)) > 0.95
    components = np.load(out / f"C{scale}/components.npy")
    assert components.dtype == np.float32
    assert components.min() >= 0
    np.testing.assert_allclose((components.astype(float) ** 2).sum(axis=0), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(components.argmax(axis=1) + 1, labels.labels[truth > 0])
    report = json.loads((out / f"C{scale}/fit.json").read_text())
    assert len(report["losses"]) == len(report["loss_at"])
    assert report["losses"][-1] == pytest.approx(report["relative_loss"] ** 2 * report["total"], rel=1e-9)
    assert 0 < report["relative_loss"] < 0.1
    assert 0 < report["explained_centred"] < report["explained"] < 1
    assert report["run"]["seconds"] > 0
    assert report["run"]["peak_memory_bytes"] > 1e7
    for name in ("atlas.png", "loss.png"):
        assert (out / f"C{scale}" / name).read_bytes()[:4] == b"\x89PNG"
    return report


@pytest.mark.parametrize("start", ["nndsvd", "seeds"])
def test_multiplicative_updates(root, tmp_path, start):
    assert code_of(*fit(root, tmp_path / "a", "--scales", 4, "--solver", "mu", "--start", start)) == 0
    report = check(root, tmp_path / "a")
    assert report["solver"] == "mu"
    assert report["reason"] == "tol"
    assert report["converged"]
    assert report["warnings"] == []
    assert report["mean_cosine"] < 0.1
    assert report["last_change"] < 1e-5
    assert report["exponent"] == 1.0


@pytest.mark.parametrize("more", [(), ("--solver", "mu"), ("--solver", "em+mu"), ("--batch-size", 7, "--patience", 3)])
def test_starts_from_half_the_resolution(root, tmp_path, more):
    assert code_of(*fit(root, tmp_path / "a", "--scales", 4, "--start", "coarse", *more)) == 0
    report = check(root, tmp_path / "a")
    assert report["start"] == ("coarse" if "em+mu" not in more else "coarse, em")


def test_interrupted_batches_from_half_the_resolution_go_on(root, tmp_path, monkeypatch):
    coarse = ("--scales", 4, "--batch-size", 7, "--start", "coarse", "--patience", 3, "--no-figures")
    assert code_of(*fit(root, tmp_path / "whole", *coarse)) == 0
    stop_after(monkeypatch, 2)
    assert code_of(*fit(root, tmp_path / "a", *coarse)) == 130
    monkeypatch.undo()
    assert code_of(*fit(root, tmp_path / "a", *coarse), "--resume") == 0
    here, there = (tmp_path / out / "C4/components.npy" for out in ("a", "whole"))
    assert here.read_bytes() == there.read_bytes()
    assert json.loads((tmp_path / "a/C4/fit.json").read_text())["start"] == "coarse"


def test_active_sets_and_compression(root, tmp_path):
    for name, more in (("active", ("--active", 3)), ("compressed", ("--compress",))):
        out = tmp_path / name
        assert code_of(*fit(root, out, "--scales", 4, "--solver", "mu", "--start", "seeds", *more)) == 0
        report = check(root, out)
        assert (report["active"], report["compressed"]) == {"active": (3, False), "compressed": (None, True)}[name]


@pytest.mark.parametrize("more", [(), ("--batch-size", 7)])
def test_the_exponent_is_taken(root, tmp_path, more):
    options = ("--scales", 4, "--solver", "mu", "--start", "seeds", "--exponent", 0.75, "--no-figures", *more)
    assert code_of(*fit(root, tmp_path / "a", *options)) == 0
    assert json.loads((tmp_path / "a/C4/fit.json").read_text())["exponent"] == 0.75


def test_nested_scales(root, tmp_path):
    nested = ("--scales", "4,2,5", "--hierarchy", "nested")
    assert code_of(*fit(root, tmp_path / "a", *nested)) == 0
    losses = [json.loads((tmp_path / f"a/C{k}/fit.json").read_text())["relative_loss"] for k in (2, 4, 5)]
    assert losses == sorted(losses, reverse=True)
    labels = {k: read_parcellation(tmp_path / f"a/C{k}/labels.nii.gz").labels for k in (2, 4, 5)}
    for coarse, fine in ((2, 4), (4, 5)):
        report = json.loads((tmp_path / f"a/C{fine}/fit.json").read_text())
        assert report["split_of"] == coarse
        for k, parent in enumerate(report["parents"], start=1):
            assert set(labels[coarse][labels[fine] == k]) == {parent}
    single = tmp_path / "single"
    assert code_of(*fit(root, single, "--scales", "2")) == 0
    assert (single / "C2/labels.nii.gz").read_bytes() == (tmp_path / "a/C2/labels.nii.gz").read_bytes()


NESTED = ("--scales", "4,2,5", "--hierarchy", "nested", "--no-figures")
SOFT = {
    "mu": ("--solver", "mu"),
    "active": ("--solver", "mu", "--active", 3),
    "batches": ("--batch-size", 7, "--start", "seeds", "--patience", 3),
    "em+mu": ("--solver", "em+mu"),
    "em+mu, updates": ("--solver", "em+mu", "--refine", "mu"),
}


@pytest.mark.parametrize("solver", SOFT)
def test_nested_soft_scales(root, tmp_path, solver):
    out = tmp_path / "a"
    # Two components of four parcels overlap: soft fits may say that they have not converged.
    assert code_of(*fit(root, out, *NESTED, *SOFT[solver])) in (0, 3)
    labels = {k: read_parcellation(out / f"C{k}/labels.nii.gz").labels for k in (2, 4, 5)}
    inside = np.load(root / "truth.npy") > 0
    for coarse, fine in ((2, 4), (4, 5)):
        report = json.loads((out / f"C{fine}/fit.json").read_text())
        assert (report["split_of"], report["start"]) == (coarse, "split")
        weights = np.load(out / f"C{fine}/components.npy")
        for k, parent in enumerate(report["parents"]):
            assert set(labels[coarse][labels[fine] == k + 1]) == {parent}
            assert set(labels[coarse][inside][weights[:, k] > 0]) == {parent}
    single = tmp_path / "single"
    assert code_of(*fit(root, single, "--scales", "2", "--no-figures", *SOFT[solver])) in (0, 3)
    assert (single / "C2/components.npy").read_bytes() == (out / "C2/components.npy").read_bytes()


def test_interrupted_nested_batches_go_on_to_the_same_files(root, tmp_path, monkeypatch, capsys):
    nested = (*NESTED, *SOFT["batches"])
    assert code_of(*fit(root, tmp_path / "whole", *nested)) in (0, 3)
    stop_after(monkeypatch, 2, scale=4)
    assert code_of(*fit(root, tmp_path / "a", *nested)) == 130
    monkeypatch.undo()
    shards = tmp_path / ".a.work/shards"
    assert {path.name for path in shards.glob("C*")} >= {"C2.npz", "C4.checkpoint.npz"}
    # Another coarse atlas is another start: the checkpoint does not belong to it.
    kept = (shards / "C2.npz").read_bytes()
    with np.load(shards / "C2.npz") as stored:
        np.savez(shards / "C2.npz", **{**stored, "labels": 3 - stored["labels"], "weights": stored["weights"][:, ::-1]})
    code, text = run(capsys, *fit(root, tmp_path / "a", *nested), "--resume")
    assert code == 2
    assert "Traceback" not in text
    (shards / "C2.npz").write_bytes(kept)
    assert code_of(*fit(root, tmp_path / "a", *nested), "--resume") in (0, 3)
    for scale in (2, 4, 5):
        for name in ("labels.nii.gz", "components.npy"):
            here, there = (tmp_path / out / f"C{scale}" / name for out in ("a", "whole"))
            assert here.read_bytes() == there.read_bytes()


def test_a_limit_of_iterations_is_said_and_counts_as_unfinished(root, tmp_path, capsys):
    code, text = run(capsys, *fit(root, tmp_path / "a", "--scales", 4, "--solver", "mu", "--max-iterations", 30))
    assert code == 3
    assert "Not converged: the limit of iterations was reached" in text
    report = json.loads((tmp_path / "a/C4/fit.json").read_text())
    assert report["reason"] == "max_iter"
    assert not report["converged"]
    assert report["loss_at"] == [0, 25, 30]


@pytest.mark.parametrize("refine", ["auto", "mu"])
def test_refined_hard_atlas(root, tmp_path, refine):
    assert code_of(*fit(root, tmp_path / "a", "--scales", 4, "--solver", "em+mu", "--refine", refine)) == 0
    report = check(root, tmp_path / "a")
    assert report["refinement"] == {"auto": "quasi-newton", "mu": "mu"}[refine]
    losses = report["em_relative_loss"], report["refined_relative_loss"]
    assert report["relative_loss"] == pytest.approx(min(losses), rel=1e-9)
    assert (report["kept"] == "em") == (losses[0] <= losses[1])


def test_cuda_without_a_device_is_said(root, tmp_path, capsys):
    code, text = run(capsys, *fit(root, tmp_path / "a", "--scales", 4, "--solver", "mu", "--device", "cuda"))
    assert code == 2
    assert "gpu" in text or "CUDA" in text
    assert not (tmp_path / "a").exists()


BATCHES = ("--scales", 4, "--batch-size", 7, "--start", "seeds", "--patience", 3)


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "a"
    assert code_of(*fit(root, out, *BATCHES)) == 0
    return out


def test_batches_of_images(root, whole):
    report = check(root, whole)
    assert report["solver"] == "mu"
    assert report["reason"] == "early_stop"
    assert report["batch_size"] == 7
    assert report["epochs"] == report["best_epoch"] + 3
    assert report["loss_at"] == [*range(report["epochs"] + 1), report["best_epoch"]]


def stop_after(monkeypatch, epochs, scale=4):
    """Interrupt the fit as the user would, when so many epochs are kept."""
    from brainlocus.pipeline import atlas_solvers

    write = atlas_solvers.write_checkpoint

    def interrupted(state, path, *, digest):
        write(state, path, digest=digest)
        if state.epoch == epochs and state.weights.shape[1] == scale:
            raise KeyboardInterrupt

    monkeypatch.setattr(atlas_solvers, "write_checkpoint", interrupted)


def test_interrupted_batches_go_on_to_the_same_files(root, whole, tmp_path, monkeypatch):
    stop_after(monkeypatch, 2)
    assert code_of(*fit(root, tmp_path / "a", *BATCHES)) == 130
    assert not (tmp_path / "a").exists()
    assert (tmp_path / ".a.work/shards/C4.checkpoint.npz").exists()
    monkeypatch.undo()
    assert code_of(*fit(root, tmp_path / "a", *BATCHES), "--resume") == 0
    for name in ("labels.nii.gz", "components.npy", "loadings.npy", "loss.png"):
        assert (tmp_path / "a/C4" / name).read_bytes() == (whole / "C4" / name).read_bytes()
    here, there = (json.loads((out / "C4/fit.json").read_text()) for out in (tmp_path / "a", whole))
    assert {**here, "run": 0} == {**there, "run": 0}


def test_changed_images_are_refused_and_the_work_is_kept(root, tmp_path, monkeypatch, capsys):
    """By a list, whose own bytes do not change when an image does."""
    paths = sorted((root / "bids").glob("sub-*/anat/*.nii.gz"))
    for path in paths:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "list.txt").write_text("\n".join(path.name for path in paths) + "\n")
    command = (
        "atlas",
        "fit",
        tmp_path / "list.txt",
        "--mask",
        root / "mask.nii.gz",
        "--out",
        tmp_path / "a",
        "--quiet",
    )
    stop_after(monkeypatch, 1)
    assert code_of(*command, *BATCHES) == 130
    monkeypatch.undo()
    kept = (tmp_path / paths[3].name).read_bytes()
    (tmp_path / paths[3].name).write_bytes(paths[4].read_bytes())
    code, text = run(capsys, *command, *BATCHES, "--resume")
    assert code == 2
    assert "list or contents have changed" in text
    assert "Traceback" not in text
    code, text = run(capsys, *command, *BATCHES, "--patience", 4, "--resume")
    assert code == 2
    assert "patience: was 3, now 4" in text
    (tmp_path / paths[3].name).write_bytes(kept)
    assert code_of(*command, *BATCHES, "--resume") == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--batch-size", 4, "--solver", "em"), "--batch-size: expected with --solver mu or em+mu, found"),
        (("--batch-size", 0), "--batch-size: Input should be greater than or equal to 1; found '0'"),
        (("--scales", "24,30", "--solver", "mu", "--hierarchy", "nested"), "--scales: 24 components; a start by"),
        (("--scales", 181, "--start", "coarse"), "--start coarse: 181 components need as many blocks of 2 x 2 x 2"),
        (("--exponent", 0.5), "--exponent: expected with --solver mu and without --active"),
        (("--solver", "mu", "--exponent", 1.5), "--exponent: Input should be less than or equal to 1; found '1.5'"),
        (("--active", 4), "--active: expected with --solver mu or em+mu, found em"),
        (("--solver", "em+mu", "--device", "cuda"), "--device: em+mu and --active run on the processor only"),
        (("--active", 4, "--batch-size", 4, "--epoch-loss", "running"), "--epoch-loss running: with --active or em+mu"),
        (("--solver", "mu", "--compress", "--batch-size", 3), "--compress: expected with --solver mu and without"),
        (("--scales", 24, "--solver", "mu"), "Give --start seeds, or fewer components"),
    ],
)
def test_bad_settings_are_one_message(root, tmp_path, capsys, more, message):
    code, text = run(capsys, *fit(root, tmp_path / "a", "--scales", 4, *more))
    assert code == 2
    assert message in text
    assert "Traceback" not in text
    assert not list(tmp_path.iterdir())
