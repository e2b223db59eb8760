"""GCTA's GRM files."""

import numpy as np
import pytest

from brainlocus.core import FormatError, Grm, SampleIndex
from brainlocus.io import grm_files, read_grm, write_grm


def test_round_trip_and_layout(tmp_path):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(5, 5))
    grm = Grm(SampleIndex.of("abcde"), matrix + matrix.T, 100.0)
    files = write_grm(grm, tmp_path / "g")
    assert [f.name for f in files] == ["g.grm.bin", "g.grm.N.bin", "g.grm.id"] == [f.name for f in grm_files(files[0])]
    raw = np.fromfile(files[0], dtype="<f4")
    np.testing.assert_allclose(raw[:3], [grm.matrix[0, 0], grm.matrix[1, 0], grm.matrix[1, 1]], rtol=1e-6)
    for name in (tmp_path / "g", files[0]):
        again = read_grm(name)
        assert again.samples == grm.samples
        np.testing.assert_allclose(again.matrix, grm.matrix, rtol=1e-6)
        assert again.n_variants == 100.0
    counts = np.full((5, 5), 90.0) + np.eye(5)
    assert read_grm(write_grm(Grm(grm.samples, grm.matrix, counts), tmp_path / "h")[0]).n_variants[0, 0] == 91.0


def test_bad_files_are_named(tmp_path):
    grm = Grm(SampleIndex.of("abc"), np.eye(3), 1.0)
    matrix, _, ids = write_grm(grm, tmp_path / "g")
    matrix.write_bytes(matrix.read_bytes()[:-4])
    with pytest.raises(FormatError, match="expected 24 bytes for 3 people, found 20"):
        read_grm(matrix)
    ids.write_text("a a\nb\n")
    with pytest.raises(FormatError, match="line 2: expected family and individual id, found 1"):
        read_grm(matrix)
    ids.unlink()
    with pytest.raises(FormatError, match=r"Expected a GRM file at .*g\.grm\.id"):
        read_grm(matrix)
