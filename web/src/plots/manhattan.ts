/** The pre-computed Manhattan file (methods: store documentation). */

export interface ManhattanData {
  nx: number;
  ny: number;
  cells: Uint32Array;
  vid: Int32Array;
  negLog10P: Float32Array;
  coordinate: Uint32Array;
}

export const CUTOFF = 4;
const HEADER = 18;

export function parseManhattan(buffer: ArrayBuffer): ManhattanData {
  const view = new DataView(buffer);
  const magic = buffer.byteLength >= HEADER ? String.fromCharCode(...new Uint8Array(buffer, 0, 4)) : '';
  if (magic !== 'IGMH' || view.getUint16(4, true) !== 1) throw new Error('The Manhattan file is of an unknown kind; reload after an update.');
  const nCells = view.getUint32(10, true);
  const nPoints = view.getUint32(14, true);
  // The header has 18 bytes, so that arrays are copied to be aligned.
  let at = HEADER;
  const take = (n: number): ArrayBuffer => {
    const part = buffer.slice(at, at + 4 * n);
    at += 4 * n;
    return part;
  };
  return {
    nx: view.getUint16(6, true),
    ny: view.getUint16(8, true),
    cells: new Uint32Array(take(nCells)),
    vid: new Int32Array(take(nPoints)),
    negLog10P: new Float32Array(take(nPoints)),
    coordinate: new Uint32Array(take(nPoints)),
  };
}
