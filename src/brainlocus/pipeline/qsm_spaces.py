"""Ways between a scan, its T1-weighted image and a standard space, from the transforms that registration programs left.

Files are found by their BIDS names, ``*_from-<moved>_to-<fixed>_mode-image_xfm.*``, among ``.mat .txt .tfm .h5 .nii
.nii.gz``. What resampling needs is a chain from points of the grid that is filled to points of the image that is read
(`core.transforms`), which is what the file of the images' direction holds: maps of the scan on a standard grid need
``from-MEGRE_to-MNI152``, or ``from-T1w_to-MNI152`` and then ``from-MEGRE_to-T1w``. An affine transform of the other
direction is inverted; a displacement field is not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from brainlocus.core import FormatError, Grid, Parcellation, Transform, inverted
from brainlocus.images.idp import region_labels
from brainlocus.io import read_grid, read_label_names, read_parcellation, read_transform
from brainlocus.io.nifti import is_nifti

__all__ = ["Leg", "Route", "StandardSpace", "find_route", "read_atlas", "read_leg", "read_route"]

Place = Literal["scan", "T1w", "standard"]
Chain = tuple[Transform, ...]

_ENDINGS = (".mat", ".txt", ".tfm", ".h5", ".nii.gz", ".nii")
_EXPECTED = "(mat|txt|h5|nii.gz)"


@dataclass(frozen=True, slots=True)
class StandardSpace:
    """A standard space and what is asked of it; the same for every scan of a run."""

    name: str
    """As in file names, such as ``MNI152NLin6Asym``."""
    grid: Path | None
    """Image whose grid the maps are resampled to; None: no maps are wanted there."""
    atlas: Path | None
    """Label image in the space, brought to the scans; None: none."""

    @property
    def reference(self) -> Path | None:
        """The image that lies in the space."""
        return self.grid or self.atlas


@dataclass(frozen=True, slots=True)
class Leg:
    """One file of a route."""

    path: Path | None
    """None: the T1-weighted image is registered to the scan."""
    moved: Place
    fixed: Place
    """The images of the file: it maps points of the fixed to points of the moved one."""
    invert: bool

    @property
    def described(self) -> str:
        """Name, and whether it is used in the other direction."""
        name = "registration of the T1w image" if self.path is None else self.path.name
        return f"{name} (inverse)" if self.invert else name

    @property
    def is_field_inverse(self) -> bool:
        """Whether the inverse of a displacement field would be needed."""
        return self.invert and self.path is not None and is_nifti(self.path)


@dataclass(frozen=True, slots=True)
class Route:
    """Transforms from one place's points to another's, the first applied first."""

    legs: tuple[Leg, ...]
    missing: str = ""
    """Why there is none."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files it reads."""
        return tuple(leg.path for leg in self.legs if leg.path is not None)

    @property
    def described(self) -> list[str]:
        """Names of the transforms in the order of their use."""
        return [leg.described for leg in self.legs]


def find_route(
    folder: Path,
    stem: tuple[str, str | None],
    names: Mapping[Place, Sequence[str]],
    *,
    target: Place,
    source: Place,
    can_register: bool = False,
) -> Route:
    """Return the route from points of the target (whose grid is filled) to points of the source (which is read).

    Direct files come before a way through the T1-weighted image, and ways that can be gone before those that need the
    inverse of a field.

    Parameters
    ----------
    folder
        A derivatives dataset.
    stem
        Participant and session, as in the folder's names.
    names
        What each place may be called in names of files.
    can_register
        Where a transform between T1-weighted image and scan is missing, the two can be registered.
    """
    places = _folders(folder, stem)

    def between(a: Place, b: Place) -> Iterator[Leg]:
        """Yield the legs from points of `a` to points of `b`, best first."""
        for path in _files(places, names[b], names[a]):
            yield Leg(path, moved=b, fixed=a, invert=False)
        for path in _files(places, names[a], names[b]):
            yield Leg(path, moved=a, fixed=b, invert=True)
        if can_register and "standard" not in (a, b):
            yield Leg(None, moved="T1w", fixed="scan", invert=a == "T1w")

    ways = [(leg,) for leg in between(target, source)]
    if "T1w" not in (target, source):
        ways += [(first, then) for first in between(target, "T1w") for then in between("T1w", source)]
    if ways:
        # Sorting keeps the order of equals.
        return Route(min(ways, key=lambda way: sum(leg.is_field_inverse for leg in way)))
    return Route((), _missing(places, stem, names, target, source))


def read_route(
    route: Route, grids: Mapping[Place, Grid | None], register: Callable[[], Chain] | None = None
) -> tuple[Transform, ...]:
    """Return the chain of a route.

    Parameters
    ----------
    grids
        Of the images, for FSL's files, which do not say them.
    register
        Gives the chain from points of the scan to points of the T1-weighted image.

    Raises
    ------
    FormatError
        There is no route, a file cannot be read, or the inverse of a displacement field is needed.
    """
    if not route.legs:
        raise FormatError(route.missing)
    chain: list[Transform] = []
    for leg in route.legs:
        if leg.path is None:
            if register is None:
                raise FormatError("The T1-weighted image is to be registered, but there is none.")
            # Rigid, so that either direction is there.
            chain += _inverse(register()) if leg.invert else register()
        else:
            chain += read_leg(leg.path, source=grids.get(leg.moved), reference=grids.get(leg.fixed), invert=leg.invert)
    return tuple(chain)


def read_leg(path: Path, *, source: Grid | None, reference: Grid | None, invert: bool = False) -> Chain:
    """Return the chain of one file, with the grids of its images where its format needs them.

    Raises
    ------
    FormatError
        As `brainlocus.io.read_transform`; the inverse of a displacement field is needed; FSL's file without an image.
    """
    if is_nifti(path):
        if invert:
            raise _no_inverse(path)
        reference = read_grid(path)  # a warp lies on its reference
    elif path.suffix == ".txt":
        source = reference = None  # ITK's, or a plain matrix between worlds
    try:
        return read_transform(path, source=source, reference=reference, invert=invert)
    except FormatError as error:
        if invert and "cannot be inverted" in str(error):
            raise _no_inverse(path) from error
        if "depend on both images" in str(error):
            raise FormatError(
                f"{error} Expected the T1-weighted image (*_T1w.nii.gz) in --segmentations or beside the scan, or a "
                "segmentation on its grid."
            ) from error
        raise


def read_atlas(path: Path) -> Parcellation:
    """Return an atlas's labels with their names (JSON, ``dseg.tsv`` beside it).

    Raises
    ------
    FormatError
        Not a label image, or none of its labels is a known structure.
    """
    found = read_parcellation(path)
    if not found.names:
        found = Parcellation(found.labels, found.affine, read_label_names(path))
    try:
        region_labels(found)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None
    return found


def _inverse(chain: Chain) -> Chain:
    return tuple(inverted(transform) for transform in reversed(chain))


def _no_inverse(path: Path) -> FormatError:
    name = path.name
    start, _, rest = name.partition("_from-")
    moved, _, rest = rest.partition("_to-")
    fixed = rest.partition("_")[0]
    return FormatError(
        f"{path}: its inverse is needed, and a displacement field is not inverted here. Expected "
        f"{start}_from-{fixed}_to-{moved}_mode-image_xfm.{_EXPECTED} beside it (ANTs writes *InverseWarp.nii.gz; FSL: "
        "invwarp)."
    )


def _folders(folder: Path, stem: tuple[str, str | None]) -> list[Path]:
    participant, session = stem
    inner = [folder / participant / session / "anat"] if session else []
    return [*inner, folder / participant / "anat"]


def _files(places: Sequence[Path], moved: Sequence[str], fixed: Sequence[str]) -> Iterator[Path]:
    """Yield the transforms between images of these names, the nearest and plainest names first."""
    seen = set()
    for place in places:
        for a in moved:
            for b in fixed:
                found = [p for p in place.glob(f"*_from-{a}_to-{b}_*xfm.*") if p.name.endswith(_ENDINGS)]
                # FNIRT's coefficients cannot be used as they are, and are only named where there is nothing else.
                for path in sorted(found, key=lambda p: ("coefficients" in p.name, len(p.name), p.name)):
                    if path not in seen:
                        seen.add(path)
                        yield path


def _missing(
    places: Sequence[Path],
    stem: tuple[str, str | None],
    names: Mapping[Place, Sequence[str]],
    target: Place,
    source: Place,
) -> str:
    first, last = names[source][0], names[target][0]
    through = "" if "T1w" in (source, target) else f", or from-{first}_to-T1w and from-T1w_to-{last}"
    text = (
        f"No transform from {first} to {last}: expected *_from-{first}_to-{last}_mode-image_xfm.{_EXPECTED}{through}, "
        f"of {' '.join(part for part in stem if part)} in --transforms"
    )
    known = {name for several in names.values() for name in several}
    seen = {
        part.partition("_")[0]
        for place in places
        for path in place.glob("*_xfm.*")
        for part in (path.name.partition("_to-")[2], path.name.partition("_from-")[2])
        if part
    }
    others = sorted(seen - known)
    return text + (f"; found transforms of {', '.join(others)} (--standard-name)." if others else ".")
