import { describe, expect, test } from "vitest";
import { joinCore, openCoreSync } from "../src/core/core.ts";
import { eachCore } from "./support/cores.ts";
import { expectError } from "./support/errors.ts";
import { expectSound } from "./support/sound.ts";

const NONE = 0xffffffff;

describe.each(eachCore)("a second instance on the memory of the $name core", ({ wasm, shared }) => {
  const open = () => openCoreSync({ wasm, shared, memoryBytes: 8 << 20, threads: 3 });

  test("joins as another thread, and both allocate without meeting", () => {
    const first = open();
    const second = joinCore(first, 1);
    expect([first.thread, second.thread]).toEqual([0, 1]);
    const owners = new Map<number, number>();
    for (let i = 0; i < 200; i++) {
      for (const core of [first, second]) {
        const pfn = core.exports.frameAlloc(1 + (i % 3), 0, NONE);
        for (let k = 0; k <= i % 3; k++) {
          expect(owners.has(pfn + k)).toBe(false);
          owners.set(pfn + k, core.thread);
        }
      }
    }
    for (const [pfn, thread] of owners)
      expect((first.exports.frameWord(pfn) >>> 8) & 63).toBe(thread);
    expectSound(first);
    // Each frees the other's frames too.
    for (const pfn of owners.keys()) expect(first.exports.frameFree(pfn, 1)).toBe(0);
    expectSound(second);
  });

  test("sees the other's objects, and frees them", () => {
    const first = open();
    const second = joinCore(first, 2);
    const table = first.exports.storageAllocBlocks(100, NONE, 0);
    const device = second.exports.dmaDeviceAdd(
      second.exports.iommuDomainAlloc(),
      0xfffff,
      65_536,
      NONE,
      NONE,
      0,
      0,
      32,
    );
    const mapping = second.exports.dmaMapTable(device, table, 0, 0);
    expect(mapping).toBeGreaterThan(0);
    expect(first.exports.storageFree(table)).toBe(-16);
    expect(first.exports.dmaUnmap(mapping, 0)).toBe(0);
    expect(second.exports.storageFree(table)).toBe(0);
    expectSound(first);
  });

  test("gives its cached frames back when it leaves, and the slot is free again", () => {
    const first = open();
    const second = joinCore(first, 1);
    second.exports.frameFree(second.exports.frameAlloc(1, 0, NONE), 1);
    second.exports.coreLeave();
    expectSound(first);
    expect(joinCore(first, 1).thread).toBe(1);
  });

  test("is refused where a thread runs, where there is no slot, and on foreign memory", () => {
    const first = open();
    expect(expectError("EBUSY", () => joinCore(first, 0))).toContain("take another index");
    expect(expectError("ENOSPC", () => joinCore(first, 3))).toContain("more threads");
    const memory = new WebAssembly.Memory({ initial: 16, maximum: 16, shared });
    expectError("EINVAL", () => joinCore({ memory, module: wasm }, 0));
  });

  test("is refused on memory of the other kind, and the message names the right file", () => {
    const memory = new WebAssembly.Memory({ initial: 16, maximum: 16, shared: !shared });
    const message = expectError("EINVAL", () => joinCore({ memory, module: wasm }, 0));
    expect(message).toContain(shared ? "dmabuf/core.wasm" : "dmabuf/core-shared.wasm");
  });
});
