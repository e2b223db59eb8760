"""The one registry of result columns: name, type, unit and meaning.

Every result table's columns come from here, so that a name means one thing in code, files and pages.
"""

from dataclasses import dataclass
from typing import Literal

__all__ = ["COLUMNS", "ColumnSpec", "DType"]

DType = Literal["str", "float", "int", "bool"]


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """What a column holds."""

    dtype: DType
    description: str
    unit: str = ""


def _spec(dtype: DType, description: str, unit: str = "") -> ColumnSpec:
    return ColumnSpec(dtype, description, unit)


COLUMNS: dict[str, ColumnSpec] = {
    # people
    "participant_id": _spec("str", "Participant, compared as an exact string"),
    "participant_1": _spec("str", "First participant of a pair"),
    "participant_2": _spec("str", "Second participant of a pair"),
    "diagnosis": _spec("int", "1 patient, 0 control"),
    "repeat": _spec("int", "Repeat of the outer cross-validation, from 0"),
    "score": _spec("float", "Out-of-sample decision value; positive is patient-like"),
    # what is tested
    "trait": _spec("str", "Trait (imaging-derived phenotype or other outcome)"),
    "phenotype": _spec("str", "Phenotype tested against the trait"),
    "category": _spec("str", "Group of the phenotype, for figures"),
    "scale": _spec("int", "Number of patterns of the atlas"),
    "region": _spec("str", "Region of the atlas"),
    # image-derived measures
    "session_id": _spec("str", "Scanning session; empty where a person has one"),
    "measure": _spec("str", "Map or column that was measured: QSM, T2star, fieldgradient ..."),
    "unit": _spec("str", "Unit of the values of the row"),
    "n_voxels": _spec("int", "Voxels measured"),
    "median": _spec("float", "Median over the voxels, in the row's unit"),
    "mean": _spec("float", "Mean, in the row's unit"),
    "standard_deviation": _spec("float", "Standard deviation (n - 1), in the row's unit"),
    "mad": _spec("float", "Median absolute deviation from the median, not scaled, in the row's unit"),
    "median_unfiltered": _spec("float", "Median before a rule took voxels away (substantia nigra: those below 0)"),
    "inside_fraction": _spec("float", "Share of the eroded region that is inside the mask and finite"),
    "volume_mm3": _spec("float", "Volume of the whole region", "mm3"),
    # reliability
    "n_sessions": _spec("int", "Sessions a person needs to count"),
    "first_session": _spec("str", "First session"),
    "last_session": _spec("str", "Last session; r, bias and limits are between the two"),
    "r_lower": _spec("float", "Lower bound of r (bootstrap over people)"),
    "r_upper": _spec("float", "Upper bound of r (bootstrap over people)"),
    "icc_2_1": _spec("float", "ICC(2,1), agreement of single sessions (two-way random effects)"),
    "icc_2_1_lower": _spec("float", "Lower bound of icc_2_1 (F distribution)"),
    "icc_2_1_upper": _spec("float", "Upper bound of icc_2_1 (F distribution)"),
    "icc_2_1_bootstrap_lower": _spec("float", "Lower bound of icc_2_1 (bootstrap over people)"),
    "icc_2_1_bootstrap_upper": _spec("float", "Upper bound of icc_2_1 (bootstrap over people)"),
    "icc_3_1": _spec("float", "ICC(3,1), consistency of single sessions (two-way mixed effects)"),
    "icc_3_1_lower": _spec("float", "Lower bound of icc_3_1 (F distribution)"),
    "icc_3_1_upper": _spec("float", "Upper bound of icc_3_1 (F distribution)"),
    "icc_3_1_bootstrap_lower": _spec("float", "Lower bound of icc_3_1 (bootstrap over people)"),
    "icc_3_1_bootstrap_upper": _spec("float", "Upper bound of icc_3_1 (bootstrap over people)"),
    "within_subject_sd": _spec("float", "Root of people's mean variance over sessions, in the row's unit"),
    "coefficient_of_variation": _spec("float", "within_subject_sd over the absolute mean"),
    "bias": _spec("float", "Mean of the last less the first session, in the row's unit"),
    "limit_lower": _spec("float", "Lower Bland-Altman limit of agreement, in the row's unit"),
    "limit_upper": _spec("float", "Upper Bland-Altman limit of agreement, in the row's unit"),
    # variants
    "chromosome": _spec("str", "Chromosome without prefix: 1..22, X, Y, XY, MT"),
    "position": _spec("int", "1-based position on the stated genome build", "bp"),
    "variant_id": _spec("str", "Variant name"),
    "effect_allele": _spec("str", "Counted allele; beta is per copy of it"),
    "other_allele": _spec("str", "The other allele"),
    "effect_allele_frequency": _spec("float", "Frequency of the effect allele among the analysed"),
    "missing_rate": _spec("float", "Share of missing calls"),
    "minor_allele_count": _spec("float", "Copies of the rarer allele among the analysed"),
    "hwe_neg_log10_p": _spec("float", "-log10 p of the exact Hardy-Weinberg test"),
    "status_missing_neg_log10_p": _spec("float", "-log10 p of Fisher's test of missing calls in cases and controls"),
    "info": _spec("float", "Imputation quality; NaN where the genotypes carry none"),
    "info_method": _spec("str", "IMPUTE (from probabilities), MaCH r2 (from dosages), empty for hard calls"),
    "heterozygosity_f": _spec("float", "Inbreeding coefficient from heterozygosity"),
    "sex_f": _spec("float", "Inbreeding coefficient on the X chromosome"),
    "kinship": _spec("float", "KING-robust kinship"),
    "degree": _spec("int", "0 duplicate or twin, 1, 2, 3; 4 farther; -1 where there is no kinship"),
    "ibs0": _spec("float", "Share of the variants called in both that are opposite homozygotes"),
    "n_variants": _spec("int", "Variants that entered"),
    # estimates
    "n": _spec("int", "People analysed; in Mendelian randomisation, variants"),
    "n_cases": _spec("int", "Cases among them (binary phenotypes), else 0"),
    "n_controls": _spec("int", "Controls among them (binary phenotypes)"),
    "effect_allele_frequency_cases": _spec("float", "Frequency of the effect allele among the cases"),
    "effect_allele_frequency_controls": _spec("float", "Frequency of the effect allele among the controls"),
    "z": _spec("float", "Signed root of the test's chi-square (one degree of freedom); agrees with neg_log10_p"),
    "method": _spec(
        "str", "How the test was made: score, logistic, firth, firth-approx, spa; mr-jti, ivw-fixed, egger ..."
    ),
    "beta": _spec("float", "Effect in trait units per effect allele or per unit of the predictor"),
    "standard_error": _spec("float", "Standard error of beta"),
    "t": _spec("float", "t statistic"),
    "degrees_of_freedom": _spec("float", "Residual degrees of freedom of the test"),
    "r": _spec("float", "Partial correlation"),
    "cohens_d": _spec("float", "Adjusted standardised mean difference (binary phenotypes)"),
    "neg_log10_p": _spec("float", "-log10 of the two-sided p-value; finite where p underflows"),
    "p_bonferroni": _spec("float", "Bonferroni-corrected p over the stated scope"),
    "q_bh": _spec("float", "Benjamini-Hochberg q over the stated scope"),
    "lambda_gc": _spec("float", "Genomic inflation: median chi-square / 0.4549"),
    "n_hits": _spec("int", "Variants below the hit threshold"),
    "n_tests": _spec("int", "Tests with a result"),
    # whole-genome regression
    "ridge_h": _spec("float", "Share of variance h whose penalty the cross-validation chose"),
    "cv_r2": _spec("float", "Share of variance that the out-of-sample prediction explains; may be negative"),
    # interactions
    "variant_id_2": _spec("str", "Second variant of a pair"),
    "chromosome_2": _spec("str", "Chromosome of the second variant"),
    "position_2": _spec("int", "1-based position of the second variant", "bp"),
    "effect_allele_2": _spec("str", "Counted allele of the second variant"),
    "other_allele_2": _spec("str", "The other allele of the second variant"),
    "effect_allele_frequency_2": _spec("float", "Frequency of the second variant's effect allele among the analysed"),
    "scan_neg_log10_p": _spec("float", "-log10 p of the scan, missing calls at the mean"),
    "robust_standard_error": _spec("float", "Standard error of beta that allows unequal error variances (HC3)"),
    "robust_neg_log10_p": _spec("float", "-log10 p with the robust standard error"),
    "variance_explained": _spec("float", "R2 that the tested term adds to the model"),
    "min_cell": _spec("int", "People in the smallest cell of the 3 x 3 table of two variants"),
    "n_perfect_ld": _spec("int", "Pairs in perfect LD, which have no test"),
    "threshold_neg_log10_p": _spec("float", "-log10 of 0.05 / tests"),
    "exposure": _spec("str", "Exposure whose interaction with the variant is tested"),
    "interaction_beta": _spec("float", "Trait units per effect allele and unit of the exposure"),
    "interaction_standard_error": _spec("float", "Standard error of interaction_beta"),
    "interaction_neg_log10_p": _spec("float", "-log10 p of the interaction"),
    "joint_neg_log10_p": _spec("float", "-log10 p of variant and interaction together (two degrees of freedom)"),
    "joint_lambda_gc": _spec("float", "Genomic inflation of the joint test, from its median p"),
    "error_model": _spec("str", "hc3: robust errors; hlm: error variance a function of the exposure; ols: equal"),
    "hc3_neg_log10_p": _spec("float", "-log10 p of the interaction, HC3, people with a call only"),
    "exposure_low": _spec("float", "Exposure of slope_low: mean - 1 SD, or the lower of two levels"),
    "exposure_high": _spec("float", "Exposure of slope_high: mean + 1 SD, or the higher of two levels"),
    "slope_low": _spec("float", "Effect of the variant at exposure_low"),
    "slope_low_standard_error": _spec("float", "Standard error of slope_low (HC3)"),
    "slope_middle": _spec("float", "Effect of the variant at the mean exposure; NaN for an exposure of two levels"),
    "slope_middle_standard_error": _spec("float", "Standard error of slope_middle (HC3)"),
    "slope_high": _spec("float", "Effect of the variant at exposure_high"),
    "slope_high_standard_error": _spec("float", "Standard error of slope_high (HC3)"),
    "johnson_neyman_low": _spec("float", "Lower bound of the Johnson-Neyman range of the exposure"),
    "johnson_neyman_high": _spec("float", "Upper bound of the Johnson-Neyman range of the exposure"),
    "johnson_neyman_side": _spec(
        "str", "Where the variant's effect has p < 0.05: inside, outside, everywhere, nowhere"
    ),
    "rank_normal_neg_log10_p": _spec("float", "-log10 p of the interaction after the rank-based normal transform"),
    "log_neg_log10_p": _spec("float", "-log10 p of the interaction for the logarithm of the trait"),
    "exposure_r": _spec("float", "Correlation of variant and exposure"),
    "exposure_r_neg_log10_p": _spec("float", "-log10 p of that correlation"),
    # copy number
    "cnv_locus": _spec("str", "Recurrent copy-number locus, or the measure of burden"),
    "model": _spec("str", "Model that was fitted"),
    "term": _spec("str", "Term of the model that is tested"),
    "adjusted": _spec("str", "Further covariate the model is adjusted for; empty: none"),
    "copies": _spec("int", "Copies of the segment; 2 is normal"),
    "n_deletion": _spec("int", "Carriers of a deletion among the analysed"),
    "n_duplication": _spec("int", "Carriers of a duplication among the analysed"),
    "mean_difference": _spec("float", "Carriers' mean adjusted trait less that of the others"),
    "permutation_p": _spec("float", "Freedman-Lane permutation p, (1 + exceeding) / (1 + permutations)"),
    "n_permutations": _spec("int", "Permutations behind permutation_p; 0 where none were needed"),
    "n_segments": _spec("int", "Copy-number calls"),
    "lrr_sd": _spec("float", "Standard deviation of the log R ratio"),
    "baf_median": _spec("float", "Median B allele frequency"),
    "baf_drift": _spec("float", "B allele frequency drift"),
    "gc_wave": _spec("float", "Wave factor of intensity along the GC content"),
    "n_snps": _spec("int", "Array markers of the segment"),
    # heritability
    "h2": _spec("float", "Share of variance explained by the genotyped variants"),
    "h2_standard_error": _spec("float", "Standard error of h2 (expected information)"),
    "pve": _spec("float", "h2 scaled by the mean diagonal of the projected GRM"),
    "pve_standard_error": _spec("float", "Standard error of pve"),
    "log_likelihood": _spec("float", "Restricted log-likelihood at the estimate"),
    "lrt": _spec("float", "Likelihood-ratio statistic against h2 = 0"),
    "boundary": _spec("bool", "The estimate lies on a bound of the parameter space"),
    # loci
    "locus": _spec("int", "Genomic locus, numbered from 1 within the trait"),
    "role": _spec("str", "index, candidate, independent or lead"),
    "index_variant_id": _spec("str", "Index variant that claimed this one"),
    "r2": _spec("float", "Squared correlation of allele counts with the index variant"),
    "start": _spec("int", "First position of the locus", "bp"),
    "stop": _spec("int", "Last position of the locus", "bp"),
    "top_variant_id": _spec("str", "Variant with the smallest p of the locus"),
    "n_lead": _spec("int", "Lead variants of the locus"),
    "n_independent": _spec("int", "Independent significant variants of the locus"),
    "replication_beta": _spec("float", "beta in the replication people"),
    "replication_standard_error": _spec("float", "Standard error of beta in the replication people"),
    "replication_neg_log10_p": _spec("float", "-log10 p in the replication people"),
    "replicated": _spec("bool", "Same sign and p below the stated replication threshold"),
    # predicted expression
    "tissue": _spec("str", "Tissue of the expression model"),
    "gene": _spec("str", "Gene id, as the expression model has it"),
    "gene_name": _spec("str", "Symbol of the gene; empty where unknown"),
    "zscore": _spec("float", "z of predicted expression with the phenotype (S-PrediXcan)"),
    "effect_size": _spec("float", "Effect on the phenotype per SD of predicted expression; NaN without betas"),
    "pvalue": _spec("float", "Two-sided p-value; 0 below 1e-308, see neg_log10_p"),
    "var_g": _spec("float", "Variance of predicted expression in the reference panel"),
    "pred_perf_r2": _spec("float", "Cross-validated R2 of the expression model"),
    "pred_perf_pval": _spec("float", "p of pred_perf_r2"),
    "pred_perf_qval": _spec("float", "q of pred_perf_r2"),
    "n_snps_used": _spec("int", "SNPs of the model with an aligned GWAS result and a variance"),
    "n_snps_in_cov": _spec("int", "SNPs of the model with any covariance"),
    "n_snps_in_model": _spec("int", "SNPs of the model"),
    # causal effects of expression
    "estimate": _spec(
        "float", "Mean of the term's bootstrap coefficients, in SD of the GWAS effects per SD of the column"
    ),
    "coefficient": _spec("float", "Thresholded lasso coefficient, on the scale of estimate"),
    "lower": _spec("float", "Lower bound: of estimate by the basic bootstrap (MR-JTI), of beta otherwise"),
    "upper": _spec("float", "Upper bound, as lower"),
    "significant": _spec("bool", "The interval from lower to upper does not hold 0"),
    "percentile_lower": _spec("float", "Lower bound of estimate, quantile of the bootstrap"),
    "percentile_upper": _spec("float", "Upper bound of estimate, quantile of the bootstrap"),
    "selection_frequency": _spec("float", "Share of the bootstrap in which the term is not 0"),
    "lambda": _spec("float", "Penalty of the fit; 0 where nothing was penalised"),
    "n_gwas": _spec("int", "Variants with GWAS p below 0.05, which have a term of their own"),
    "n_heterogeneous": _spec("int", "Variants whose own term is significant"),
    "heterogeneous_share": _spec("float", "n_heterogeneous over n"),
    "cochran_q": _spec("float", "Weighted squared deviations of variants from the fit; of one variant, its part"),
    "cochran_q_neg_log10_p": _spec("float", "-log10 p of cochran_q"),
    "i2": _spec("float", "Share of cochran_q beyond what chance gives"),
    "intercept": _spec("float", "Egger: mean effect of variants other than through expression"),
    "intercept_standard_error": _spec("float", "Standard error of intercept"),
    "intercept_neg_log10_p": _spec("float", "-log10 p of intercept"),
    "i2_gx": _spec("float", "Egger: 1 less the share by which beta is diluted by errors of the effects on expression"),
    # batch items
    "status": _spec("str", "ok, or why there is no estimate"),
    "reason": _spec("str", "Why the item was left out; empty when it was kept"),
}
