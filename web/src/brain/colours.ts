/** Colours for painting the brain; the server's slices use the same. */

export type Rgb = [number, number, number];
export type Paint = 'identity' | 'diverging' | 'sequential' | 'select';

/** Blue to orange through grey: told apart with every common colour-vision deficiency. */
const DIVERGING: Rgb[] = [[0, 40, 130], [38, 118, 206], [150, 190, 232], [236, 236, 236], [247, 190, 120], [224, 120, 20], [140, 55, 0]];
/** Five stops of viridis. */
const SEQUENTIAL: Rgb[] = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
export const SELECTED: Rgb = [240, 140, 30];

function ramp(stops: Rgb[], t: number): Rgb {
  const at = Math.min(Math.max(t, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  const f = at - low;
  const [a, b] = [stops[low] as Rgb, stops[low + 1] as Rgb];
  return [0, 1, 2].map((k) => Math.round((a[k] as number) * (1 - f) + (b[k] as number) * f)) as Rgb;
}

export const diverging = (t: number): Rgb => ramp(DIVERGING, t);
export const sequential = (t: number): Rgb => ramp(SEQUENTIAL, t);

export function identity(label: number): Rgb {
  const hue = (label * 0.61803398875) % 1;
  const value = 0.62 + 0.16 * (label % 3);
  return [0, 2 / 3, 1 / 3].map((shift) => {
    const tent = Math.min(Math.max(Math.abs(((hue + shift) % 1) * 6 - 3) - 1, 0), 1);
    return Math.round(255 * value * (1 - 0.6 * (1 - tent)));
  }) as Rgb;
}

/** Level 1..255 of every region and the table of 256 colours; level 0 is not painted. */
export interface Painting {
  levels: Map<number, number>;
  table: Rgb[];
}

export function painting(kind: Paint, values: Map<number, number>, limit: number): Painting {
  const levels = new Map<number, number>();
  const table: Rgb[] = Array.from({ length: 256 }, (_, k) =>
    kind === 'diverging' ? diverging((k - 1) / 254) : kind === 'sequential' ? sequential((k - 1) / 254) : kind === 'select' ? SELECTED : identity(k),
  );
  for (const [label, value] of values) {
    const t = kind === 'diverging' ? value / (2 * limit || 1) + 0.5 : value / (limit || 1);
    const level = kind === 'identity' ? 1 + ((label - 1) % 255) : kind === 'select' ? 255 : 1 + Math.round(Math.min(Math.max(t, 0), 1) * 254);
    levels.set(label, level);
  }
  return { levels, table };
}
