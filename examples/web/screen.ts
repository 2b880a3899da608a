/**
 * The screen: draws the latest picture of a pool on a canvas, once per refresh of the display.
 *
 * @module
 */

import type { Pool } from "dmabuf";
import { drawPicture } from "dmabuf/adapters";
import type { PictureSize } from "../pipeline/stages.ts";

/** Draws until the pool is closed. `onShown` is called behind each picture. */
export async function runScreen(
  canvas: HTMLCanvasElement,
  pool: Pool,
  { width, height }: PictureSize,
  onShown: () => void,
): Promise<void> {
  const context = canvas.getContext("2d");
  if (context === null) throw new Error("This browser gives no 2D canvas.");
  [canvas.width, canvas.height] = [width, height];
  const layout = { format: "BGRA", codedWidth: width, codedHeight: height } as const;
  const screen = pool.consumer({ name: "screen", policy: "latest" });
  for await (const frame of screen.frames()) {
    await new Promise((resolve) => requestAnimationFrame(resolve));
    drawPicture(context, frame.bytes, layout);
    onShown();
  }
}
