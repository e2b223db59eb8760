"""GRM files of GCTA: .grm.bin, .grm.N.bin, .grm.id.

The lower triangle with its diagonal, row by row, as little-endian float32.

References
----------
Yang et al. (2011), Am. J. Hum. Genet. 88:76 (10.1016/j.ajhg.2010.11.011).
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from brainlocus.core.errors import FormatError
from brainlocus.core.grm import Grm
from brainlocus.core.samples import SampleIndex
from brainlocus.io.atomic import atomic_path
from brainlocus.io.plinktext import check_plain_ids
from brainlocus.io.text import read_lines

__all__ = ["grm_files", "read_grm", "write_grm"]

_FLOAT = np.dtype("<f4")


def grm_files(prefix: Path) -> list[Path]:
    """Return the three files of a GRM; `prefix` may be the prefix or the .grm.bin file."""
    name = prefix.name.removesuffix(".bin").removesuffix(".grm")
    return [prefix.with_name(f"{name}.grm{suffix}") for suffix in (".bin", ".N.bin", ".id")]


def read_grm(prefix: Path) -> Grm:
    """Return a GRM in GCTA's format; people are known by their individual id, the second column.

    Raises
    ------
    FormatError
        A file is missing (.grm.N.bin may be) or has another size than the number of people asks for.
    """
    matrix_file, count_file, id_file = grm_files(prefix)
    for file in (matrix_file, id_file):
        if not file.is_file():
            raise FormatError(f"Expected a GRM file at {file}, found none. A GRM is .grm.bin, .grm.N.bin and .grm.id.")
    ids: list[str] = []
    for number, line in enumerate(read_lines(id_file, what="the people of a GRM"), start=1):
        fields = line.split()
        if len(fields) != 2:
            raise FormatError(
                f"{id_file}, line {number}: expected family and individual id, found {len(fields)} fields."
            )
        ids.append(fields[1])
    counts: Float[np.ndarray, "samples samples"] | float = float("nan")
    if count_file.is_file():
        counts = _triangle(count_file, len(ids))
        if counts.size and (counts == counts.flat[0]).all():
            counts = float(counts.flat[0])
    return Grm(SampleIndex.of(ids), _triangle(matrix_file, len(ids)), counts)


def write_grm(grm: Grm, prefix: Path) -> list[Path]:
    """Write a GRM as float32 and return its files."""
    check_plain_ids(grm.samples)
    files = grm_files(prefix)
    for file, values in zip(files[:2], (grm.matrix, grm.n_variants), strict=True):
        with atomic_path(file) as partial, partial.open("wb") as stream:
            for row in range(len(grm.samples)):
                line = np.full(row + 1, values) if isinstance(values, float) else values[row, : row + 1]
                stream.write(line.astype(_FLOAT).tobytes())
    with atomic_path(files[2]) as partial:
        partial.write_text("".join(f"{i}\t{i}\n" for i in grm.samples.ids.tolist()), encoding="utf-8")
    return files


def _triangle(file: Path, n_samples: int) -> Float[np.ndarray, "samples samples"]:
    n_pairs = n_samples * (n_samples + 1) // 2
    found = file.stat().st_size
    if found != n_pairs * _FLOAT.itemsize:
        raise FormatError(
            f"{file}: expected {n_pairs * _FLOAT.itemsize} bytes for {n_samples} people, found {found}. "
            "The file is truncated or the .grm.id belongs to another."
        )
    matrix = np.zeros((n_samples, n_samples))
    with file.open("rb") as stream:
        for row in range(n_samples):
            line = np.fromfile(stream, dtype=_FLOAT, count=row + 1)
            matrix[row, : row + 1] = line
            matrix[: row + 1, row] = line
    return matrix
