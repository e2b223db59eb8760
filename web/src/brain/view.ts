/** What the pages ask of a brain viewer. Nothing but `niivue.ts` knows which library draws it. */

import type { Painting } from './colours';

export interface BrainView {
  load(template: string | null, atlas: string): Promise<void>;
  paint(painting: Painting): void;
  select(parcel: number, nearMm: [number, number, number] | null): void;
  onSelect(listener: (parcel: number) => void): void;
  toImage(): string;
  dispose(): void;
}

/** WebGL 2 is absent where the browser has no graphics driver to use. */
export function hasWebGl2(): boolean {
  try {
    return document.createElement('canvas').getContext('webgl2') !== null;
  } catch {
    return false;
  }
}
