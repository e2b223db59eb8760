"""Pages of memory maps that are given back: nothing is lost, and they no longer count."""

from pathlib import Path

import numpy as np
import pytest

from brainlocus.numerics.memory_maps import give_back_pages


def resident_file_pages() -> int:
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("this system has no /proc/self/status")
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("RssFile"))


@pytest.mark.parametrize("mode", ["w+", "r+", "r"])
def test_what_was_written_stays_and_no_longer_counts(tmp_path, mode):
    path = tmp_path / "a.npy"
    values = np.random.default_rng(0).random((2_000, 2_000))
    if mode != "w+":
        np.save(path, values)
    array = np.lib.format.open_memmap(path, mode=mode, dtype=np.float64, shape=values.shape)
    if mode == "w+":
        array[:] = values
    array.sum()
    before = resident_file_pages()
    give_back_pages(array[5:].T)  # a view belongs to the same map
    assert before - resident_file_pages() > 0.9 * values.nbytes / 1024
    np.testing.assert_array_equal(array, values)
    array.flush() if mode != "r" else None
    np.testing.assert_array_equal(np.load(path), values)


def test_copy_on_write_maps_keep_what_was_written(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(10_000))
    array = np.load(path, mmap_mode="c")
    array[:] = 7
    give_back_pages(array)
    assert (array == 7).all()
