"""Oxford ``.sample`` files: the people of a BGEN file.

Two header lines - names, then types (0 for the ids and missing, D, B, C or P for the rest) - and one line a person.

References
----------
QCTOOL documentation, sample file formats.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int8

from brainlocus.core.errors import AlignmentError, FormatError
from brainlocus.core.phenotypes import PhenotypeTable
from brainlocus.core.samples import SampleIndex
from brainlocus.io.plinktext import Pedigree, pedigree_of, read_fields

__all__ = ["format_sample", "pedigree_of_ids", "read_oxford_sample"]


def read_oxford_sample(path: Path, embedded: list[str] | None) -> Pedigree:
    """Return the people of a .sample file.

    The participant id is ID_2 (the only id column where there is one).

    Parameters
    ----------
    embedded
        The ids in the BGEN file itself: they must be ID_1 or ID_2 of every person, in the same order, and are then
        the participant ids; ID_1_ID_2 (as PLINK writes families) agrees too.

    Raises
    ------
    FormatError
        No two header lines, a line of another length, a participant who occurs twice (with the line).
    AlignmentError
        Other people than in the BGEN file (with the first that differs).
    """
    rows = read_fields(path, smallest=1, what="the columns of the header")
    if len(rows) < 2 or rows[1][1][0] != "0":
        raise FormatError(
            f"{path}: expected two header lines (names such as 'ID_1 ID_2 missing sex', then types such as '0 0 0 D'), "
            "found another beginning."
        )
    names, people = rows[0][1], rows[2:]
    types = rows[1][1]
    at = {name.lower(): k for k, name in enumerate(names)}
    candidates = [k for k in (at.get("id_2"), 0) if k is not None]
    chosen = candidates[0]
    if embedded is not None:
        chosen = _agreeing(path, [fields for _, fields in people], candidates, embedded)
    sex = [f[at["sex"]] if "sex" in at else "0" for _, f in people]
    parents = [tuple(f[at[name]] if name in at else "0" for name in ("father", "mother")) for _, f in people]
    numeric = {
        name: [(line, f[k]) for line, f in people]
        for k, name in enumerate(names)
        if types[k] in ("C", "P", "B") and name.lower() != "sex"
    }
    ids = [(line, f[chosen]) for line, f in people]
    return pedigree_of(path, ids=ids, sex=sex, parents=[(p[0], p[1]) for p in parents], phenotypes=numeric)


def _agreeing(path: Path, people: list[list[str]], candidates: list[int], embedded: list[str]) -> int:
    if len(people) != len(embedded):
        raise AlignmentError(
            f"{path}: expected the {len(embedded)} people of the BGEN file, found {len(people)}. The .sample file "
            "belongs to another."
        )
    for k in candidates:
        if [fields[k] for fields in people] == embedded:
            return k
    k = candidates[0]
    if k and [f"{fields[0]}_{fields[k]}" for fields in people] == embedded:
        return k
    row = next(i for i, fields in enumerate(people) if fields[k] != embedded[i])
    raise AlignmentError(
        f"{path}: person {row + 1} is {people[row][k]!r}, in the BGEN file it is {embedded[row]!r}. The ids in the "
        ".sample file and those in the BGEN file must agree, in the same order."
    )


def pedigree_of_ids(ids: list[str]) -> Pedigree:
    """Return people of whom only the ids are known."""
    samples = SampleIndex.of(ids)
    unknown = np.array(["0"] * len(ids), dtype=np.str_)
    return Pedigree(samples, np.zeros(len(ids), dtype=np.int8), unknown, unknown, PhenotypeTable(samples, ()))


def format_sample(samples: SampleIndex, sex: Int8[np.ndarray, " samples"] | None) -> Iterator[str]:
    """Yield the lines of a .sample file."""
    yield "ID_1 ID_2 missing sex\n"
    yield "0 0 0 D\n"
    for k, participant in enumerate(samples.ids.tolist()):
        code = 0 if sex is None else int(sex[k])
        yield f"{participant} {participant} 0 {code or 'NA'}\n"
