import { describe, expect, test } from "vitest";
import {
  F_SEAL_FUTURE_WRITE,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
  F_SEAL_WRITE,
  FRAME_BYTES,
  type Memfd,
  type MemfdOptions,
  memfdCreate,
  O_APPEND,
  O_RDONLY,
  O_WRONLY,
  type System,
} from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRefusal } from "../../support/errors.ts";

describe.each(eachCore)("a memfd on the $name core", (build) => {
  function open(options: MemfdOptions = { allowSealing: true }): [System, Memfd] {
    const system = build.system({ memoryBytes: 1 << 20 });
    return [system, memfdCreate(system, "clip", options)];
  }
  const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
  const read = (memfd: Memfd, length: number, offset: number): number[] => {
    const into = new Uint8Array(length).fill(0xee);
    return [...into.subarray(0, memfd.pread(into, offset))];
  };

  test("takes frames only for what is written, and gives them back", () => {
    const [system, memfd] = open();
    const before = system.stats();
    memfd.truncate(1 << 30);
    expect(system.stats()).toEqual(before);
    memfd.pwrite(bytes(1, 2, 3), 10 * FRAME_BYTES - 1);
    expect(system.stats().freeFrames).toBe(before.freeFrames - 2);
    expect(read(memfd, 4, 10 * FRAME_BYTES - 2)).toEqual([0, 1, 2, 3]);
    expect(read(memfd, 4, 1 << 20)).toEqual([0, 0, 0, 0]);
    memfd.truncate(10 * FRAME_BYTES);
    expect(system.stats().freeFrames).toBe(before.freeFrames - 1);
    memfd.put();
    expect(system.stats().freeFrames).toBe(before.freeFrames);
    expect(system.check(true)).toBeNull();
  });

  test("shows zeros where it shrank and grew again", () => {
    const [, memfd] = open();
    memfd.write(new Uint8Array(2 * FRAME_BYTES).fill(7));
    memfd.truncate(100);
    memfd.truncate(2 * FRAME_BYTES);
    expect(read(memfd, 3, 99)).toEqual([7, 0, 0]);
    expect(read(memfd, 2, FRAME_BYTES)).toEqual([0, 0]);
    memfd.put();
  });

  test("reads and writes at a position of each open file", () => {
    const [, memfd] = open();
    const other = memfd.reopen(O_RDONLY);
    expect([memfd.write(bytes(1, 2, 3, 4)), memfd.position, other.position]).toEqual([4, 4, 0]);
    const into = new Uint8Array(8);
    expect([other.read(into), other.position, ...into.subarray(0, 4)]).toEqual([4, 4, 1, 2, 3, 4]);
    expect(other.read(into)).toBe(0);
    expect([memfd.seek(1, "set"), memfd.seek(1, "current"), memfd.seek(-1, "end")]).toEqual([
      1, 2, 3,
    ]);
    memfd.fileFlags |= O_APPEND;
    memfd.write(bytes(9));
    expect([memfd.sizeBytes, memfd.position]).toEqual([5, 5]);
    expectError("EINVAL", () => memfd.seek(-6, "end"));
    expectError("EBADF", () => other.write(bytes(1)));
    expectError("EBADF", () => memfd.reopen(O_WRONLY).read(into));
    expectError("EINVAL", () => other.truncate(0));
    expectError("EPERM", () => other.addSeals(F_SEAL_SHRINK));
  });

  test("outlives one of its files, not the last", () => {
    const [, memfd] = open();
    memfd.write(bytes(5));
    const other = memfd.reopen(O_RDONLY);
    memfd.put();
    expect(read(other, 1, 0)).toEqual([5]);
    other.put();
    for (const call of [
      () => other.pread(bytes(0), 0),
      () => memfd.truncate(1),
      () => other.mmap(),
    ])
      expectError("ESTALE", call);
  });

  test("seals only grow, and each refuses what it says", () => {
    const [system, memfd] = open();
    memfd.truncate(2 * FRAME_BYTES);
    memfd.addSeals(F_SEAL_SHRINK);
    expectRefusal(system, "EPERM", () => memfd.truncate(FRAME_BYTES));
    memfd.truncate(3 * FRAME_BYTES);
    memfd.addSeals(F_SEAL_GROW);
    expectRefusal(system, "EPERM", () => memfd.truncate(4 * FRAME_BYTES));
    expectRefusal(system, "EPERM", () => memfd.pwrite(bytes(1), 3 * FRAME_BYTES));
    memfd.pwrite(bytes(1), 0);
    expect(memfd.seals).toBe(F_SEAL_SHRINK + F_SEAL_GROW);
    for (const seals of [32, -1, 1.5]) expectError("EINVAL", () => memfd.addSeals(seals));
    memfd.addSeals(F_SEAL_SEAL);
    expectRefusal(system, "EPERM", () => memfd.addSeals(F_SEAL_WRITE));
    expectError("EPERM", () => open({})[1].addSeals(F_SEAL_SHRINK));
  });

  test("is not sealed against writing while it is mapped for writing", () => {
    const [system, memfd] = open();
    memfd.truncate(100);
    const mapping = memfd.mmap();
    mapping.views[0]?.set([42], 99);
    expect([read(memfd, 2, 98), mapping.views[0]?.length]).toEqual([[0, 42], 100]);
    expectRefusal(system, "EBUSY", () => memfd.addSeals(F_SEAL_WRITE));
    mapping.unmap();
    memfd.addSeals(F_SEAL_WRITE);
    expectRefusal(system, "EPERM", () => memfd.pwrite(bytes(1), 0));
    expectRefusal(system, "EPERM", () => memfd.mmap());
    expectRefusal(system, "EPERM", () => memfd.mmap({ writable: false }));
    memfd.reopen(O_RDONLY).mmap({ writable: false }).unmap();
    for (const call of [() => mapping.views, () => mapping.unmap()]) expectError("ESTALE", call);
  });

  test("sealed against future writes keeps the mappings that can write", () => {
    const [system, memfd] = open();
    memfd.truncate(100);
    const mapping = memfd.mmap();
    memfd.addSeals(F_SEAL_FUTURE_WRITE);
    mapping.views[0]?.set([42]);
    expect(read(memfd, 1, 0)).toEqual([42]);
    expectRefusal(system, "EPERM", () => memfd.pwrite(bytes(1), 0));
    expectRefusal(system, "EPERM", () => memfd.mmap());
    memfd.mmap({ writable: false }).unmap();
    mapping.unmap();
  });

  test("keeps mapped pages in place when it shrinks or is closed", () => {
    const [system, memfd] = open();
    const free = system.stats().freeFrames;
    memfd.write(new Uint8Array(3 * FRAME_BYTES).fill(7));
    const mapping = memfd.mmap({ offset: FRAME_BYTES });
    memfd.truncate(0);
    expect(system.stats().freeFrames).toBe(free - 2);
    memfd.put();
    expect(mapping.views.every((view) => view.every((byte) => byte === 7))).toBe(true);
    mapping.unmap();
    expect(system.stats().freeFrames).toBe(free);
    expect(system.check(true)).toBeNull();
  });

  test("refuses mappings beyond its end, off a frame, or of a file that is not open for that", () => {
    const [system, memfd] = open();
    memfd.truncate(FRAME_BYTES + 1);
    memfd.mmap({ lengthBytes: 2 * FRAME_BYTES }).unmap(); // the page of the last byte is there
    for (const options of [
      { offset: 1 },
      { lengthBytes: 0 },
      { lengthBytes: 2 * FRAME_BYTES + 1 },
      { offset: 2 * FRAME_BYTES, lengthBytes: 1 },
    ])
      expectRefusal(system, "EINVAL", () => memfd.mmap(options));
    expectRefusal(system, "EACCES", () => memfd.reopen(O_RDONLY).mmap());
    expectRefusal(system, "EACCES", () => memfd.reopen(O_WRONLY).mmap());
  });

  test("that needs more frames than are free is ENOMEM, and nothing changes", () => {
    const [system, memfd] = open();
    for (const size of [1 << 30, 2 ** 53 - 1]) {
      memfd.truncate(size);
      expectRefusal(system, "ENOMEM", () => memfd.mmap());
    }
    expectRefusal(system, "ENOMEM", () => memfd.pwrite(new Uint8Array(1 << 20), 0));
    expect(read(memfd, 1, 0)).toEqual([0]);
  });

  test("takes a name of at most 249 bytes", () => {
    const [system] = open();
    expect(memfdCreate(system, "x".repeat(249)).name).toHaveLength(249);
    expectError("EINVAL", () => memfdCreate(system, "x".repeat(250)));
  });
});
