import { describe, expect, test } from "vitest";
import { eachCore } from "../support/cores.ts";
import { Prng } from "../support/prng.ts";
import { expectSound } from "../support/sound.ts";

const ALL = 0xffffffff;
const EINVAL = -22;
const ESTALE = -116;
const PS = 4096;

describe.each(eachCore)("storageCopy() on the $name core", (build) => {
  const open = () => {
    const core = build.open(4096);
    const { exports } = core;
    /** The bytes of a table, entry after entry. */
    const views = (table: number): Uint8Array[] => {
      const at = exports.sgTableAt(table);
      const [entriesAt, count] = [core.core.word(at, 0), core.core.word(at, 1)];
      return Array.from({ length: count }, (_, i) => {
        const entryAt = entriesAt + i * exports.ENTRY_BYTES.value;
        return core.core.view(core.core.word(entryAt, 0) * PS, core.core.word(entryAt, 2));
      });
    };
    const bytes = (table: number) =>
      Buffer.concat(views(table).map((view) => Uint8Array.from(view)));
    const fill = (table: number, random: Prng) => {
      for (const view of views(table))
        for (let i = 0; i < view.length; i += 13) view[i] = random.next();
    };
    return { core, exports, views, bytes, fill };
  };

  test("brings every byte to entries of other lengths, and nothing old comes back", () => {
    const { core, exports, bytes, fill } = open();
    const region = exports.cmaDeclare(2048, 1024, 0);
    const random = new Prng(7);
    for (const frames of [1, 17, 255, 300, 529]) {
      const dirt = exports.storageAllocRegion(region, frames, 0);
      fill(dirt, random);
      exports.storageFree(dirt); // its frames are dirty now
      const from = exports.storageAllocBlocks(frames, ALL, 0);
      const to = exports.storageAllocRegion(region, frames, 0);
      exports.storageClear(from);
      fill(from, random);
      const expected = bytes(from);
      expect(exports.storageCopy(to, from)).toBe(0);
      expect(exports.storageClear(to)).toBe(0); // no frame of it is dirty
      expect(bytes(to).equals(expected)).toBe(true);
      expect(exports.storageCopy(from, to)).toBe(0);
      expect(bytes(from).equals(expected)).toBe(true);
      exports.storageFree(from);
      exports.storageFree(to);
      expectSound(core);
    }
  });

  test("refuses tables of other lengths, of frames that somebody holds, and what was freed", () => {
    const { core, exports, bytes } = open();
    const [a, b] = [exports.storageAllocBlocks(3, ALL, 0), exports.storageAllocBlocks(4, ALL, 0)];
    const pfn = exports.frameAlloc(3, 0, ALL);
    const held = exports.sgTableFromRange(pfn, 3, ALL);
    const before = bytes(a);
    expect(exports.storageCopy(a, b)).toBe(EINVAL);
    expect(exports.storageCopy(held, a)).toBe(EINVAL);
    expect(exports.storageCopy(a, held)).toBe(0); // whoever holds the source's frames
    exports.storageFree(b);
    expect([exports.storageCopy(a, b), exports.storageCopy(b, a)]).toEqual([ESTALE, ESTALE]);
    expect(bytes(a)).toHaveLength(before.length);
    expectSound(core);
  });

  test("aligns every block of a storage that asks for it", () => {
    const { core, exports, views } = open();
    const table = exports.storageAllocBlocks(16 + 3, ALL, 5);
    expect(
      views(table).map(({ byteOffset, length }) => [byteOffset % (32 * PS), length / PS]),
    ).toEqual([
      [0, 16],
      [0, 1],
      [0, 1],
      [0, 1],
    ]);
    exports.storageFree(table);
    expectSound(core);
  });
});
