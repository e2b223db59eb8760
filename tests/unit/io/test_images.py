"""Lists of images and their conversion to a matrix."""

import numpy as np
import pytest

from brainlocus.core import AlignmentError, FormatError, Mask, ResourceError, SchemaError, Volume
from brainlocus.io import convert_images, default_mask, find_images, write_volume
from brainlocus.io.images import convert_images_peak_bytes

AFFINE = np.diag([4.0, 4, 4, 1])
SHAPE = (5, 6, 7)


def write(root, participant, data, affine=AFFINE):
    path = root / participant / "anat" / f"{participant}_space-MNI152_label-GM_probseg.nii.gz"
    write_volume(Volume(data.astype(np.float32), affine, "grey_matter"), path)
    return path


@pytest.fixture
def cohort(tmp_path):
    rng = np.random.default_rng(0)
    data = [rng.uniform(0.1, 1, SHAPE).astype(np.float32) for _ in range(5)]
    for k, image in enumerate(data):
        write(tmp_path / "bids", f"sub-{k:02d}", image)
    return tmp_path / "bids", data


@pytest.fixture
def mask():
    inside = np.zeros(SHAPE, dtype=bool)
    inside[1:4, 1:5, 2:6] = True
    return Mask(inside, AFFINE)


def test_matrix_is_voxel_major_and_memory_does_not_matter(cohort, mask, tmp_path):
    root, data = cohort
    images = find_images(root)
    assert images.samples.ids.tolist() == [f"sub-{k:02d}" for k in range(5)]
    expected = np.stack([image[mask.data] for image in data], axis=1)
    overhead = 16 * mask.data.size
    for at_once in (1, 2, 5):
        out = tmp_path / f"x{at_once}.npy"
        budget = overhead + 4 * int(mask.data.sum()) * at_once
        matrix = convert_images(images, mask, out=out, memory_bytes=budget)
        np.testing.assert_array_equal(matrix.open(), expected)
        assert matrix.n_clipped == 0
    with pytest.raises(ResourceError, match="raise --memory"):
        convert_images(images, mask, out=tmp_path / "no.npy", memory_bytes=overhead)
    assert not (tmp_path / "no.npy").exists()


def test_lists_of_three_kinds_agree(cohort):
    root, _ = cohort
    folder = find_images(root)
    (root / "list.txt").write_text("\n".join(str(p.relative_to(root)) for p in folder.paths) + "\n")
    rows = "".join(f"{i}\t{p.relative_to(root)}\n" for i, p in zip(folder.samples.ids, folder.paths, strict=True))
    (root / "list.tsv").write_text("participant_id\tpath\n" + rows)
    for name in ("list.txt", "list.tsv"):
        found = find_images(root / name)
        assert found.samples == folder.samples
        assert [p.resolve() for p in found.paths] == [p.resolve() for p in folder.paths]


def test_bad_lists(cohort):
    root, _ = cohort
    with pytest.raises(FormatError, match="no image matches"):
        find_images(root, pattern="*.mgz")
    with pytest.raises(FormatError, match="no such file or folder"):
        find_images(root / "absent")
    (root / "gone.txt").write_text("sub-77_gm.nii.gz\n")
    with pytest.raises(FormatError, match=r"1 of 1 images do not exist.*sub-77"):
        find_images(root / "gone.txt")
    (root / "bad.tsv").write_text("participant_id\tfile\nsub-00\tx.nii\n")
    with pytest.raises(SchemaError, match="column 'path' is missing"):
        find_images(root / "bad.tsv")
    twice = find_images(root).paths[0].relative_to(root)
    (root / "twice.txt").write_text(f"{twice}\n{twice}\n")
    with pytest.raises(SchemaError, match="one image a participant"):
        find_images(root / "twice.txt")
    (root / "empty.txt").write_text("\n")
    with pytest.raises(FormatError, match="the list is empty"):
        find_images(root / "empty.txt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.__setitem__((2, 2, 3), -0.5), r"1 voxels in the mask are negative \(smallest -0.5\)"),
        (lambda d: d.__setitem__((2, 2, slice(3, 5)), np.nan), r"2 of 48 voxels in the mask are NaN or infinite"),
        (lambda d: d.__setitem__((2, 2, 3), np.inf), "1 of 48 voxels in the mask are NaN or infinite"),
        (lambda d: d.__imul__(0), "every voxel in the mask is 0"),
    ],
)
def test_bad_images_are_named(cohort, mask, tmp_path, change, message):
    root, data = cohort
    change(data[3])
    path = write(root, "sub-03", data[3])
    with pytest.raises(FormatError, match=message) as error:
        convert_images(find_images(root), mask, out=tmp_path / "x.npy")
    assert str(path) in str(error.value)
    assert not list(tmp_path.glob("*.npy"))


def test_other_grids_are_named(cohort, mask, tmp_path):
    root, data = cohort
    path = write(root, "sub-04", data[4], AFFINE + 0.01 * np.eye(4))
    with pytest.raises(AlignmentError, match="another affine") as error:
        convert_images(find_images(root), mask, out=tmp_path / "x.npy")
    assert str(path) in str(error.value)


def test_tiny_negatives_are_clipped_and_bad_voxels_outside_the_mask_do_not_matter(cohort, mask, tmp_path):
    root, data = cohort
    data[0][2, 2, 3], data[0][0, 0, 0] = -1e-7, np.nan
    write(root, "sub-00", data[0])
    matrix = convert_images(find_images(root), mask, out=tmp_path / "x.npy")
    assert matrix.n_clipped == 1
    assert matrix.open().min() == 0


def test_default_mask(cohort):
    root, data = cohort
    for k, image in enumerate(data):
        image[0] = 0
        image[1] *= 0.01
        write(root, f"sub-{k:02d}", image)
    mask = default_mask(find_images(root))
    assert not mask.data[:2].any()
    assert mask.data[2:].all()


def test_peak_memory_stays_within_the_declared_bound(tmp_path):
    """tracemalloc sees the buffers; the matrix itself is a memory map."""
    import tracemalloc

    shape, people = (60, 70, 60), 6
    for k in range(people):
        data = np.random.default_rng(k).uniform(size=shape).astype(np.float32)
        write(tmp_path / "big", f"sub-{k}", data)
    mask = Mask(np.ones(shape, dtype=bool), AFFINE)
    images = find_images(tmp_path / "big")
    declared = convert_images_peak_bytes(mask.data.size, mask.data.size, 2)
    convert_images(images, mask, out=tmp_path / "warm.npy")
    tracemalloc.start()
    convert_images(images, mask, out=tmp_path / "x.npy", memory_bytes=declared)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= declared
