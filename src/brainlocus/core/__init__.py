"""Core types shared by every room: what the data are, not what is done with them."""

from brainlocus.core.columns import COLUMNS, ColumnSpec
from brainlocus.core.errors import (
    AlignmentError,
    BrainlocusError,
    FormatError,
    MissingExtraError,
    ResourceError,
    SchemaError,
)
from brainlocus.core.executor import Executor
from brainlocus.core.expression import ExpressionModel, GeneCovariance
from brainlocus.core.gene_associations import SCOPES, GeneAssociations, GeneBlock, GeneMatrix, PhenotypeAnnotation
from brainlocus.core.genotypes import (
    ArrayGenotypes,
    GenotypeBlock,
    GenotypeSource,
    PackedBlock,
    PackedSource,
    ProbabilityBlock,
    ProbabilitySource,
    SelectedGenotypes,
    block_size_for,
    iter_blocks,
    runs,
    select_genotypes,
)
from brainlocus.core.gradient_echo import (
    GAMMA_BAR_MHZ_PER_T,
    Acquisition,
    Channel,
    ChannelSource,
    GradientEcho,
    iter_channels,
)
from brainlocus.core.grm import Grm
from brainlocus.core.instruments import Instruments
from brainlocus.core.manifest import InputFile, Manifest
from brainlocus.core.phenotypes import Column, PhenotypeTable, quantitative_table
from brainlocus.core.results import ResultTable, concat_results
from brainlocus.core.samples import SampleIndex, intersect, shared_samples
from brainlocus.core.segments import RegionTable, SegmentTable
from brainlocus.core.transforms import AffineTransform, DisplacementField, Transform, inverted
from brainlocus.core.variants import VariantTable, canonical_chromosome, chromosome_rank, concat_variants
from brainlocus.core.volumes import Grid, Mask, Parcellation, Volume, check_same_grid, same_grid

__all__ = [
    "COLUMNS",
    "GAMMA_BAR_MHZ_PER_T",
    "SCOPES",
    "Acquisition",
    "AffineTransform",
    "AlignmentError",
    "ArrayGenotypes",
    "BrainlocusError",
    "Channel",
    "ChannelSource",
    "Column",
    "ColumnSpec",
    "DisplacementField",
    "Executor",
    "ExpressionModel",
    "FormatError",
    "GeneAssociations",
    "GeneBlock",
    "GeneCovariance",
    "GeneMatrix",
    "GenotypeBlock",
    "GenotypeSource",
    "GradientEcho",
    "Grid",
    "Grm",
    "InputFile",
    "Instruments",
    "Manifest",
    "Mask",
    "MissingExtraError",
    "PackedBlock",
    "PackedSource",
    "Parcellation",
    "PhenotypeAnnotation",
    "PhenotypeTable",
    "ProbabilityBlock",
    "ProbabilitySource",
    "RegionTable",
    "ResourceError",
    "ResultTable",
    "SampleIndex",
    "SchemaError",
    "SegmentTable",
    "SelectedGenotypes",
    "Transform",
    "VariantTable",
    "Volume",
    "block_size_for",
    "canonical_chromosome",
    "check_same_grid",
    "chromosome_rank",
    "concat_results",
    "concat_variants",
    "intersect",
    "inverted",
    "iter_blocks",
    "iter_channels",
    "quantitative_table",
    "runs",
    "same_grid",
    "select_genotypes",
    "shared_samples",
]
