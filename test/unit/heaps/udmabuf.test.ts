import { describe, expect, test } from "vitest";
import {
  createUdmabuf,
  F_SEAL_FUTURE_WRITE,
  F_SEAL_SHRINK,
  F_SEAL_WRITE,
  FRAME_BYTES,
  type Memfd,
  MiB,
  memfdCreate,
  O_RDONLY,
  type System,
  type UdmabufItem,
} from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectRefusal } from "../../support/errors.ts";

const PAGES = 16;

describe.each(eachCore)("a udmabuf on the $name core", (build) => {
  function open(seals = F_SEAL_SHRINK): [System, Memfd] {
    const system = build.system({ memoryBytes: 2 * MiB });
    const memfd = memfdCreate(system, "clip", { allowSealing: true });
    for (let page = 0; page < PAGES; page++) memfd.write(new Uint8Array(FRAME_BYTES).fill(page));
    memfd.addSeals(seals);
    return [system, memfd];
  }
  const item = (memfd: Memfd | null, page: number, count = 1): UdmabufItem => ({
    memfd,
    offset: page * FRAME_BYTES,
    sizeBytes: count * FRAME_BYTES,
  });

  test("shares the pages of its items, in their order, both ways and with devices", () => {
    const [system, memfd] = open();
    const device = system.addDevice({ name: "gpu", iommu: true });
    const buf = createUdmabuf(system, [item(memfd, 5), item(memfd, 0, 2), item(memfd, 5)]);
    expect([buf.sizeBytes, buf.exporterName]).toEqual([4 * FRAME_BYTES, "udmabuf"]);
    const attachment = buf.attach(device);
    const mapping = attachment.map("bidirectional");
    const byteAt = (offset: number): number => {
      const into = new Uint8Array(1);
      device.dma.read(mapping.at(offset).address, into);
      return into[0] as number;
    };
    expect([0, 1, 2, 3].map((page) => byteAt(page * FRAME_BYTES))).toEqual([5, 0, 1, 5]);
    memfd.pwrite(Uint8Array.of(200), 5 * FRAME_BYTES);
    expect([byteAt(0), byteAt(3 * FRAME_BYTES)]).toEqual([200, 200]);
    device.dma.write(mapping.at(2 * FRAME_BYTES).address, Uint8Array.of(201));
    const into = new Uint8Array(1);
    memfd.pread(into, FRAME_BYTES);
    expect(into[0]).toBe(201);
    attachment.unmap(mapping);
    attachment.detach();
    expect(system.check(true)).toBeNull();
    buf.put();
    memfd.put();
    system.close();
  });

  test("keeps its pages when the memfd is closed, and only those", () => {
    const system = build.system({ memoryBytes: 2 * MiB });
    const free = system.stats().freeFrames;
    const memfd = memfdCreate(system, "clip", { allowSealing: true });
    memfd.write(new Uint8Array(PAGES * FRAME_BYTES).fill(7));
    memfd.addSeals(F_SEAL_SHRINK);
    const buf = createUdmabuf(system, [item(memfd, 3, 2)]);
    memfd.put();
    const mapping = buf.mmap();
    expect(mapping.views.flatMap((view) => [...view]).every((byte) => byte === 7)).toBe(true);
    mapping.unmap();
    expect(system.stats().freeFrames).toBeGreaterThanOrEqual(free - 4); // 2, and the table's
    buf.put();
    expect(system.stats().freeFrames).toBe(free);
    expect(system.check(true)).toBeNull();
  });

  test("keeps its memfd from being sealed against writing", () => {
    const [system, memfd] = open();
    const buf = createUdmabuf(system, [item(memfd, 0)]);
    expectRefusal(system, "EBUSY", () => memfd.addSeals(F_SEAL_WRITE));
    buf.put();
    memfd.addSeals(F_SEAL_WRITE);
  });

  test("ends no CPU access before one began", () => {
    const [system, memfd] = open();
    const buf = createUdmabuf(system, [item(memfd, 0)]);
    expectRefusal(system, "EINVAL", () => buf.endCpuAccess("from-device"));
    buf.beginCpuAccess("from-device");
    buf.endCpuAccess("from-device");
    buf.endCpuAccess("from-device");
  });

  test.each([
    ["no item", () => [], "EINVAL"],
    ["no page", (memfd: Memfd) => [item(memfd, 0, 0)], "EINVAL"],
    ["1025 items", (memfd: Memfd) => Array(1025).fill(item(memfd, 0)), "EINVAL"],
    ["part of a page", (memfd: Memfd) => [{ ...item(memfd, 0), sizeBytes: 1n }], "EINVAL"],
    ["an offset off a page", (memfd: Memfd) => [{ ...item(memfd, 0), offset: 8 }], "EINVAL"],
    ["pages beyond the end", (memfd: Memfd) => [item(memfd, 15, 2)], "EINVAL"],
    ["more than 64 MiB", (memfd: Memfd) => [item(memfd, 0, 16385)], "EINVAL"],
    ["no memfd", (memfd: Memfd) => [item(memfd, 0), item(null, 0)], "EBADFD"],
    [
      "no memfd, and a bad size later",
      () => [item(null, 0), { ...item(null, 0), sizeBytes: 5 }],
      "EINVAL",
    ],
    [
      "no memfd, and pages beyond the end before it",
      (memfd: Memfd) => [item(memfd, 99), item(null, 0)],
      "EINVAL",
    ],
    [
      "pages that no file has",
      (memfd: Memfd) => [{ ...item(memfd, 0), offset: 2n ** 63n }],
      "EFBIG",
    ],
  ] as const)("of %s is refused", (_, items, code) => {
    const [system, memfd] = open();
    expectRefusal(system, code, () => createUdmabuf(system, items(memfd)));
  });

  test.each([
    ["not against shrinking", 0],
    ["against writing", F_SEAL_SHRINK + F_SEAL_WRITE],
    ["against future writes", F_SEAL_SHRINK + F_SEAL_FUTURE_WRITE],
  ])("of a memfd sealed %s is EINVAL", (_, seals) => {
    const [system, memfd] = open(seals);
    expectRefusal(system, "EINVAL", () => createUdmabuf(system, [item(memfd, 0)]));
  });

  test("may be made of a read-only file, of holes, and of 1024 items with empty ones", () => {
    const [system, memfd] = open();
    createUdmabuf(system, [item(memfd.reopen(O_RDONLY), 0)]).put();
    const holes = memfdCreate(system, "holes", { allowSealing: true });
    holes.truncate(5000);
    holes.addSeals(F_SEAL_SHRINK);
    const buf = createUdmabuf(system, [item(holes, 0, 2)]);
    expect(
      buf
        .mmap()
        .views.flatMap((view) => [...view])
        .every((byte) => byte === 0),
    ).toBe(true);
    const items = Array.from({ length: 1024 }, (_, i) => item(memfd, i % PAGES, i % 2));
    expect(createUdmabuf(system, items).sizeBytes).toBe(512 * FRAME_BYTES);
    expect(system.check(true)).toBeNull();
  });

  test("that finds no memory is ENOMEM and leaves nothing behind", () => {
    const system = build.system({ memoryBytes: 2 * MiB });
    const memfd = memfdCreate(system, "large", { allowSealing: true });
    memfd.truncate(64 * MiB);
    memfd.addSeals(F_SEAL_SHRINK);
    expectRefusal(system, "ENOMEM", () => createUdmabuf(system, [item(memfd, 0, 16384)]));
  });
});
