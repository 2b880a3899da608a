/**
 * The edge filter once more, as plainly as it can be said: whole planes, one pixel after the other.
 *
 * - NE1  Shares no code with examples/pipeline/edge-filter.ts; only the formulas are the same.
 *
 * @module
 */

const KERNEL_X = [
  [-1, 0, 1],
  [-2, 0, 2],
  [-1, 0, 1],
];
const KERNEL_Y = [
  [-1, -2, -1],
  [0, 0, 0],
  [1, 2, 1],
];

/** Filters a 4:2:0 picture. Its pixels, 4 bytes each: blue, green, red, 255. */
export function naiveEdgeFilter(yuv: Uint8Array, width: number, height: number): Uint8Array {
  const luma = (x: number, y: number): number => {
    const column = Math.min(Math.max(x, 0), width - 1);
    const row = Math.min(Math.max(y, 0), height - 1);
    return yuv[row * width + column] as number;
  };
  const chroma = (plane: number, x: number, y: number): number => {
    const planeAt = width * height + plane * (width / 2) * (height / 2);
    return yuv[planeAt + Math.floor(y / 2) * (width / 2) + Math.floor(x / 2)] as number;
  };
  const convolve = (kernel: number[][], x: number, y: number): number => {
    let sum = 0;
    for (let row = 0; row < 3; row++) {
      for (let column = 0; column < 3; column++) {
        sum += (kernel[row]?.[column] as number) * luma(x + column - 1, y + row - 1);
      }
    }
    return sum;
  };
  const out = new Uint8Array(width * height * 4);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const edge = Math.abs(convolve(KERNEL_X, x, y)) + Math.abs(convolve(KERNEL_Y, x, y));
      const [c, d, e] = [luma(x, y) - 16, chroma(0, x, y) - 128, chroma(1, x, y) - 128];
      const colours = [298 * c + 516 * d, 298 * c - 100 * d - 208 * e, 298 * c + 409 * e];
      out[(y * width + x) * 4 + 3] = 255;
      colours.forEach((scaled, i) => {
        const colour = Math.min(Math.max(Math.floor((scaled + 128) / 256), 0), 255);
        out[(y * width + x) * 4 + i] = Math.min(Math.floor(colour / 4) + edge, 255);
      });
    }
  }
  return out;
}
