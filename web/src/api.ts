/** The JSON interface, typed. Every answer comes from this origin; failures are shown, never taken for "no results". */

export interface Chromosome {
  chromosome: string;
  code: number;
  offset: number;
  length: number;
  first_vid: number;
  n_variants: number;
}
export interface MapRow {
  map_id: string;
  kind: 'template' | 'atlas';
  label: string;
  scale: number | null;
  space: string;
  n: number | null;
}
export interface Model {
  model_id: string;
  task: string;
  features: string;
  metric: string;
  value: number;
  lower: number | null;
  upper: number | null;
  n: number | null;
}
export interface Meta {
  title: string;
  description: string;
  release: string;
  species: string;
  genome_build: string;
  space: string;
  licence: string;
  citation: string;
  created: string;
  created_by: string;
  chromosomes: Chromosome[];
  thresholds: { hits_min: number; significant: number };
  privacy: { min_cell: number };
  counts: Record<string, number>;
  features: Record<'gwas' | 'heritability' | 'associations' | 'models' | 'atlas' | 'template', boolean>;
  models: Model[];
  maps: MapRow[];
  twas: TwasMeta | null;
}
export type Scope = 'study' | 'modality' | 'atlas' | 'phenotype' | 'phenotype-tissue' | 'nominal';
export interface TwasMeta {
  max_p: number;
  alpha: number;
  scopes: Scope[];
  default_scope: Scope;
  filters: Record<'modality' | 'atlas' | 'side' | 'measurement' | 'tissue', string[]>;
  tissues: { tissue: string; n_genes: number; n_associations: number; n_significant: number | null }[];
}
export interface Gene {
  gene: string;
  gene_name: string;
  n_tissues: number;
  n_associations: number;
  n_phenotypes: number;
  n_significant: number | null;
  n_phenotypes_significant: number | null;
  n_tissues_significant: number | null;
  max_neg_log10_p: number | null;
  top_phenotype_id: string | null;
  top_label: string | null;
  top_tissue: string | null;
}
export interface GeneDetail extends Gene {
  models: { tissue: string; pred_perf_r2: number | null }[];
  also: string[];
}
export interface GeneAssociation {
  gene: string;
  gene_name: string;
  phenotype_id: string;
  label: string;
  modality: string;
  atlas: string;
  side: string;
  region: string;
  measurement: string;
  category: string;
  tissue: string;
  zscore: number;
  effect_size: number | null;
  neg_log10_p: number;
  q_bh: number | null;
  p_bonferroni: number | null;
  pred_perf_r2: number | null;
}
export interface GenePage extends Page<GeneAssociation> {
  scope: Scope;
  alpha: number;
}
export interface GeneSum {
  phenotype_id?: string;
  label?: string;
  category?: string;
  gene?: string;
  gene_name?: string;
  tissue?: string;
  modality?: string;
  atlas?: string;
  region?: string;
  side?: string;
  n_associations: number;
  n_phenotypes?: number;
  n_genes?: number;
  n_tissues?: number;
  n_positive: number;
  n_negative: number;
  mean_z: number;
  mean_abs_z: number;
  top_z: number;
  top_neg_log10_p: number;
  top_gene: string;
  top_phenotype_id: string;
  top_tissue: string;
}
export interface GeneSums {
  total: number;
  n_associations: number;
  rows: GeneSum[];
}
export interface GeneMatrix {
  total: number;
  tissues: string[];
  rows: { phenotype_id?: string; label?: string; modality?: string; gene?: string; gene_name?: string }[];
  z: (number | null)[][];
  modelled: boolean[][];
}
export interface Phenotype {
  pid: number;
  phenotype_id: string;
  label: string;
  description: string;
  modality: string;
  category: string;
  units: string;
  atlas: string;
  side: string | null;
  measurement: string | null;
  n_gene_associations: number | null;
  n_genes: number | null;
  n_genes_significant: number | null;
  scale: number | null;
  parcel_index: number | null;
  n: number | null;
  h2: number | null;
  h2_standard_error: number | null;
  n_hits: number | null;
  n_loci: number | null;
  n_variants: number | null;
  max_neg_log10_p: number | null;
  lambda_gc: number | null;
  map_id: string | null;
  has_gwas: boolean;
}
export interface Region {
  region_id: string;
  name: string;
  atlas: string;
  scale: number;
  parcel_index: number;
  hemisphere: string;
  n_voxels: number;
  volume_mm3: number;
  x_mm: number | null;
  y_mm: number | null;
  z_mm: number | null;
  map_id: string;
}
export interface Heritability {
  n: number | null;
  h2: number | null;
  h2_standard_error: number | null;
  lrt: number | null;
  neg_log10_p: number | null;
  boundary: boolean | null;
}
export interface PhenotypeDetail extends Phenotype {
  region: Region | null;
  region_name: string | null;
  heritability: Heritability | null;
  annotation: Record<string, string>;
}
export interface Locus {
  phenotype_id: string;
  locus: number;
  chromosome: string;
  position: number;
  start: number;
  stop: number;
  key: string;
  variant_id: string;
  effect_allele: string;
  other_allele: string;
  effect_allele_frequency: number | null;
  beta: number | null;
  standard_error: number | null;
  neg_log10_p: number | null;
  n_lead: number | null;
  replicated: boolean | null;
  method: string;
}
export interface Hit extends Omit<Locus, 'locus' | 'start' | 'stop' | 'method'> {
  neg_log10_p: number;
}
export interface Association {
  phenotype: string;
  category: string;
  effect: number | null;
  effect_type: string;
  neg_log10_p: number;
  n: number;
  n_cases: number | null;
  n_controls: number | null;
  suppressed: boolean;
  q_bh: number | null;
  bonferroni_pass: boolean | null;
}
export interface Variant {
  key: string;
  variant_id: string;
  chromosome: string;
  position: number;
  effect_allele: string;
  other_allele: string;
  effect_allele_frequency: number | null;
}
export interface PhewasRow {
  phenotype_id: string;
  label: string;
  category: string;
  parcel_index: number | null;
  beta: number;
  standard_error: number;
  neg_log10_p: number;
}
export interface Qq {
  expected: number[];
  observed: number[];
  lower: number[];
  upper: number[];
  n_tests: number;
  lambda_gc: number | null;
}
export interface RegionColumns {
  n: number;
  columns: {
    position: number[];
    variant_id: (string | null)[];
    effect_allele: string[];
    other_allele: string[];
    beta: number[];
    standard_error: number[];
    neg_log10_p: number[];
  };
}
export interface Suggestion {
  type: string;
  id: string;
  label: string;
  path: string;
}
export interface Page<Row> {
  total: number;
  next_cursor?: number | null;
  rows: Row[];
}

export class Problem extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

const base = '/api/v1';

async function answer(path: string): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(base + path);
  } catch {
    throw new Problem(0, 'The server does not answer. Is it still running?');
  }
  if (!response.ok) {
    const document = (await response.json().catch(() => ({}))) as { detail?: string; title?: string };
    throw new Problem(response.status, document.detail ?? document.title ?? response.statusText);
  }
  return response;
}

export async function get<Answer>(path: string): Promise<Answer> {
  return (await (await answer(path)).json()) as Answer;
}

export async function getBytes(path: string): Promise<ArrayBuffer> {
  return (await answer(path)).arrayBuffer();
}

let study: Promise<Meta> | undefined;

/** The study's description, fetched once. */
export function meta(): Promise<Meta> {
  study ??= get<Meta>('/meta');
  return study;
}

export const apiAddress = (path: string): string => base + path;
export const key = encodeURIComponent;
