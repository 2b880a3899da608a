/**
 * Pixel font: capital letters, digits and some signs of 3 x 5 dots, for labels on a PNG.
 *
 *     "25755" = 2 .#.     one octal digit a row, its three bits from left to right
 *               5 #.#
 *               7 ###
 *               5 #.#
 *               5 #.#
 *
 * @module
 */

import type { PNG } from "pngjs";
import { type Colour, fillRectangle } from "./canvas.ts";

const DOT = 2; // pixels a side
const GLYPH_COLUMNS = 3;
const GLYPH_ROWS = 5;

/** Pixels of a line of text. */
export const TEXT_HEIGHT: number = GLYPH_ROWS * DOT;

const LETTERS =
  "25755 65656 34443 65556 74647 74644 34553 55755 72227 11152 55655 44447 57755 " +
  "65555 25552 65644 25573 65655 34216 72222 55557 55552 55775 55255 55222 71247";
const DIGITS = "75557 26227 71747 71717 55711 74717 74757 71122 75757 75717";
const SIGNS: readonly (readonly [string, string])[] = [
  [":", "02020"],
  [";", "02024"],
  [",", "00024"],
  [".", "00002"],
  ["-", "00700"],
];

const glyphs = new Map<string, string>([
  ...LETTERS.split(" ").map((rows, i): [string, string] => [String.fromCharCode(65 + i), rows]),
  ...DIGITS.split(" ").map((rows, i): [string, string] => [String(i), rows]),
  ...SIGNS,
]);

/** Draws text in capitals, its top left corner at (x, y); what the font lacks is left blank. */
export function drawText(png: PNG, text: string, x: number, y: number, colour: Colour): void {
  for (const [i, character] of [...text.toUpperCase()].entries()) {
    const rows = glyphs.get(character) ?? "00000";
    drawGlyph(png, rows, x + i * (GLYPH_COLUMNS + 1) * DOT, y, colour);
  }
}

function drawGlyph(png: PNG, rows: string, x: number, y: number, colour: Colour): void {
  for (let row = 0; row < GLYPH_ROWS; row++) {
    for (let column = 0; column < GLYPH_COLUMNS; column++) {
      const isSet = (Number(rows[row]) >> (GLYPH_COLUMNS - 1 - column)) % 2 === 1;
      const dot = { x: x + column * DOT, y: y + row * DOT, width: DOT, height: DOT };
      if (isSet) fillRectangle(png, dot, colour);
    }
  }
}
