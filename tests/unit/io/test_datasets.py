"""Datasets by name and checksum."""

from pathlib import Path

import pytest

from brainlocus.core import FormatError, SchemaError
from brainlocus.io import datasets
from brainlocus.io.datasets import Dataset, DatasetFile, fetch_dataset, resolve_path
from brainlocus.io.digest import digest_input


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "toy").mkdir()
    path = tmp_path / "toy" / "a.txt"
    path.write_text("hello")
    file = DatasetFile("a.txt", digest_input(path).sha256)
    monkeypatch.setitem(datasets.DATASETS, "toy", Dataset("toy", "", "nowhere", "CC0", "toy", (file,)))
    monkeypatch.setenv(datasets.DATA_VARIABLE, str(tmp_path))
    return path


def test_local_copy_is_used(toy):
    assert fetch_dataset("toy") == {"a.txt": toy}
    assert resolve_path("dataset:toy/a.txt", Path("/")) == toy
    assert resolve_path("x/y.tsv", Path("/base")) == Path("/base/x/y.tsv")


def test_damaged_copy_is_refused(toy):
    toy.write_text("hellp")
    with pytest.raises(FormatError, match="expected SHA-256"):
        fetch_dataset("toy")


def test_unknown_names(toy):
    with pytest.raises(SchemaError, match="Did you mean 'mouse_hs1940'"):
        fetch_dataset("mouse_hs1949")
    with pytest.raises(SchemaError, match=r"no file 'b\.txt'"):
        resolve_path("dataset:toy/b.txt", Path("/"))


def test_no_copy_and_no_address(toy):
    toy.unlink()
    with pytest.raises(FormatError, match="has no public address"):
        fetch_dataset("toy")
