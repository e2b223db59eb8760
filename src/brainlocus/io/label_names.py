"""Names of the labels of a parcellation, in the forms that atlases come with, and colour tables to go with labels.

========================  ==================================================================
extension                 form
========================  ==================================================================
.tsv .csv .parquet        a header with ``index`` and ``name``, as BIDS ``dseg.tsv``
.json                     ``{"labels": {"1": "name"}}`` or ``{"1": "name"}``
.xml                      FSL: ``<label index="0">name</label>``; of probabilistic atlases index + 1
anything else             a line a label: number, name, and colours before or after the name (FreeSurfer, FSLeyes,
                          ITK-SNAP)
========================  ==================================================================
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from brainlocus.core.errors import FormatError
from brainlocus.core.label_colours import label_colours
from brainlocus.core.volumes import Parcellation
from brainlocus.io.arrow_tables import read_arrow
from brainlocus.io.atomic import atomic_path
from brainlocus.io.text import read_lines

__all__ = ["read_label_table", "write_colour_table"]

_FORMS = tuple(
    re.compile(form)
    for form in (
        r'.*"(?P<name>[^"]+)".*',  # ITK-SNAP: numbers, then the name in quotes
        r"(?P<name>.*?[^\d\s.].*?)(\s+\d{1,3}){4}",  # FreeSurfer: name, red, green, blue, alpha
        r"([\d.]+\s+){3}(?P<name>.*[^\d\s.].*)",  # FSLeyes: red, green, blue, name
        r"(?P<name>.*?[^\d\s.].*?)\s+\d{4,}",  # AAL: name and code
        r"(?P<name>.*[^\d\s.].*)",
    )
)
_TABLES = (".tsv", ".csv", ".parquet", ".tsv.gz", ".csv.gz")


def read_label_table(path: Path) -> dict[int, str]:
    """Return the names of labels from a file of names.

    Raises
    ------
    FormatError
        Not one of the forms above (with the line), a label twice, or no label at all.
    """
    if not path.is_file():
        raise FormatError(f"{path}: expected a file of label names, found nothing. Check the path.")
    if path.name.endswith(_TABLES):
        pairs = _from_table(path)
    elif path.suffix == ".json":
        pairs = _from_json(path)
    elif path.suffix == ".xml":
        pairs = _from_xml(path)
    else:
        pairs = _from_lines(path)
    names: dict[int, str] = {}
    for label, name in pairs:
        if label in names:
            raise FormatError(f"{path}: label {label} has two names, {names[label]!r} and {name!r}; keep one.")
        names[label] = name
    if not names:
        raise FormatError(f"{path}: expected names of labels, found none.")
    return names


def write_colour_table(parcellation: Parcellation, path: Path) -> None:
    """Write names and colours as FreeSurfer does: label, name, red, green, blue and 0, from 0 to 255.

    The colours are those of the figures. White space in names becomes a hyphen.
    """
    labels = np.array(sorted(parcellation.names), dtype=np.int64)
    names = [re.sub(r"\s+", "-", parcellation.names[k]) for k in labels.tolist()]
    width = max((len(name) for name in names), default=0)
    lines = [f"    0 {'Unknown'.ljust(width)}   0   0   0   0"]
    lines += [
        f"{label:5d} {name.ljust(width)} {red:3d} {green:3d} {blue:3d}   0"
        for label, name, (red, green, blue) in zip(labels, names, label_colours(labels).tolist(), strict=True)
    ]
    with atomic_path(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _from_table(path: Path) -> Iterable[tuple[int, str]]:
    table = read_arrow(path)
    for needed in ("index", "name"):
        if needed not in table.column_names:
            raise FormatError(f"{path}: expected the columns index and name of a dseg.tsv, found {table.column_names}.")
    indices, called = table.column("index").to_pylist(), table.column("name").to_pylist()
    for line, (index, name) in enumerate(zip(indices, called, strict=True), 2):
        yield _label(index, path, f"line {line}"), str(name)


def _from_json(path: Path) -> Iterable[tuple[int, str]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found = found.get("labels", found)
        pairs = list(found.items())
    except (ValueError, AttributeError) as error:
        raise FormatError(f'{path}: expected {{"labels": {{"1": "name", ...}}}}, found {error}.') from error
    return [(_label(label, path, "its keys"), str(name)) for label, name in pairs]


def _from_xml(path: Path) -> Iterable[tuple[int, str]]:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise FormatError(f"{path}: expected an atlas of FSL (XML), found {error}.") from error
    # Maximum-probability images number regions from 1, the volumes behind them (and the index) from 0.
    shift = 1 if (root.findtext("header/type") or "").strip().lower().startswith("prob") else 0
    found = [(node.get("index"), (node.text or "").strip()) for node in root.iter("label")]
    return [(_label(index, path, "a label's index") + shift, name) for index, name in found]


def _from_lines(path: Path) -> Iterable[tuple[int, str]]:
    for number, line in enumerate(read_lines(path, what="a table of labels"), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield _label(line.split()[0], path, f"line {number}"), _name(line, path, number)


def _name(line: str, path: Path, number: int) -> str:
    rest = line.strip().split(None, 1)[1:]
    for form in _FORMS:
        found = form.fullmatch(rest[0]) if rest else None
        if found:
            return found["name"].strip()
    raise FormatError(f"{path}: expected a label, its name and perhaps colours in line {number}, found {line!r}.")


def _label(value: object, path: Path, where: str) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise FormatError(f"{path}: expected a label number in {where}, found {value!r}.") from None
