// Writes and reads the entries of a core's scatterlist, word by word, for the tests of the core.

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

/** A table of { pfn, offset, length } segments, or an errno. */
export function tableOf(core: TestCore, list: readonly Segment[]): number {
  const words = new Uint32Array(core.memory.buffer, core.scratchAt, 4 * list.length);
  for (const [i, segment] of list.entries()) words.set([...segment, 0], 4 * i);
  return core.exports.sgTableFromList(core.scratchAt, list.length);
}
