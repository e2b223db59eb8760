/** Numbers as a scientist reads them. */

const SUPERSCRIPT: Record<string, string> = { '-': '⁻', '0': '⁰', '1': '¹', '2': '²', '3': '³', '4': '⁴', '5': '⁵', '6': '⁶', '7': '⁷', '8': '⁸', '9': '⁹' };

export const absent = '–';

export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? absent : value.toLocaleString('en-GB');
}

export function fixed(value: number | null | undefined, digits = 3): string {
  return value === null || value === undefined ? absent : value.toFixed(digits).replace('-', '−');
}

/** A p-value from its -log10, however small. */
export function pValue(negLog10: number | null | undefined): string {
  if (negLog10 === null || negLog10 === undefined) return absent;
  if (negLog10 < 3) return (10 ** -negLog10).toPrecision(2);
  let exponent = Math.ceil(negLog10);
  let mantissa = 10 ** (exponent - negLog10);
  if (mantissa >= 9.95) {
    mantissa = 1;
    exponent -= 1;
  }
  const power = `-${exponent}`.replace(/./g, (c) => SUPERSCRIPT[c] ?? c);
  return `${mantissa.toFixed(1)} × 10${power}`;
}

export function place(chromosome: string, position: number): string {
  return `${chromosome}:${count(position)}`;
}

export function megabases(position: number, digits = 2): string {
  return (position / 1e6).toFixed(digits);
}

/** Round tick values covering a domain. */
export function ticks(low: number, high: number, wanted = 6): number[] {
  const span = high - low || 1;
  const rough = span / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough) ?? power * 10;
  const result: number[] = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) result.push(Number((k * step).toPrecision(12)));
  return result;
}

/** A corrected p, which may be 1 or unknown. */
export function corrected(value: number | null | undefined): string {
  if (value === null || value === undefined) return absent;
  return value < 1e-3 ? pValue(-Math.log10(Math.max(value, 1e-300))) : fixed(value, 3);
}

/** A tissue as people write it. */
export const tissueName = (tissue: string): string => tissue.replace(/_/g, ' ');

export function shorten(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}
