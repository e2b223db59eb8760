"""What a regression method gives to the scan, and what it gets: the seam between `scan` and its methods.

Data flow::

    traits, covariates --prepare_<method>--> a ScanDesign                        (once per set of people)
    ScanDesign + CallBlock --ScanDesign.scan_block--> BlockResult + histograms   (once per block)
"""

from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Int8, Shaped

from brainlocus.core.genotypes import PackedBlock

__all__ = ["BlockResult", "CallBlock", "Missing", "OfDesign", "ScanDesign", "ScanSettings", "Tallies", "TraitDesign"]

Missing = Literal["auto", "mean", "exact"]


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """What is kept and how missing calls are treated."""

    hits: float = 1e-5
    """Largest p-value kept in the hits; 1 keeps every test."""
    min_mac: float = 20.0
    missing: Missing = "auto"
    full: bool = False
    """Keep every test."""
    device: str = "cpu"
    """Where matrix products are computed: ``cpu`` or ``cuda``."""

    def __post_init__(self) -> None:
        if not 0.0 < self.hits <= 1.0:
            raise ValueError(f"hits is a p-value in (0, 1], found {self.hits}.")
        if self.min_mac < 0.0:
            raise ValueError(f"min_mac is a count >= 0, found {self.min_mac}.")
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device is cpu or cuda, found {self.device!r}.")


@dataclass(frozen=True, slots=True, eq=False)
class CallBlock:
    """Consecutive variants counted in their rarer allele: small numbers keep float32 sums accurate."""

    start: int
    """Row of the first variant in the scanned source."""
    counts: Float[np.ndarray, "variants samples"]
    """Copies of the rarer allele; a missing call holds the mean of the observed ones. No columns where the calls are
    to be decoded on an accelerator."""
    sign: Float[np.ndarray, " variants"]
    """-1 where the effect allele is the common one, so that counts are 2 minus its dosage; else 1."""
    n_called: Int[np.ndarray, " variants"]
    """People with a call."""
    total: Float[np.ndarray, " variants"]
    """Sum of the observed counts; exact for hard calls."""
    squares: Float[np.ndarray, " variants"]
    """Sum of the squared observed counts; exact for hard calls."""
    missing_start: Int[np.ndarray, " variants_plus_one"]
    """Row j's missing people are ``missing_people[missing_start[j]:missing_start[j + 1]]``."""
    missing_people: Int[np.ndarray, " missing"]
    packed: PackedBlock | None = None
    """The calls as they were read, where they came packed."""

    @property
    def mean(self) -> Float[np.ndarray, " variants"]:
        """Mean count among the people with a call; 0 without any."""
        return np.asarray(self.total / np.maximum(self.n_called, 1))

    @property
    def effect_allele_frequency(self) -> Float[np.ndarray, " variants"]:
        """Among the people with a call; NaN without any."""
        with np.errstate(invalid="ignore", divide="ignore"):
            rarer = self.total / (2.0 * self.n_called)
        return np.asarray(np.where(self.sign < 0, 1.0 - rarer, rarer))


@dataclass(frozen=True, slots=True, eq=False)
class Tallies:
    """Histogram of all tests, added to block by block. Rows follow `ScanDesign.names`."""

    counts: Int[np.ndarray, "traits bins"]
    """Tests per bin of -log10 p: 0.001 wide up to 1, where the median lies, then 0.01; the last bin is open."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockResult:
    """What is kept of a block."""

    hit_variant: Int[np.ndarray, " hits"]
    """Row in the block."""
    hit_trait: Int[np.ndarray, " hits"]
    """Column of `ScanDesign.names`."""
    hit_values: dict[str, Shaped[np.ndarray, " hits"]]
    """Columns of the table of hits, float64: effect_allele_frequency, n, beta, standard_error, neg_log10_p, and what
    a method adds to them."""
    status: Int8[np.ndarray, " variants"]
    """0 when at least one trait has an estimate, else index into `linear.STATUS`."""
    full_traits: dict[str, Shaped[np.ndarray, "variants traits"]]
    """For the store of every test, one value per variant and trait (t, or beta and standard_error, ...); empty unless
    `ScanSettings.full`."""
    full_groups: dict[str, Shaped[np.ndarray, "variants groups"]]
    """The same per variant and group of traits with the same people (n, effect_allele_frequency, ...)."""


@runtime_checkable
class ScanDesign(Protocol):
    """Traits and covariates reduced once by a method; picklable."""

    @property
    def names(self) -> tuple[str, ...]:
        """Traits that are analysed."""

    @property
    def n_samples(self) -> int:
        """People, the columns of every block."""

    @property
    def n_observed(self) -> Int[np.ndarray, " traits"]:
        """People with a value, per analysed trait."""

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Traits left out, with the reason."""

    @property
    def dropped(self) -> tuple[str, ...]:
        """Covariates that were constant or combinations of others."""

    @property
    def patterns(self) -> int:
        """Different sets of people among the traits."""

    def peak_bytes(self, block_size: int, settings: ScanSettings) -> int:
        """Return an upper estimate of the bytes that `scan_block` takes besides the block itself."""

    def full_index(self) -> dict[str, dict[str, object]]:
        """Return, by trait, what makes results of the stored numbers, for JSON.

        ``group`` is the trait's column of `full_groups`, ``n`` its people; a method adds what it needs.
        """

    def scan_block(self, block: CallBlock, settings: ScanSettings, tallies: Tallies) -> BlockResult:
        """Test every trait on every variant of the block and add the tests to `tallies`."""


@runtime_checkable
class TraitDesign(Protocol):
    """What `OfDesign` reads of a method's design: traits and covariates, reduced once."""

    @property
    def names(self) -> tuple[str, ...]:
        """Traits that are analysed."""

    @property
    def n_samples(self) -> int:
        """People, observed for a trait or not."""

    @property
    def n_observed(self) -> Int[np.ndarray, " traits"]:
        """People with a value, per trait."""

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Traits left out, with the reason."""

    @property
    def dropped(self) -> tuple[str, ...]:
        """Covariates that some group could not use."""

    @property
    def groups(self) -> tuple[object, ...]:
        """Groups of traits with the same people."""


Design = TypeVar("Design", bound=TraitDesign)


@dataclass(frozen=True, slots=True, eq=False)
class OfDesign(Generic[Design]):
    """The part of a `ScanDesign` that is read off the method's own design."""

    design: Design

    @property
    def names(self) -> tuple[str, ...]:
        """Traits that are analysed."""
        return self.design.names

    @property
    def n_samples(self) -> int:
        """People, the columns of every block."""
        return self.design.n_samples

    @property
    def n_observed(self) -> Int[np.ndarray, " traits"]:
        """People with a value, per trait."""
        return self.design.n_observed

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Traits left out, with the reason."""
        return self.design.skipped

    @property
    def dropped(self) -> tuple[str, ...]:
        """Covariates that some group could not use."""
        return self.design.dropped

    @property
    def patterns(self) -> int:
        """Different sets of people among the traits."""
        return len(self.design.groups)
