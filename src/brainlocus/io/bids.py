"""BIDS folders: gradient-echo series of every subject, and masks and segmentations beside them.

Data flow::

    folder --find_gradient_echoes--> GradientEchoList      (names only: no image or sidecar is opened)
    GradientEchoFiles --read_sidecar--> metadata           (JSON with the inheritance of BIDS)

Finding never fails for one subject: what is wrong with its files is written down in `GradientEchoFiles.problems` and
raised when that series is loaded (`brainlocus.io.gradient_echo`), so that a cohort goes on without it.

Accepted names, in ``sub-*/[ses-*/]{anat,swi}/``, for the suffixes of `SUFFIXES`::

    sub-01_echo-1_part-mag_MEGRE.nii.gz      one file an echo and part (BIDS 1.9)
    sub-01_part-phase_MEGRE.nii.gz           one file with echoes as the 4th axis, or a single echo
    sub-01_part-phase_MEGRE.nii.gz           5-D: echoes as the 4th axis, receive coils as the 5th
    sub-01_echo-1_part-phase_coil-07_MEGRE.nii.gz   one file a coil (a proposal to BIDS)

References
----------
Gorgolewski et al. (2016), Sci Data 3:160044; BIDS specification 1.10, "The inheritance principle", "Common data types:
anatomical imaging data", "Imaging derivatives: segmentations".
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainlocus.core.errors import FormatError, SchemaError, nearest
from brainlocus.io.text import read_lines

__all__ = [
    "EchoFiles",
    "GradientEchoFiles",
    "GradientEchoList",
    "find_derivative",
    "find_gradient_echoes",
    "read_label_names",
    "read_sidecar",
]

SUFFIXES = ("MEGRE", "GRE", "T2starw", "swi")
"""In order of preference. The first is BIDS' own; the others are how such series are named in the wild."""

DATATYPES = ("anat", "swi")

_OWN = ("echo", "part", "coil")
"""Entities that tell the files of one series apart."""


@dataclass(frozen=True, slots=True)
class EchoFiles:
    """Magnitude and phase of one echo (or of all, when the images are 4-D) and of one coil (or all)."""

    echo: int | None
    """Number in the name; None where the name has none."""
    coil: int | None
    """Receive coil in the name; None for combined or 5-D images."""
    magnitude: Path | None
    phase: Path | None
    magnitude_sidecars: tuple[Path, ...] = ()
    """JSON files that apply, the most general first: later ones override."""
    phase_sidecars: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class GradientEchoFiles:
    """Files of one gradient-echo series. Small and picklable: workers open the images themselves."""

    participant_id: str
    """With its prefix, as in ``participants.tsv``: ``sub-01``."""
    session_id: str | None
    """``ses-2``, or None where the subject has no sessions."""
    entities: tuple[tuple[str, str], ...]
    """Further entities that all files of the series share, in the order of the name: ``(("acq", "hires"),)``."""
    suffix: str
    echoes: tuple[EchoFiles, ...]
    """Ordered by echo, then coil."""
    problems: tuple[str, ...] = ()
    """What is wrong with the files themselves; loading raises it."""

    @property
    def run(self) -> str | None:
        """The ``run`` entity."""
        return dict(self.entities).get("run")

    @property
    def acquisition(self) -> str | None:
        """The ``acq`` entity."""
        return dict(self.entities).get("acq")

    @property
    def stem(self) -> str:
        """Name that outputs of this series start with: ``sub-01_ses-2_acq-hires_run-1``."""
        parts = [self.participant_id, *([self.session_id] if self.session_id else [])]
        return "_".join([*parts, *(f"{key}-{value}" for key, value in self.entities)])

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file of the series, images and sidecars, once and in order: for a digest of the input."""
        found: dict[Path, None] = {}
        for echo in self.echoes:
            images = [path for path in (echo.magnitude, echo.phase) if path is not None]
            found |= dict.fromkeys([*images, *echo.magnitude_sidecars, *echo.phase_sidecars])
        return tuple(found)

    @property
    def n_coils(self) -> int:
        """Coils that have a file of their own; 0 when files hold the combined image or all coils."""
        return len({echo.coil for echo in self.echoes} - {None})


@dataclass(frozen=True, slots=True)
class GradientEchoList:
    """Series of a dataset, ordered by participant, session and name."""

    series: tuple[GradientEchoFiles, ...]
    without: tuple[str, ...] = ()
    """Participants (of those asked for) that have no gradient-echo series at all."""

    def __len__(self) -> int:
        return len(self.series)

    def __iter__(self) -> Iterator[GradientEchoFiles]:
        return iter(self.series)


@dataclass(frozen=True, slots=True)
class _Name:
    """A BIDS file name, taken apart."""

    path: Path
    entities: Mapping[str, str]
    suffix: str


@dataclass(slots=True)
class _Sidecars:
    """JSON files below a dataset's root, each folder listed once."""

    root: Path
    listed: dict[Path, list[_Name]] = field(default_factory=dict)

    def of(self, image: _Name) -> tuple[Path, ...]:
        """Return the sidecars that apply to an image, the most general first."""
        below = image.path.parent.relative_to(self.root).parts
        folders = [self.root.joinpath(*below[:depth]) for depth in range(len(below) + 1)]
        found: list[Path] = []
        for folder in folders:
            fits = [name for name in self._list(folder) if _applies(name, image)]
            found += [name.path for name in sorted(fits, key=lambda n: (len(n.entities), n.path.name))]
        return tuple(found)

    def _list(self, folder: Path) -> list[_Name]:
        if folder not in self.listed:
            names = [_parse(path, (".json",)) for path in sorted(folder.glob("*.json"))]
            self.listed[folder] = [name for name in names if name is not None]
        return self.listed[folder]


def find_gradient_echoes(
    folder: Path, *, participant_labels: Sequence[str] = (), session_labels: Sequence[str] = ()
) -> GradientEchoList:
    """Return the gradient-echo series of a BIDS dataset.

    Series that have a phase image, or are named ``MEGRE``, are listed; ``T2starw``, ``GRE`` and ``swi`` images without
    phase are taken for ordinary weighted images, unless a session has nothing else.

    Parameters
    ----------
    folder
        The dataset: has ``sub-*`` folders.
    participant_labels, session_labels
        Take these only, with or without the prefix (``01`` or ``sub-01``); empty takes all.

    Raises
    ------
    FormatError
        `folder` is no folder or has no ``sub-*`` in it.
    SchemaError
        A participant or session asked for is not there; the nearest name is shown.
    """
    subjects = _select(folder, "sub", participant_labels)
    if not subjects:
        raise FormatError(f"{folder}: expected a BIDS dataset with folders sub-*, found none. Check the path.")
    sidecars = _Sidecars(folder)
    sessions = {f"ses-{_label(label, 'ses')}" for label in session_labels}
    seen: set[str] = set()
    series: list[GradientEchoFiles] = []
    without: list[str] = []
    for subject in subjects:
        parts = [path for path in sorted(subject.glob("ses-*")) if path.is_dir()]
        seen |= {path.name for path in parts}
        chosen = [path for path in parts if not sessions or path.name in sessions]
        places = [*([] if sessions else [subject]), *chosen]
        found = [files for place in places for files in _find_in(place, sidecars)]
        series += found
        if not found:
            without.append(subject.name)
    absent = sorted(sessions - seen)
    if absent:
        raise SchemaError(
            f"{folder}: there is no session {absent[0]!r}; found {sorted(seen) or 'none'}."
            f"{nearest(absent[0], sorted(seen))}"
        )
    return GradientEchoList(tuple(series), tuple(without))


def read_sidecar(paths: Iterable[Path]) -> dict[str, Any]:
    """Return the metadata of JSON files, later ones overriding keys of earlier ones.

    Raises
    ------
    FormatError
        A file is not a JSON object (named).
    """
    merged: dict[str, Any] = {}
    for path in paths:
        text = "\n".join(read_lines(path, what="a JSON sidecar"))
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path}: expected a JSON sidecar, but it cannot be read: {error}.") from error
        if not isinstance(content, dict):
            raise FormatError(f"{path}: expected a JSON object {{...}}, found {type(content).__name__}.")
        merged |= content
    return merged


def find_derivative(
    folder: Path,
    participant_id: str,
    session_id: str | None,
    *,
    suffix: str,
    entities: Mapping[str, str] | None = None,
    datatype: str = "anat",
) -> Path | None:
    """Return the image of a subject in a derivatives dataset, or None where there is none.

    Parameters
    ----------
    folder
        A derivatives dataset, or a raw one: anything with ``sub-*/[ses-*/]anat``.
    session_id
        None for subjects without sessions. Where the session has no such image, the subject's folder without session
        is looked in too (masks and segmentations in T1 space are often made once a subject).
    suffix
        ``mask``, ``dseg``, ``T1w`` ...
    entities
        Entities that the name must have: ``{"desc": "brain"}`` finds ``sub-01_desc-brain_mask.nii.gz``. Among several
        that fit, the one with the fewest further entities is returned.

    Raises
    ------
    FormatError
        Two images fit equally well (both named).

    Examples
    --------
    >>> find_derivative(Path("derivatives/masks"), "sub-01", None, suffix="mask", entities={"desc": "brain"})
    """
    wanted = {"sub": participant_id.removeprefix("sub-"), **(entities or {})}
    subject = folder / participant_id
    places = [subject / session_id / datatype] if session_id else []
    for place in [*places, subject / datatype]:
        names = [name for name in _images(place) if name.suffix == suffix]
        in_session = place.parent != subject
        fits = [
            name
            for name in names
            if all(name.entities.get(key) == value for key, value in wanted.items())
            and (not in_session or name.entities.get("ses") == str(session_id).removeprefix("ses-"))
        ]
        fits.sort(key=lambda name: len(name.entities))
        if len(fits) > 1 and len(fits[0].entities) == len(fits[1].entities):
            raise FormatError(
                f"{place}: expected one {suffix} image with {wanted}, found {fits[0].path.name} and "
                f"{fits[1].path.name}. Ask for the entity that tells them apart, or move one away."
            )
        if fits:
            return fits[0].path
    return None


def read_label_names(image: Path) -> dict[int, str]:
    """Return the names of a segmentation's labels from its BIDS table, or an empty dictionary where there is none.

    Looked for beside `image` with the same name and ``.tsv``, then as ``dseg.tsv`` or ``*_dseg.tsv`` whose entities
    all occur in the image's name, from its folder up to the dataset's root. Columns ``index`` and ``name``.

    Raises
    ------
    FormatError
        The table lacks a column, an index is not an integer, or an index occurs twice.
    """
    for path in _label_tables(image):
        return _read_label_table(path)
    return {}


def _label_tables(image: Path) -> Iterator[Path]:
    name = _parse(image, (".nii", ".nii.gz"))
    own = image.with_name(image.name.removesuffix(".gz").removesuffix(".nii") + ".tsv")
    if own.is_file():
        yield own
    if name is None:
        return
    for folder in image.parents:
        tables = [_parse(path, (".tsv",)) for path in sorted(folder.glob("*dseg.tsv"))]
        fits = [table for table in tables if table is not None and _applies(table, name) and table.path != own]
        yield from [table.path for table in sorted(fits, key=lambda t: -len(t.entities))]
        if (folder / "dataset_description.json").is_file():
            return


def _read_label_table(path: Path) -> dict[int, str]:
    rows = [line.split("\t") for line in read_lines(path, what="a table of labels") if line.strip()]
    header = [column.strip() for column in rows[0]] if rows else []
    if not {"index", "name"} <= set(header):
        raise FormatError(f"{path}: expected columns index and name, found {header}.")
    at_index, at_name = header.index("index"), header.index("name")
    names: dict[int, str] = {}
    for line, row in enumerate(rows[1:], start=2):
        try:
            label, name = int(row[at_index]), row[at_name].strip()
        except (ValueError, IndexError):
            raise FormatError(f"{path}, line {line}: expected an integer index and a name, found {row}.") from None
        if label in names:
            raise FormatError(f"{path}, line {line}: label {label} occurs twice. Keep one line a label.")
        names[label] = name
    return names


def _select(folder: Path, prefix: str, labels: Sequence[str]) -> list[Path]:
    """Return the subject folders asked for, all when none is, in order."""
    if not folder.is_dir():
        raise FormatError(f"{folder}: expected a BIDS folder, found {'a file' if folder.exists() else 'nothing'}.")
    present = [path for path in sorted(folder.glob(f"{prefix}-*")) if path.is_dir()]
    if not labels:
        return present
    wanted = {f"{prefix}-{_label(label, prefix)}" for label in labels}
    absent = sorted(wanted - {path.name for path in present})
    if absent:
        known = [path.name for path in present]
        raise SchemaError(
            f"{folder}: {len(absent)} of {len(wanted)} participants asked for are not there, the first is "
            f"{absent[0]!r}.{nearest(absent[0], known)}"
        )
    return [path for path in present if path.name in wanted]


def _label(label: str, prefix: str) -> str:
    return label.removeprefix(f"{prefix}-")


def _parse(path: Path, extensions: tuple[str, ...]) -> _Name | None:
    """Return a name's entities and suffix; None for a name that is not made of them."""
    ends = [extension for extension in extensions if path.name.endswith(extension)]
    if not ends or path.name.startswith("."):
        return None
    *pairs, suffix = path.name.removesuffix(max(ends, key=len)).split("_")
    entities: dict[str, str] = {}
    for pair in pairs:
        key, dash, value = pair.partition("-")
        if not dash or not key or not value or key in entities:
            return None
        entities[key] = value
    return _Name(path, entities, suffix)


def _applies(general: _Name, image: _Name) -> bool:
    """Return whether a sidecar or table applies to an image: its entities are among the image's (inheritance)."""
    mine = image.entities
    return general.suffix == image.suffix and all(_same(k, v, mine.get(k)) for k, v in general.entities.items())


def _same(key: str, value: str, other: str | None) -> bool:
    """Return whether entity values agree; numbers do whatever their leading zeros."""
    if key in ("echo", "coil", "run") and other is not None and value.isdecimal() and other.isdecimal():
        return int(value) == int(other)
    return value == other


def _images(folder: Path) -> list[_Name]:
    if not folder.is_dir():
        return []
    names = [_parse(path, (".nii", ".nii.gz")) for path in sorted(folder.iterdir()) if ".nii" in path.name]
    return [name for name in names if name is not None]


def _find_in(place: Path, sidecars: _Sidecars) -> list[GradientEchoFiles]:
    """Return the series of one subject or session folder."""
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[_Name]] = defaultdict(list)
    for datatype in DATATYPES:
        for name in _images(place / datatype):
            if name.suffix in SUFFIXES and "sub" in name.entities:
                shared = tuple((k, v) for k, v in name.entities.items() if k not in _OWN)
                groups[name.suffix, shared].append(name)
    series = [_group(suffix, shared, names, sidecars) for (suffix, shared), names in groups.items()]
    has_phase = [any(echo.phase for echo in files.echoes) or bool(files.problems) for files in series]
    listed = [files for files, phase in zip(series, has_phase, strict=True) if phase or files.suffix == "MEGRE"]
    return sorted(listed or series, key=lambda files: (SUFFIXES.index(files.suffix), files.stem))


def _group(
    suffix: str, shared: tuple[tuple[str, str], ...], names: list[_Name], sidecars: _Sidecars
) -> GradientEchoFiles:
    """Return the series that images of the same name, but for echo, part and coil, make up."""
    by_key: dict[tuple[int | None, int | None], dict[str, _Name]] = defaultdict(dict)
    problems: list[str] = []
    # An image without part beside part-mag is something computed from it (an SWI): the named one counts.
    for name in sorted(names, key=lambda n: "part" not in n.entities):
        subject = next((part for part in reversed(name.path.parts[:-1]) if part.startswith("sub-")), "")
        if subject != f"sub-{name.entities['sub']}":
            problems.append(f"{name.path}: a file of sub-{name.entities['sub']} lies in the folder of {subject}.")
        part = name.entities.get("part", "mag")
        if part not in ("mag", "phase"):
            problems.append(
                f"{name.path}: expected part-mag or part-phase, found part-{part}. Make magnitude and phase of the "
                "real and imaginary parts first."
            )
            continue
        echo, coil = _number(name, "echo", problems), _number(name, "coil", problems)
        earlier = by_key[echo, coil].setdefault(part, name)
        if earlier is not name and "part" in name.entities:
            problems.append(f"{earlier.path} and {name.path.name} are the same image twice. Move one away.")
    echoes = [
        _echo_files(echo, coil, parts, sidecars)
        for (echo, coil), parts in sorted(by_key.items(), key=lambda item: [-1 if k is None else k for k in item[0]])
    ]
    if len({echo.echo is None for echo in echoes}) > 1 or len({echo.coil is None for echo in echoes}) > 1:
        where = names[0].path.parent
        problems.append(
            f"{where}: some images of {_stem(shared, suffix)} have an echo or coil in their name, some not."
        )
    entities = dict(shared)
    session = entities.pop("ses", None)
    participant = entities.pop("sub")
    return GradientEchoFiles(
        f"sub-{participant}",
        None if session is None else f"ses-{session}",
        tuple(entities.items()),
        suffix,
        tuple(echoes),
        tuple(problems),
    )


def _stem(shared: tuple[tuple[str, str], ...], suffix: str) -> str:
    return "_".join([*(f"{key}-{value}" for key, value in shared), suffix])


def _number(name: _Name, key: str, problems: list[str]) -> int | None:
    value = name.entities.get(key)
    if value is None or re.fullmatch(r"[0-9]+", value):
        return None if value is None else int(value)
    problems.append(f"{name.path}: expected a number after {key}-, found {value!r}. Rename the file.")
    return None


def _echo_files(echo: int | None, coil: int | None, parts: Mapping[str, _Name], sidecars: _Sidecars) -> EchoFiles:
    magnitude, phase = parts.get("mag"), parts.get("phase")
    return EchoFiles(
        echo,
        coil,
        None if magnitude is None else magnitude.path,
        None if phase is None else phase.path,
        () if magnitude is None else sidecars.of(magnitude),
        () if phase is None else sidecars.of(phase),
    )
