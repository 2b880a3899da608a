// Reads the entries of a core's scatterlist, word by word, for the tests of the core.

import type { TestCore } from "./cores.ts";

export type Segment = [pfn: number, offset: number, length: number];

/** The CPU entries of a table of the core, as its payload and its list say. */
export function segments({ exports, memory }: TestCore, table: number): Segment[] {
  const words = new Uint32Array(memory.buffer);
  const at = exports.sgTableAt(table) / 4;
  const [entriesAt, count] = [(words[at] as number) / 4, words[at + 1] as number];
  return Array.from({ length: count }, (_, i) => {
    const [pfn, offset, length] = words.subarray(entriesAt + 4 * i, entriesAt + 4 * i + 3);
    return [pfn, offset, length] as Segment;
  });
}
