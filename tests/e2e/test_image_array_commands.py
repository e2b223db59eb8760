"""``atlas fit``, ``atlas reproducibility`` and ``idp extract`` on images in one array: the results of single files."""

import json

import nibabel
import numpy as np
import pytest

from brainlocus.io import find_images, read_mask, read_volume
from brainlocus.pipeline.atlas_checkpoint import images_digest
from tests.e2e.test_atlas_solvers import N, code_of, root, run  # noqa: F401 - a fixture

SOURCES = ("list.txt", "merged.nii", "merged.nii.gz", "rows.npy", "grid.npy", "rows.zarr", "grid.zarr")


@pytest.fixture(scope="module")
def forms(root):  # noqa: F811
    """The images of a folder in every other form, and their ids."""
    zarr = pytest.importorskip("zarr")
    paths = sorted((root / "bids").rglob("*.nii.gz"))
    (root / "list.txt").write_text("".join(f"{path.relative_to(root)}\n" for path in paths))
    data = np.stack([read_volume(path).data for path in paths])
    rows = data[:, read_mask(root / "mask.nii.gz").data]
    for name in ("merged.nii", "merged.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(np.moveaxis(data, 0, -1), np.eye(4)), root / name)
    for name, values, chunks in (("rows", rows, (5, 200)), ("grid", data, (5, 12, 6, 8))):
        np.save(root / f"{name}.npy", values)
        zarr.create_array(root / f"{name}.zarr", data=values, chunks=chunks)
    (root / "ids.tsv").write_text("participant_id\tsite\n" + "".join(f"sub-{k:02d}\t{k % 2}\n" for k in range(N)))
    return root


def ids_of(forms, name):
    return [] if name == "list.txt" else ["--image-ids", forms / "ids.tsv"]


@pytest.fixture(scope="module")
def expected(forms, tmp_path_factory):
    """What comes of the folder."""
    out = tmp_path_factory.mktemp("folder")
    mask = ("--mask", forms / "mask.nii.gz")
    assert code_of("atlas", "fit", forms / "bids", *mask, "--scales", 4, "--out", out / "fit", "--quiet") == 0
    command = ("idp", "extract", forms / "bids", "--atlas", out / "fit", "--out", out / "idps.tsv", "--quiet")
    assert code_of(*command) == 0
    return out


@pytest.mark.parametrize("name", SOURCES)
def test_every_form_gives_the_same_files(forms, expected, tmp_path, name):
    mask, ids = ("--mask", forms / "mask.nii.gz"), ids_of(forms, name)
    command = ("atlas", "fit", forms / name, *mask, *ids, "--scales", 4, "--out", tmp_path / "fit", "--quiet")
    assert code_of(*command) == 0
    for file in ("mask.nii.gz", *(f"C4/{f}" for f in ("labels.nii.gz", "components.npy", "loadings.npy", "atlas.png"))):
        assert (tmp_path / "fit" / file).read_bytes() == (expected / "fit" / file).read_bytes()
    here, there = (json.loads((out / "fit/C4/fit.json").read_text()) for out in (tmp_path, expected))
    assert {**here, "run": 0} == {**there, "run": 0}
    needed = mask if name.endswith((".npy", ".zarr")) else ()
    for threads in (1, 2):
        out = tmp_path / f"idps{threads}.tsv"
        command = ("idp", "extract", forms / name, *needed, *ids, "--atlas", expected / "fit", "--threads", threads)
        assert code_of(*command, "--out", out, "--quiet") == 0
        assert out.read_bytes() == (expected / "idps.tsv").read_bytes()


@pytest.mark.parametrize("name", ["merged.nii.gz", "rows.npy", "grid.zarr"])
def test_halves_are_those_of_the_folder(forms, tmp_path, name):
    common = (
        "--mask", forms / "mask.nii.gz", "--scales", 4, "--participants", forms / "ids.tsv", "--stratify", "site",
        "--no-figures", "--permutations", 2, "--quiet",
    )  # fmt: skip
    for source, more in (("bids", ()), (name, ids_of(forms, name))):
        command = ("atlas", "reproducibility", forms / source, *more, *common, "--out", tmp_path / source)
        assert code_of(*command) == 0
    for file in ("splits.tsv", "components.tsv", "reproducibility.tsv"):
        assert (tmp_path / name / file).read_bytes() == (tmp_path / "bids" / file).read_bytes()


def test_the_default_mask_of_merged_images(forms, tmp_path):
    for name in ("bids", "merged.nii.gz"):
        assert code_of("atlas", "fit", forms / name, "--scales", 4, "--out", tmp_path / name, "--quiet") == 0
    for file in ("mask.nii.gz", "C4/labels.nii.gz"):
        assert (tmp_path / "bids" / file).read_bytes() == (tmp_path / "merged.nii.gz" / file).read_bytes()
    report = json.loads((tmp_path / "merged.nii.gz/C4/fit.json").read_text())
    assert report["participant_ids"][:2] == ["image-00001", "image-00002"]


def test_digests_tell_contents_ids_and_places(forms, tmp_path):
    """What ``--resume`` compares."""
    image = (forms / "merged.nii").read_bytes()
    (tmp_path / "copy.nii").write_bytes(image)
    first = find_images(tmp_path / "copy.nii", arrays=True)
    digest = images_digest(first)
    assert images_digest(find_images(forms / "merged.nii", arrays=True)) == digest
    named = find_images(tmp_path / "copy.nii", image_ids=forms / "ids.tsv", arrays=True)
    other = {
        images_digest(named),
        images_digest(first.take(np.arange(N - 1))),
        images_digest(first.take(np.arange(1, N))),
    }
    (tmp_path / "copy.nii").write_bytes(image[:-4] + b"\0\0\0\1")
    other.add(images_digest(find_images(tmp_path / "copy.nii", arrays=True)))
    assert len(other | {digest}) == 5


@pytest.mark.parametrize(
    ("source", "more", "message"),
    [
        ("rows.npy", (), "does not say where its voxels lie. Give the mask too (--mask)"),
        ("short.npy", ("--mask", "mask.nii.gz"), "expected people x 600 (the voxels of the mask), found the shape"),
        ("complex.npy", ("--mask", "mask.nii.gz"), "expected an array of real numbers, found complex128"),
        ("rows.npy", ("--mask", "mask.nii.gz", "--image-ids", "few.tsv"), "expected a row for each of the 24 images"),
        ("bids", ("--image-ids", "ids.tsv"), "has ids itself"),
        ("one.npy", ("--mask", "mask.nii.gz"), "expected the images of two people or more, found one"),
    ],
)
def test_wrong_things_are_one_message(forms, tmp_path, capsys, monkeypatch, source, more, message):
    rows = np.load(forms / "rows.npy")
    for name, values in (("short", rows[:, 1:]), ("complex", rows.astype(complex)), ("one", rows[:1])):
        np.save(forms / f"{name}.npy", values)
    (forms / "few.tsv").write_text("participant_id\na\n")
    monkeypatch.chdir(forms)
    for command in (("atlas", "fit"), ("atlas", "reproducibility")):
        code, said = run(capsys, *command, source, *more, "--scales", 2, "--out", tmp_path / "out", "--quiet")
        assert code == 2
        assert message in " ".join(said.split())
        assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_masks_of_idp_extract(forms, expected, tmp_path, capsys):
    command = ("idp", "extract", "--atlas", expected / "fit", "--out", tmp_path / "x.tsv", "--quiet")
    code, said = run(capsys, *command, forms / "rows.npy")
    assert code == 2
    assert "Give the mask too" in said
    code, said = run(capsys, *command, forms / "bids", "--mask", forms / "mask.nii.gz")
    assert code == 2
    assert "says itself where its voxels lie; leave the mask out" in said
    # Voxels of a parcel that lie outside the mask of the array have no value there, and are counted.
    whole = read_mask(forms / "mask.nii.gz").data.copy()
    whole[:4] = False
    nibabel.save(nibabel.Nifti1Image(whole.astype(np.uint8), np.eye(4)), tmp_path / "part.nii.gz")
    np.save(tmp_path / "part.npy", np.load(forms / "grid.npy")[:, whole])
    code, said = run(capsys, *command, tmp_path / "part.npy", "--mask", tmp_path / "part.nii.gz")
    assert code == 0, said
    counts = json.loads((tmp_path / "x.tsv.json").read_text())["counts"]
    lost = int(read_mask(forms / "mask.nii.gz").data.sum() - whole.sum())
    assert counts["missing_voxels"] == N * lost > 0
