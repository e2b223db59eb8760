"""Public data by name: looked for under ``BRAINLOCUS_DATA``, else downloaded once to the user's cache.

Every file is checked by its SHA-256, wherever it came from.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainlocus.core.errors import FormatError, SchemaError, import_extra, nearest
from brainlocus.io.digest import digest_input

__all__ = ["DATASETS", "DATA_VARIABLE", "Dataset", "DatasetFile", "fetch_dataset", "resolve_path"]

DATA_VARIABLE = "BRAINLOCUS_DATA"
"""Environment variable that names a folder with local copies."""


@dataclass(frozen=True, slots=True)
class DatasetFile:
    """One file of a dataset."""

    name: str
    sha256: str
    url: str = ""
    """Where it is published; empty when it has no stable public address."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A public dataset: where it is from, and on what terms."""

    name: str
    description: str
    origin: str
    licence: str
    folder: str
    """Below `BRAINLOCUS_DATA`."""
    files: tuple[DatasetFile, ...]


_GEMMA = "https://raw.githubusercontent.com/genetics-statistics/GEMMA/master/example"

DATASETS: dict[str, Dataset] = {
    d.name: d
    for d in (
        Dataset(
            "mouse_hs1940",
            "1,940 heterogeneous-stock mice, 12,226 variants, six traits (sixth and later .fam columns)",
            "Valdar et al. (2006), Nature Genetics 38:879; the example set of GEMMA",
            "GPL-3.0-or-later (GEMMA repository)",
            "genotypes/mouse_hs1940",
            (
                DatasetFile(
                    "mouse_hs1940.bed",
                    "82ae9049806a896b12547fe892a85465949005bca8f7e855fdb2b0ea558936d2",
                    f"{_GEMMA}/mouse_hs1940.bed",
                ),
                DatasetFile(
                    "mouse_hs1940.bim",
                    "86d28fb5bda51b33972366218f5ad834de937ce55e444fb1a682e77e3adc9cf1",
                    f"{_GEMMA}/mouse_hs1940.bim",
                ),
                DatasetFile(
                    "mouse_hs1940.fam",
                    "8b23d60fd5f25a004b3725f6f0c66001b3ddc8a58aca07525b005529b0e1f54c",
                    f"{_GEMMA}/mouse_hs1940.fam",
                ),
            ),
        ),
        Dataset(
            "abide_impac",
            "ABIDE: 1,150 people, 34 sites, 207 FreeSurfer features, age, sex, autism diagnosis",
            "Di Martino et al. (2014), Molecular Psychiatry 19:659; tables of the IMPAC challenge joined on subject_id",
            "CC BY-NC-SA 3.0: tests and benchmarks only",
            "structural/tabular",
            (
                DatasetFile(
                    "abide_impac_freesurfer.csv", "cb3c66e75779fb93359f159d6c092cfbf2c11020ab95d88cb2e7265149e490f5"
                ),
            ),
        ),
    )
}


def _dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise SchemaError(f"There is no dataset {name!r}.{nearest(name, list(DATASETS))} Known: {', '.join(DATASETS)}.")
    return DATASETS[name]


def _local_copy(dataset: Dataset, file: DatasetFile) -> Path | None:
    root = os.environ.get(DATA_VARIABLE, "")
    path = Path(root) / dataset.folder / file.name if root else None
    if path is None or not path.is_file():
        return None
    found = digest_input(path).sha256
    if found != file.sha256:
        raise FormatError(
            f"{path}: expected SHA-256 {file.sha256}, found {found}. The copy is damaged or of another version."
        )
    return path


def fetch_dataset(name: str) -> dict[str, Path]:
    """Return where the files of a dataset are, after downloading what is not there yet.

    Raises
    ------
    SchemaError
        There is no such dataset.
    FormatError
        A file has another checksum, cannot be downloaded, or has no public address and no local copy.
    MissingExtraError
        A download is needed and pooch is not installed.
    """
    dataset = _dataset(name)
    found: dict[str, Path] = {}
    for file in dataset.files:
        found[file.name] = _local_copy(dataset, file) or _download(dataset, file)
    return found


def _download(dataset: Dataset, file: DatasetFile) -> Path:
    if not file.url:
        raise FormatError(
            f"Dataset {dataset.name!r}: {file.name} has no public address ({dataset.origin}). "
            f"Set {DATA_VARIABLE} to a folder that has it under {dataset.folder}."
        )
    pooch: Any = import_extra("pooch", extra="data")
    folder = Path(pooch.os_cache("brainlocus")) / dataset.name
    try:
        # One folder for all, because the files of a set must lie beside each other.
        return Path(pooch.retrieve(file.url, f"sha256:{file.sha256}", fname=file.name, path=folder))
    except (OSError, ValueError) as error:
        raise FormatError(
            f"Dataset {dataset.name!r}: {file.name} could not be fetched from {file.url}: {error}. "
            f"Fetch it by hand and set {DATA_VARIABLE} to a folder that has it under {dataset.folder}."
        ) from error


def resolve_path(text: str, base: Path) -> Path:
    """Return the path a configuration means: ``dataset:NAME/FILE``, absolute, or relative to `base`.

    Raises
    ------
    SchemaError
        There is no such dataset, or it has no such file.
    """
    if not text.startswith("dataset:"):
        return base / text
    name, _, file = text.removeprefix("dataset:").partition("/")
    files = fetch_dataset(name)
    if file not in files:
        raise SchemaError(f"Dataset {name!r} has no file {file!r}.{nearest(file, list(files))}")
    return files[file]
