"""What writers of genotype files share: blocks in, whole files with their companions out, or nothing."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, TypeVar

import numpy as np
from jaxtyping import Float32, Int8

from brainlocus.core.errors import AlignmentError, FormatError
from brainlocus.core.samples import SampleIndex
from brainlocus.core.variants import VariantTable
from brainlocus.io.atomic import partial_name
from brainlocus.io.plinktext import check_plain_ids

__all__ = ["BlockWriter"]

Writer = TypeVar("Writer", bound="BlockWriter")


class BlockWriter(ABC):
    """Writes genotypes block by block; the files get their names when all variants have come.

    Parameters
    ----------
    prefix
        The files' common path without extension.
    sex
        1 male, 2 female, 0 unknown; None: unknown throughout.
    """

    suffix: ClassVar[str]
    """Extension of the file of the genotypes themselves."""

    def __init__(
        self,
        prefix: Path,
        samples: SampleIndex,
        variants: VariantTable,
        sex: Int8[np.ndarray, " samples"] | None = None,
    ) -> None:
        self.prefix, self.samples, self.variants, self.sex = prefix, samples, variants, sex
        self.path = prefix.with_name(prefix.name + self.suffix)
        self._written = 0
        self._is_open = False

    @abstractmethod
    def _open(self, partial: Path) -> None:
        """Start writing to a temporary name."""

    @abstractmethod
    def _write(self, dosage: Float32[np.ndarray, "variants samples"]) -> None:
        """Write the next variants, whose number, people and range have been checked."""

    @abstractmethod
    def _close(self, *, whole: bool) -> None:
        """End writing; not `whole` when variants are missing and the file will be removed."""

    @abstractmethod
    def _companions(self) -> Mapping[str, Iterable[str]]:
        """Return the lines of each companion by its extension."""

    def _further(self) -> Sequence[Path]:
        """Return the files that `_close` wrote to their temporary names, besides the genotypes."""
        return ()

    def __enter__(self: Writer) -> Writer:
        check_plain_ids(self.samples)
        self.prefix.parent.mkdir(parents=True, exist_ok=True)
        self._open(partial_name(self.path))
        self._is_open = True
        return self

    def append(self, dosage: Float32[np.ndarray, "variants samples"]) -> None:
        """Write the next variants.

        Raises
        ------
        AlignmentError
            Other people or more variants than announced.
        FormatError
            A dosage outside [0, 2], or one that the format cannot hold.
        """
        if not self._is_open:
            raise ValueError(f"{type(self).__name__} is a context manager: use it in a with statement.")
        self._check(dosage)
        self._write(dosage)
        self._written += dosage.shape[0]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        partial = partial_name(self.path)
        whole = kind is None and self._written == len(self.variants)
        self._close(whole=whole)
        if not whole:
            partial.unlink(missing_ok=True)
            if kind is None:
                raise AlignmentError(
                    f"{self.path}: expected {len(self.variants)} variants, {self._written} were written."
                )
            return
        companions = {self.path.with_suffix(suffix): lines for suffix, lines in self._companions().items()}
        for path, lines in companions.items():
            with partial_name(path).open("w", encoding="utf-8") as stream:
                stream.writelines(lines)
        for path in (*companions, *self._further()):
            partial_name(path).replace(path)
        partial.replace(self.path)

    def _check(self, dosage: Float32[np.ndarray, "variants samples"]) -> None:
        if dosage.shape[1] != len(self.samples) or self._written + dosage.shape[0] > len(self.variants):
            raise AlignmentError(
                f"A block of {dosage.shape} (variants, people) does not fit: {len(self.samples)} people and "
                f"{len(self.variants) - self._written} more variants were expected."
            )
        outside = ~(np.isnan(dosage) | ((dosage >= 0) & (dosage <= 2)))
        if outside.any():
            row, column = np.argwhere(outside)[0]
            name = self.variants.variant_id[self._written + row]
            raise FormatError(f"Variant {name!r}: dosages lie in [0, 2], found {float(dosage[row, column])}.")
