/**
 * State x method matrices: a table whose every cell is a test.
 *
 *     method  | fresh | attached | released        a column for each state, a row for each method
 *     put     | ok    | EBUSY    | ESTALE
 *
 * @module
 */

import { describe, expect, test } from "vitest";
import { DmaBufError } from "../../src/errors.ts";

/** One cell: what a method does in a state: its answer, or the code it fails with. */
export interface Cell {
  readonly method: string;
  readonly state: string;
  readonly expected: string;
}

/** The cells of a table; throws when a row has another number of cells than the head. */
export function cellsOf(table: string): Cell[] {
  const rows = table
    .split("\n")
    .filter((line) => line.includes("|"))
    .map((line) => line.split("|").map((cell) => cell.trim()));
  const [head = [], ...body] = rows;
  return body.flatMap(([method = "", ...cells]) => {
    expect(cells.length, method).toBe(head.length - 1);
    return cells.map((expected, i) => ({ method, state: head[i + 1] ?? "", expected }));
  });
}

/** What a test does with a cell. */
export interface Scene {
  /** Calls the method. */
  readonly call: () => unknown;
  /** The result as the cell has it; "ok", if it does not matter. */
  readonly answer?: (result: unknown) => string;
  /** Looks at whatever must hold after it, refused or not. */
  readonly after: (outcome: string) => void;
}

/** Makes a test of every cell: `enter` brings the object into the state. */
export function matrix(
  name: string,
  table: string,
  enter: (cell: Cell) => Scene | Promise<Scene>,
): void {
  describe(name, () => {
    const cells = cellsOf(table);
    test.each(cells)("$state: $method is $expected", async (cell) => {
      const { call, after, answer = () => "ok" } = await enter(cell);
      const outcome = await outcomeOf(call, answer);
      expect(outcome).toBe(cell.expected);
      after(outcome);
    });
  });
}

async function outcomeOf(call: () => unknown, answer: (result: unknown) => string) {
  try {
    return answer(await call());
  } catch (error) {
    if (error instanceof DmaBufError) return error.code;
    throw error;
  }
}
