/** What a page about genes asks for: the filter that stands in its address. */

import type { Scope, TwasMeta } from '../api';

export const FILTERS = ['modality', 'atlas', 'measurement', 'side', 'tissue'] as const;
export type FilterName = (typeof FILTERS)[number];

export const scopeOf = (query: URLSearchParams, twas: TwasMeta): Scope => (query.get('scope') as Scope | null) ?? twas.default_scope;

/** The filter of an address as the query of a request. */
export function filterQuery(query: URLSearchParams, twas: TwasMeta, names: readonly FilterName[] = FILTERS): string {
  const asked = new URLSearchParams({ scope: scopeOf(query, twas) });
  for (const name of names) {
    const value = query.get(name);
    if (value) asked.set(name, value);
  }
  return asked.toString();
}

/** What counts as an association in a scope, in words. */
export function ruleOf(scope: Scope, alpha: number): string {
  if (scope === 'nominal') return `p ≤ ${alpha}`;
  const over: Record<Exclude<Scope, 'nominal'>, string> = {
    study: 'the whole study',
    modality: 'the modality',
    atlas: 'the atlas',
    phenotype: 'the phenotype',
    'phenotype-tissue': 'phenotype and tissue',
  };
  return `FDR q ≤ ${alpha} over ${over[scope]}`;
}
