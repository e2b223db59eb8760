"""One array of all images: the same matrix whatever it is stored in, and what is refused."""

import gzip
import shutil
import tracemalloc
import zipfile

import nibabel
import numpy as np
import pytest

from brainlocus.core import AlignmentError, FormatError, Mask, MissingExtraError, ResourceError, SchemaError, Volume
from brainlocus.io import (
    convert_images,
    default_mask,
    digest_input,
    find_images,
    image_arrays,
    image_batches,
    images_grid,
    iter_images,
    write_volume,
)
from brainlocus.io.images import convert_images_peak_bytes, images_peak_bytes

zarr = pytest.importorskip("zarr")

AFFINE = np.diag([4.0, 4, 4, 1])
SHAPE = (5, 6, 7)
N = 11


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).uniform(0.1, 1, (N, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def mask():
    inside = np.random.default_rng(1).uniform(size=SHAPE) > 0.4
    return Mask(inside, AFFINE)


def save_zarr(path, values, chunks, version=3):
    array = zarr.create_array(path, shape=values.shape, dtype=values.dtype, chunks=chunks, zarr_format=version)
    array[...] = values
    return path


def zipped(folder):
    path = folder.with_name(folder.name + ".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as out:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            out.write(file, file.relative_to(folder).as_posix())
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory, data, mask):
    """The same images in every form."""
    root = tmp_path_factory.mktemp("arrays")
    inside = data[:, mask.data]
    for k, image in enumerate(data):
        write_volume(Volume(image, AFFINE, ""), root / f"bids/sub-{k:02d}/anat/sub-{k:02d}_label-GM_probseg.nii.gz")
    for name in ("merged.nii", "merged.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(np.moveaxis(data, 0, -1), AFFINE), root / name)
    np.save(root / "rows.npy", inside)
    np.save(root / "wide.npy", inside.astype(np.float64))
    np.save(root / "grid.npy", data)
    np.save(root / "columns.npy", np.asfortranarray(inside))
    save_zarr(root / "rows.zarr", inside, (4, 50))
    save_zarr(root / "grid.zarr", data, (3, 2, 6, 4))
    zipped(save_zarr(root / "old.zarr", inside, (N, 30), version=2))
    return root


ARRAYS = (
    "merged.nii", "merged.nii.gz", "rows.npy", "wide.npy", "grid.npy", "columns.npy", "rows.zarr", "grid.zarr",
    "old.zarr", "old.zarr.zip",
)  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_the_matrix_is_that_of_single_files(sources, mask, tmp_path, name):
    alone = convert_images(find_images(sources / "bids"), mask, out=tmp_path / "alone.npy").open()
    images = find_images(sources / name, arrays=True)
    assert images.samples.ids.tolist() == [f"image-{k:05d}" for k in range(1, N + 1)]
    pieces, each = images_peak_bytes(images, 0), images_peak_bytes(images, 1)
    for at_once in (1, 2, N):
        n_voxels = int(mask.data.sum())
        memory = convert_images_peak_bytes(n_voxels, mask.data.size, at_once) + pieces + at_once * (each - pieces)
        matrix = convert_images(images, mask, out=tmp_path / f"{at_once}.npy", memory_bytes=memory)
        np.testing.assert_array_equal(matrix.open(), alone)
        assert matrix.samples == images.samples
    with pytest.raises(ResourceError, match="raise --memory"):
        convert_images(images, mask, out=tmp_path / "no.npy", memory_bytes=16 * mask.data.size + pieces)


@pytest.mark.parametrize("name", ARRAYS)
def test_some_images_in_another_order(sources, mask, data, name):
    images = find_images(sources / name, arrays=True).take(np.array([7, 2, 3, 10, 9]))
    assert images.samples.ids.tolist() == [f"image-{k:05d}" for k in (8, 3, 4, 11, 10)]
    for at_once in (1, 3, 20):
        found = [volume.data[mask.data] for volume in iter_images(images, mask, at_once=at_once)]
        np.testing.assert_array_equal(found, data[[7, 2, 3, 10, 9]][:, mask.data])


def test_voxels_outside_an_array_of_voxels_are_missing(sources, mask):
    volume = next(iter_images(find_images(sources / "rows.npy", arrays=True), mask))
    np.testing.assert_array_equal(np.isnan(volume.data), ~mask.data)
    assert volume.grid.shape == mask.grid.shape


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.003, 0.0), (0.01, 0.25), (np.nan, np.nan)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_scaled_integers_are_those_of_single_files(tmp_path, dtype, slope, intercept):
    stored = np.random.default_rng(0).integers(1, 250, (*SHAPE, 3)).astype(dtype)

    def save(values, name):
        image = nibabel.Nifti1Image(values, AFFINE, dtype=dtype)
        image.header["scl_slope"], image.header["scl_inter"] = slope, intercept
        path = tmp_path / name
        nibabel.save(image, path)
        raw = bytearray(path.read_bytes())
        raw[112:120] = np.array([slope, intercept], dtype=np.float32).tobytes()
        raw[352:] = values.tobytes(order="F")
        path.write_bytes(raw)
        return path

    merged = find_images(save(stored, "merged.nii"), arrays=True)
    for k, volume in enumerate(iter_images(merged)):
        alone = next(iter_images(find_images(save(stored[..., k], f"{k}.nii"))))
        np.testing.assert_array_equal(volume.data, alone.data)


def test_a_compressed_file_is_read_forward_and_once(sources, mask, tmp_path, monkeypatch):
    positions = []
    read = gzip.GzipFile.read

    def noted(self, size=-1):
        positions.append(self.tell())
        return read(self, size)

    images = find_images(sources / "merged.nii.gz", arrays=True)
    with monkeypatch.context() as patch:
        patch.setattr(gzip.GzipFile, "rewind", lambda self: pytest.fail("read again from its start"))
        patch.setattr(gzip.GzipFile, "read", noted)
        for _ in iter_images(images):
            pass
    voxels = [p for p in positions if p >= 352]
    assert len(voxels) >= N
    assert voxels == sorted(voxels)
    assert [len(batch) for batch in image_batches(images, 4)] == [N]
    assert [len(b) for b in image_batches(find_images(sources / "merged.nii", arrays=True), 4)] == [4, 4, 3]


def test_default_mask_and_grid(sources, data):
    for name in ("bids", "merged.nii", "merged.nii.gz"):
        images = find_images(sources / name, arrays=True)
        np.testing.assert_array_equal(images_grid(images).affine, AFFINE)
        assert default_mask(images).data.all()
    for name in ("rows.npy", "grid.npy", "grid.zarr"):
        with pytest.raises(SchemaError, match=r"does not say where its voxels lie. Give the mask too \(--mask\)"):
            default_mask(find_images(sources / name, arrays=True))


def test_ids_come_from_a_table(sources, tmp_path):
    names = [f"{k:03d}" for k in range(N)]
    table = tmp_path / "people.tsv"
    table.write_text("age\tparticipant_id\n" + "".join(f"50\t{name}\n" for name in names))
    images = find_images(sources / "rows.npy", image_ids=table, arrays=True)
    assert images.samples.ids.tolist() == names
    assert images.name(2) == f"{sources / 'rows.npy'}: image 3 (002)"
    table.write_text("participant_id\n" + "".join(f"{name}\n" for name in names[1:]))
    with pytest.raises(SchemaError, match=f"expected a row for each of the {N} images .* found {N - 1}"):
        find_images(sources / "rows.npy", image_ids=table, arrays=True)
    table.write_text("participant_id\n" + "a\n" * N)
    with pytest.raises(SchemaError, match=r"people.tsv: Participant ids must be unique.*'a'"):
        find_images(sources / "rows.npy", image_ids=table, arrays=True)
    table.write_text("id\n" + "a\n" * N)
    with pytest.raises(SchemaError, match="participant_id"):
        find_images(sources / "rows.npy", image_ids=table, arrays=True)
    with pytest.raises(SchemaError, match="has ids itself"):
        find_images(sources / "bids", image_ids=table, arrays=True)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: d.__setitem__((2, 2, 3), -0.5), FormatError, r"1 voxels in the mask are negative"),
        (lambda d: d.__setitem__((2, 2, 3), np.nan), FormatError, r"1 of 210 voxels in the mask are NaN"),
        (lambda d: d.__imul__(0), FormatError, "every voxel in the mask is 0"),
    ],
)
@pytest.mark.parametrize("name", ["x.nii.gz", "x.npy", "rows.npy", "x.zarr"])
def test_a_bad_image_is_named_by_file_number_and_id(data, tmp_path, name, change, error, message):
    whole, values = Mask(np.ones(SHAPE, dtype=bool), AFFINE), data.copy()
    change(values[3])
    path = tmp_path / name
    if name == "x.nii.gz":
        nibabel.save(nibabel.Nifti1Image(np.moveaxis(values, 0, -1), AFFINE), path)
    elif name == "x.zarr":
        save_zarr(path, values, (2, 5, 6, 7))
    else:
        np.save(path, values.reshape(N, -1) if name == "rows.npy" else values)
    with pytest.raises(error, match=message) as found:
        convert_images(find_images(path, arrays=True), whole, out=tmp_path / "out.npy")
    assert f"{path}: image 4 (image-00004): " in str(found.value)
    assert not (tmp_path / "out.npy").exists()


def test_another_grid_is_named(sources, tmp_path):
    images = find_images(sources / "merged.nii.gz", arrays=True)
    with pytest.raises(AlignmentError, match=r"merged.nii.gz: image 1 \(image-00001\).*another affine"):
        convert_images(images, Mask(np.ones(SHAPE, bool), 2 * AFFINE), out=tmp_path / "x.npy")


def test_numbers_beyond_float32_are_reported(tmp_path):
    np.save(tmp_path / "x.npy", np.full((3, 8), 1e300))
    with pytest.raises(FormatError, match=r"image 1 .* 8 of 8 voxels in the mask are NaN or infinite"):
        convert_images(
            find_images(tmp_path / "x.npy", arrays=True), Mask(np.ones((2, 2, 2), bool), AFFINE), out=tmp_path / "y.npy"
        )


WRONG = [
    (np.ones((3, 8), complex), "expected an array of real numbers, found complex128"),
    (np.ones((3, 8), bool), "expected an array of real numbers, found bool"),
    (np.array([["a", "b"]] * 3), "expected an array of real numbers, found <U1"),
    (np.ones(8), r"found the shape \(8,\)"),
    (np.ones((3, 2, 2)), r"found the shape \(3, 2, 2\)"),
    (np.ones((3, 2, 2, 2, 1)), r"found the shape \(3, 2, 2, 2, 1\)"),
    (np.ones(()), r"found the shape \(\)"),
    (np.ones((0, 8)), "the array is empty"),
    (np.ones((3, 0)), "the array is empty"),
    (np.ones((1, 8)), "two people or more, found one"),
]


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        *(("npy", *case) for case in WRONG),
        # zarr writes neither text nor empty arrays.
        *(("zarr", *case) for case in WRONG if case[0].size and case[0].dtype.kind != "U"),
    ],
)
def test_wrong_arrays(tmp_path, kind, values, message):
    path = tmp_path / f"x.{kind}"
    if kind == "npy":
        np.save(path, values)
    else:
        save_zarr(path, values, values.shape)
    with pytest.raises(FormatError, match=message) as error:
        find_images(path, arrays=True)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 9), r"expected people x 8 \(the voxels of the mask\), found the shape \(3, 9\)\.$"),
        ((8, 3), r"expected people x 8 .* found the shape \(8, 3\)\. People come first: turn the array\.$"),
        ((3, 2, 2, 3), r"expected people x 2 x 2 x 2 \(the mask's grid\), found the shape \(3, 2, 2, 3\)\.$"),
        ((2, 2, 2, 3), r"expected people x 2 x 2 x 2 .* People come first"),
    ],
)
def test_an_array_and_a_mask_that_do_not_fit(tmp_path, shape, message):
    np.save(tmp_path / "x.npy", np.ones(shape))
    images, mask = find_images(tmp_path / "x.npy", arrays=True), Mask(np.ones((2, 2, 2), bool), AFFINE)
    for use in (lambda: images_grid(images, mask), lambda: convert_images(images, mask, out=tmp_path / "y.npy")):
        with pytest.raises(AlignmentError, match=message):
            use()


def test_files_that_are_no_arrays(tmp_path, sources):
    def refused(path, message, error=FormatError):
        with pytest.raises(error, match=message):
            find_images(path, arrays=True)

    (tmp_path / "text.npy").write_text("not an array")
    refused(tmp_path / "text.npy", "expected an array of numbers in a .npy file")
    np.save(tmp_path / "objects.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    refused(tmp_path / "objects.npy", "cannot read it")
    whole = (sources / "rows.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(whole[:-100])
    refused(tmp_path / "short.npy", "cannot read it")
    np.savez(tmp_path / "several.npz", a=np.ones(3))
    refused(tmp_path / "several.npz", "found several in a .npz file")
    refused(tmp_path / "absent.npy", "there is no such file")
    (tmp_path / "empty.zarr").mkdir()
    refused(tmp_path / "empty.zarr", "expected a zarr array, cannot read one")
    (tmp_path / "text.zip").write_text("not an archive")
    refused(tmp_path / "text.zip", "expected a zarr array, cannot read one")
    group = zarr.create_group(tmp_path / "group.zarr")
    group.create_array("maps", shape=(3, 8), dtype="f4")
    refused(tmp_path / "group.zarr", r"found a group of arrays \(maps\)")
    assert len(find_images(tmp_path / "group.zarr" / "maps", arrays=True)) == 3
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 2, 2, 1, 3), np.float32), AFFINE), tmp_path / "five.nii")
    refused(tmp_path / "five.nii", r"expected i x j x k x people, found the shape \(2, 2, 2, 1, 3\)")


def test_a_damaged_array_is_named(sources, mask, tmp_path):
    shutil.copytree(sources / "rows.zarr", tmp_path / "rows.zarr")
    chunk = max((p for p in (tmp_path / "rows.zarr").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    chunk.write_bytes(b"nonsense")
    with pytest.raises(FormatError, match=r"rows.zarr: images \d+ to \d+ cannot be read"):
        convert_images(find_images(tmp_path / "rows.zarr", arrays=True), mask, out=tmp_path / "x.npy")
    (tmp_path / "short.nii.gz").write_bytes((sources / "merged.nii.gz").read_bytes()[:-2000])
    with pytest.raises(FormatError, match="truncated or damaged"):
        convert_images(find_images(tmp_path / "short.nii.gz", arrays=True), mask, out=tmp_path / "x.npy")


def test_where_files_are_wanted_an_array_is_refused(sources):
    for name in ("rows.npy", "rows.zarr", "merged.nii", "merged.nii.gz"):
        with pytest.raises(FormatError, match="expected one file an image, found one array of all"):
            find_images(sources / name)


def test_zarr_is_an_extra(sources, monkeypatch):
    def absent(module, *, extra):
        raise MissingExtraError(f"pip install 'brainlocus[{extra}]'")

    monkeypatch.setattr(image_arrays, "import_extra", absent)
    with pytest.raises(MissingExtraError, match=r"brainlocus\[zarr\]"):
        find_images(sources / "rows.zarr", arrays=True)
    assert len(find_images(sources / "rows.npy", arrays=True)) == N


@pytest.mark.parametrize(
    "name", ["m.nii", "m.nii.gz", "scaled.nii.gz", "rows.npy", "columns.npy", "grid.npy", "x.zarr", "old.zarr"]
)
def test_peak_memory_stays_within_the_declared_bound(tmp_path, name):
    """All images together are 48 MB; two at a time are allowed."""
    shape, people = (60, 70, 60), 48
    values = np.random.default_rng(0).integers(1, 255, (people, *shape), dtype=np.uint8)
    path, flat = tmp_path / name, values.reshape(people, -1)
    if ".nii" in name:
        image = nibabel.Nifti1Image(np.moveaxis(values, 0, -1), AFFINE)
        image.header.set_slope_inter(*((0.01, 0.5) if "scaled" in name else (1, 0)))
        nibabel.save(image, path)
    elif name == "grid.npy":
        np.save(path, values.astype(np.float32))
    elif name.endswith(".npy"):
        np.save(path, np.asfortranarray(flat) if name == "columns.npy" else flat.astype(np.float64))
    else:
        save_zarr(path, flat, (16, 40_000) if name == "x.zarr" else (people, 20_000), version=2 if "old" in name else 3)
    mask = Mask(np.ones(shape, dtype=bool), AFFINE)
    images = find_images(path, arrays=True)
    pieces = images_peak_bytes(images, 0)
    declared = convert_images_peak_bytes(mask.data.size, mask.data.size, 2) + images_peak_bytes(images, 2)
    assert declared < 8 * 4 * mask.data.size + pieces
    convert_images(images.take(np.arange(2)), mask, out=tmp_path / "warm.npy")
    tracemalloc.start()
    convert_images(images, mask, out=tmp_path / "out.npy", memory_bytes=declared)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= declared


def test_the_digest_of_an_old_zarr_array_has_its_hidden_header(sources, tmp_path):
    shutil.copytree(sources / "old.zarr", tmp_path / "x.zarr")
    before = digest_input(tmp_path / "x.zarr").sha256
    assert before == digest_input(sources / "old.zarr").sha256
    header = tmp_path / "x.zarr" / ".zarray"
    header.write_text(header.read_text().replace('"fill_value": 0', '"fill_value": 1'))
    assert digest_input(tmp_path / "x.zarr").sha256 != before
