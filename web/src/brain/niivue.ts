/** The brain view drawn by NiiVue. The only module that imports it; loaded when a page shows a brain. */

import { MULTIPLANAR_TYPE, Niivue, SHOW_RENDER, SLICE_TYPE } from '@niivue/niivue';
import type { Painting } from './colours';
import type { BrainView } from './view';

type Volume = Niivue['volumes'][number];
const PAINTED = 'regions';

export async function createBrainView(canvas: HTMLCanvasElement): Promise<BrainView> {
  const niivue = new Niivue({
    backColor: [0, 0, 0, 1],
    crosshairColor: [0.62, 0.8, 0.94, 0.9],
    crosshairWidth: 1,
    crosshairWidthUnit: 'mm',
    isOrientCube: false,
    isOrientationTextVisible: true,
    show3Dcrosshair: false,
    logLevel: 'error',
    multiplanarShowRender: SHOW_RENDER.ALWAYS,
    multiplanarEqualSize: false,
    isColorbar: false,
    isNearestInterpolation: true,
    loadingText: '',
  });
  await niivue.attachToCanvas(canvas);
  niivue.setSliceType(SLICE_TYPE.MULTIPLANAR);
  niivue.setMultiplanarLayout(canvas.clientWidth > 2.2 * canvas.clientHeight ? MULTIPLANAR_TYPE.ROW : MULTIPLANAR_TYPE.GRID);
  let labels: Int32Array = new Int32Array(0);
  let selected: (parcel: number) => void = () => {};

  const atlas = (): Volume | undefined => niivue.volumes[1];

  function labelAt(mm: ArrayLike<number>): number {
    const volume = atlas();
    const dims = volume?.hdr?.dims;
    if (!volume || !dims) return 0;
    const [i, j, k] = Array.from(volume.mm2vox([mm[0] ?? 0, mm[1] ?? 0, mm[2] ?? 0])) as [number, number, number];
    const [nx, ny, nz] = [dims[1] ?? 0, dims[2] ?? 0, dims[3] ?? 0];
    if (i < 0 || j < 0 || k < 0 || i >= nx || j >= ny || k >= nz) return 0;
    return labels[i + nx * (j + ny * k)] ?? 0;
  }

  return {
    async load(template, atlasAddress) {
      // The picture underneath is the atlas itself, drawn in black, when there is no template.
      const under = template === null ? { url: atlasAddress, cal_min: 1e6, cal_max: 2e6 } : { url: template };
      await niivue.loadVolumes([
        { ...under, name: 'template.nii.gz', colormap: 'gray' },
        { url: atlasAddress, name: 'atlas.nii.gz', colormap: 'gray', opacity: 0.8 },
      ]);
      niivue.setInterpolation(true);
      labels = Int32Array.from((atlas()?.img ?? []) as ArrayLike<number>);
      niivue.onLocationChange = (location) => {
        const parcel = labelAt((location as { mm: ArrayLike<number> }).mm);
        if (parcel > 0) selected(parcel);
      };
    },
    paint({ levels, table }: Painting) {
      const volume = atlas();
      if (!volume?.hdr) return;
      // Regions become levels 1..255 of one colour table, 0 stays clear: no label tables, whose upper
      // entries would paint the background.
      volume.img = Uint8Array.from(labels, (label) => levels.get(label) ?? 0);
      volume.hdr.datatypeCode = 2;
      volume.hdr.numBitsPerVoxel = 8;
      volume.hdr.scl_slope = 1;
      volume.hdr.scl_inter = 0;
      const index = Array.from({ length: 256 }, (_, k) => k);
      niivue.addColormap(PAINTED, {
        R: table.map((c) => c[0]),
        G: table.map((c) => c[1]),
        B: table.map((c) => c[2]),
        A: index.map((k) => (k === 0 ? 0 : 255)),
        I: index,
      });
      volume.colormap = PAINTED;
      // Only after the colour map, which measures the range of the data anew: levels must keep their colours even
      // where the highest level is far below 255.
      volume.cal_min = 0;
      volume.cal_max = 255;
      niivue.updateGLVolume();
    },
    select(parcel, nearMm) {
      const volume = atlas();
      const dims = volume?.hdr?.dims;
      if (!volume || !dims || labelAt(niivue.frac2mm(niivue.scene.crosshairPos)) === parcel) return;
      const [nx, ny] = [dims[1] ?? 1, dims[2] ?? 1];
      const goal = nearMm ? Array.from(volume.mm2vox(nearMm)) : null;
      let best = -1;
      let bestDistance = Infinity;
      for (let at = 0; at < labels.length; at += 1) {
        if (labels[at] !== parcel) continue;
        const voxel = [at % nx, Math.floor(at / nx) % ny, Math.floor(at / (nx * ny))];
        const distance = goal ? voxel.reduce((sum, v, d) => sum + (v - (goal[d] ?? 0)) ** 2, 0) : 0;
        if (distance < bestDistance) {
          best = at;
          bestDistance = distance;
        }
      }
      if (best < 0) return;
      const voxel: [number, number, number] = [best % nx, Math.floor(best / nx) % ny, Math.floor(best / (nx * ny))];
      niivue.scene.crosshairPos = niivue.vox2frac(voxel, 1);
      niivue.drawScene();
    },
    onSelect(listener) {
      selected = listener;
    },
    toImage() {
      niivue.drawScene();
      return canvas.toDataURL('image/png');
    },
    dispose() {
      niivue.onLocationChange = () => {};
      niivue.cleanup();
      niivue.gl?.getExtension('WEBGL_lose_context')?.loseContext();
    },
  };
}
