/**
 * Canvas: filled rectangles on a PNG.
 *
 * @module
 */

import type { PNG } from "pngjs";

/** Red, green and blue, 0 to 255. */
export type Colour = readonly [red: number, green: number, blue: number];

/** Pixels from the top left corner. */
export interface Rectangle {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** Fills the part of a rectangle that lies on the picture. */
export function fillRectangle(png: PNG, { x, y, width, height }: Rectangle, colour: Colour): void {
  const xEnd = Math.min(x + width, png.width);
  const yEnd = Math.min(y + height, png.height);
  for (let row = y; row < yEnd; row++) {
    for (let column = x; column < xEnd; column++) {
      const at = (row * png.width + column) * 4;
      png.data[at] = colour[0];
      png.data[at + 1] = colour[1];
      png.data[at + 2] = colour[2];
      png.data[at + 3] = 255;
    }
  }
}
