"""Results on disk: written once, then read by the portal and by anyone with Parquet."""

from brainlocus.store.annotation import public_id
from brainlocus.store.gene_reader import GeneFilter, GeneResults, GeneRows, UnknownValueError
from brainlocus.store.gene_writer import gene_peak_bytes
from brainlocus.store.plots import Manhattan, QqPoints, genomic_inflation, manhattan_of, qq_of, unpack_manhattan
from brainlocus.store.precision import round_mantissa
from brainlocus.store.privacy import PrivacyRules, check_summary_table
from brainlocus.store.reader import LocalStore, QueryTimeoutError, Variant
from brainlocus.store.verify import VerifyReport, verify
from brainlocus.store.writer import ModelInfo, PhenotypeInfo, StoreSettings, StoreWriter, peak_bytes

__all__ = [
    "GeneFilter",
    "GeneResults",
    "GeneRows",
    "LocalStore",
    "Manhattan",
    "ModelInfo",
    "PhenotypeInfo",
    "PrivacyRules",
    "QqPoints",
    "QueryTimeoutError",
    "StoreSettings",
    "StoreWriter",
    "UnknownValueError",
    "Variant",
    "VerifyReport",
    "check_summary_table",
    "gene_peak_bytes",
    "genomic_inflation",
    "manhattan_of",
    "peak_bytes",
    "public_id",
    "qq_of",
    "round_mantissa",
    "unpack_manhattan",
    "verify",
]
