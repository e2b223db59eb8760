"""Readers and writers: bytes to core types and back, one module per format."""

from brainlocus.io.arrow_tables import read_arrow, table_columns
from brainlocus.io.associations import read_associations
from brainlocus.io.atomic import atomic_path, locked_folder, partial_name, replace_path
from brainlocus.io.bed import BedSource, BedWriter, open_bed
from brainlocus.io.bgen import BgenSource, BgenWriter, open_bgen
from brainlocus.io.bids import (
    GradientEchoFiles,
    GradientEchoList,
    find_derivative,
    find_gradient_echoes,
    read_label_names,
    read_sidecar,
)
from brainlocus.io.categories import Categories, field_of, read_categories
from brainlocus.io.digest import digest_files, digest_input, require_path
from brainlocus.io.echo_metadata import Note
from brainlocus.io.echo_plan import ReadSettings
from brainlocus.io.expression_models import (
    find_covariance,
    iter_covariances,
    model_tissue,
    read_covariance,
    read_expression_model,
)
from brainlocus.io.features import FeatureBlock, FeatureMatrix, open_features
from brainlocus.io.gene_associations import (
    GeneFolder,
    is_gene_folder,
    open_gene_folder,
    read_annotation,
    read_gene_associations,
    read_gene_matrices,
)
from brainlocus.io.gene_blocks import read_gene_blocks
from brainlocus.io.genotypes import OpenedGenotypes, genotype_files, open_genotypes
from brainlocus.io.gradient_echo import (
    ChannelFiles,
    LoadedSeries,
    count_channels,
    open_channels,
    read_brain_mask,
    read_gradient_echo,
    read_gradient_echo_peak_bytes,
)
from brainlocus.io.grm import grm_files, read_grm, write_grm
from brainlocus.io.image_arrays import is_image_array
from brainlocus.io.images import (
    ImageList,
    ImageMatrix,
    convert_images,
    default_mask,
    find_images,
    image_batches,
    images_grid,
    images_peak_bytes,
    iter_images,
)
from brainlocus.io.instruments import GeneInstruments, read_instruments
from brainlocus.io.label_names import read_label_table, write_colour_table
from brainlocus.io.nifti import (
    is_nifti,
    read_mask,
    read_parcellation,
    read_volume,
    write_dataset_description,
    write_derivative,
    write_mask,
    write_parcellation,
    write_volume,
)
from brainlocus.io.pgen import PgenSource, PgenWriter, open_pgen
from brainlocus.io.plinktext import Pedigree, read_fam, read_psam
from brainlocus.io.segments import read_array_quality, read_named_regions, read_segments
from brainlocus.io.ssf import SSF_VERSION, SsfMetadata, SsfVariants, prepare_ssf, ssf_metadata_path, write_ssf
from brainlocus.io.tables import (
    ResultWriter,
    arrow_column,
    check_table_name,
    measure_names,
    read_results,
    read_table,
    read_visits,
    write_results,
    write_table,
)
from brainlocus.io.text import read_lines
from brainlocus.io.transforms import flirt_transform, read_grid, read_transform, write_itk_affine
from brainlocus.io.vcf import VcfSource, open_vcf

__all__ = [
    "SSF_VERSION",
    "BedSource",
    "BedWriter",
    "BgenSource",
    "BgenWriter",
    "Categories",
    "ChannelFiles",
    "FeatureBlock",
    "FeatureMatrix",
    "GeneFolder",
    "GeneInstruments",
    "GradientEchoFiles",
    "GradientEchoList",
    "ImageList",
    "ImageMatrix",
    "LoadedSeries",
    "Note",
    "OpenedGenotypes",
    "Pedigree",
    "PgenSource",
    "PgenWriter",
    "ReadSettings",
    "ResultWriter",
    "SsfMetadata",
    "SsfVariants",
    "VcfSource",
    "arrow_column",
    "atomic_path",
    "check_table_name",
    "convert_images",
    "count_channels",
    "default_mask",
    "digest_files",
    "digest_input",
    "field_of",
    "find_covariance",
    "find_derivative",
    "find_gradient_echoes",
    "find_images",
    "flirt_transform",
    "genotype_files",
    "grm_files",
    "image_batches",
    "images_grid",
    "images_peak_bytes",
    "is_gene_folder",
    "is_image_array",
    "is_nifti",
    "iter_covariances",
    "iter_images",
    "locked_folder",
    "measure_names",
    "model_tissue",
    "open_bed",
    "open_bgen",
    "open_channels",
    "open_features",
    "open_gene_folder",
    "open_genotypes",
    "open_pgen",
    "open_vcf",
    "partial_name",
    "prepare_ssf",
    "read_annotation",
    "read_array_quality",
    "read_arrow",
    "read_associations",
    "read_brain_mask",
    "read_categories",
    "read_covariance",
    "read_expression_model",
    "read_fam",
    "read_gene_associations",
    "read_gene_blocks",
    "read_gene_matrices",
    "read_gradient_echo",
    "read_gradient_echo_peak_bytes",
    "read_grid",
    "read_grm",
    "read_instruments",
    "read_label_names",
    "read_label_table",
    "read_lines",
    "read_mask",
    "read_named_regions",
    "read_parcellation",
    "read_psam",
    "read_results",
    "read_segments",
    "read_sidecar",
    "read_table",
    "read_transform",
    "read_visits",
    "read_volume",
    "replace_path",
    "require_path",
    "ssf_metadata_path",
    "table_columns",
    "write_colour_table",
    "write_dataset_description",
    "write_derivative",
    "write_grm",
    "write_itk_affine",
    "write_mask",
    "write_parcellation",
    "write_results",
    "write_ssf",
    "write_table",
    "write_volume",
]
