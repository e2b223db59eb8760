/** Saving a figure: its canvas as an image under its SVG axes. */

function composed(canvas: HTMLCanvasElement, svg: SVGSVGElement, background: string): string {
  const copy = svg.cloneNode(true) as SVGSVGElement;
  const width = svg.clientWidth;
  const height = svg.clientHeight;
  copy.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  copy.setAttribute('width', String(width));
  copy.setAttribute('height', String(height));
  copy.setAttribute('font-family', 'Helvetica, Arial, sans-serif');
  const image = `<rect width="100%" height="100%" fill="${background}"/><image width="${width}" height="${height}" href="${canvas.toDataURL('image/png')}"/>`;
  const text = new XMLSerializer().serializeToString(copy);
  return text.replace(/>/, `>${image}`);
}

function download(blob: Blob, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

export function saveSvg(canvas: HTMLCanvasElement, svg: SVGSVGElement, name: string, background: string): void {
  download(new Blob([composed(canvas, svg, background)], { type: 'image/svg+xml' }), `${name}.svg`);
}

export async function savePng(canvas: HTMLCanvasElement, svg: SVGSVGElement, name: string, background: string): Promise<void> {
  const picture = new Image();
  picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(composed(canvas, svg, background))}`;
  await picture.decode();
  const target = document.createElement('canvas');
  target.width = svg.clientWidth * 2;
  target.height = svg.clientHeight * 2;
  target.getContext('2d')?.drawImage(picture, 0, 0, target.width, target.height);
  target.toBlob((blob) => blob && download(blob, `${name}.png`));
}

export function saveTable(head: string[], rows: (string | number | null)[][], name: string): void {
  const lines = [head, ...rows].map((row) => row.map((cell) => cell ?? '').join('\t'));
  download(new Blob([lines.join('\n') + '\n'], { type: 'text/tab-separated-values' }), `${name}.tsv`);
}
