import { describe, expect, test } from "vitest";
import { GiB, LockedVm, MiB, type Movable, UserRange } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRefusal } from "../../support/errors.ts";
import { headerWords } from "../../support/header.ts";

const strange: [string, unknown][] = [
  ["a symbol", Symbol("4")],
  ["an object without a prototype", Object.create(null)],
  ["a text", "4"],
  ["a bigint", 4n],
  ["a list", [4]],
];

describe.each(eachCore)("what refused memory says on the $name core", (build) => {
  test.each(strange)("%s is no number: EINVAL, and what it is", (_, value) => {
    const system = build.system({ memoryBytes: 16 * MiB, cma: { default: 4 * MiB } });
    const movable = system.movable(1);
    const range = new UserRange([system.movable(1)]);
    const number = value as number;
    for (const call of [
      () => system.frames.alloc(number),
      () => system.frames.alloc(1, { alignOrder: number }),
      () => system.frames.alloc(1, { type: value as "unmovable" }),
      () => system.frames.allocAt(number, 1),
      () => system.frames.allocAt(2000, number),
      () => system.region("default").alloc(number),
      () => system.region("default").alloc(1, { alignOrder: number }),
      () => system.movable(number),
      () => movable.read(new Uint8Array(1), number),
      () => movable.write(new Uint8Array(1), number),
      () => range.unmap(number),
      () => new LockedVm(number),
      () => new LockedVm(9).account(number),
      () => new LockedVm(9).unaccount(number),
      () => build.system({ memoryBytes: number }),
      () => build.system({ onMisuse: value as () => void }),
    ])
      expectRefusal(system, "EINVAL", call);
    expectRefusal(system, "ENOENT", () => system.region(value as string));
    expect(range.page(number)).toBeNull();
  });

  test("a text is told from the number it spells", () => {
    const system = build.system({ memoryBytes: 16 * MiB });
    const call = () => system.frames.alloc("4" as unknown as number);
    expect(expectRefusal(system, "EINVAL", call)).toContain('1 to 1024, and is "4"');
  });

  test("frames.alloc(): what was asked, and the largest run", () => {
    const system = build.system({ memoryBytes: 16 * MiB, physicalBase: 4 * GiB - 8 * MiB });
    const low = [system.frames.alloc(1, { maskBits: 32 })];
    try {
      for (;;) low.push(system.frames.alloc(1, { maskBits: 32 }));
    } catch {}
    low.find(({ pfn }) => pfn % 2 === 0)?.free();
    const message = (options: object) =>
      expectRefusal(system, "ENOMEM", () => system.frames.alloc(8, options));
    expect(message({ maskBits: 32, alignOrder: 4 })).toContain(
      "it needs a block of 16 free frames at a multiple of 16 within 32 address bits; " +
        "the largest free run, wherever it begins, is 2048 frames (8 MiB)",
    );
    expect(system.frames.alloc(8, { maskBits: 33 }).pfn).toBeGreaterThanOrEqual(2048);
    for (const range of low.slice(3, 5)) range.free();
    expect(message({ maskBits: 32 })).toContain("of 8 free frames at a multiple of 8 within 32");
  });

  test("frames.allocAt(): which frame is in the way, and why", () => {
    const system = build.system({ memoryBytes: 16 * MiB, cma: { default: 4 * MiB } });
    const pinned = system.movable(1).pin({ longterm: true });
    const [pfn] = pinned.pfns as [number];
    const at = (first: number, count: number) =>
      expectRefusal(system, "EBUSY", () => system.frames.allocAt(first, count));
    expect(at(pfn, 1)).toContain(`frame ${pfn} is movable memory that is pinned`);
    const held = system.frames.allocAt(1030, 2);
    expect(at(1026, 100)).toContain("frame 1030 is in use");
    held.free();
    expect(at(system.region("default").basePfn, 4)).toContain("reach into a CMA region");
  });

  test("region.alloc(): that no run begins where it must", () => {
    const system = build.system({ memoryBytes: 16 * MiB, cma: { default: 4 * MiB } });
    const region = system.region("default");
    const first = region.alloc(1);
    const message = (count: number, alignOrder: number) =>
      expectRefusal(system, "ENOMEM", () => region.alloc(count, { alignOrder }));
    expect(message(513, 9)).toContain(
      "1 of 1024 frames are used, the largest free run is 1023 frames (4 MiB), " +
        "but none holds 513 frames from a multiple of 2 MiB on",
    );
    expect(message(1024, 9)).not.toContain("multiple");
    first.free();
    region.alloc(1024, { alignOrder: 10 }).free();
  });

  test("region.alloc(): that movable memory has nowhere to go", () => {
    const system = build.system({ memoryBytes: 16 * MiB, cma: { default: 8 * MiB } });
    const region = system.region("default");
    const movables: Movable[] = [];
    for (const [take, count] of [
      [(n: number) => void movables.push(system.movable(n)), 64],
      [(n: number) => void movables.push(system.movable(n)), 1],
      [(n: number) => void system.frames.alloc(n), 1],
    ] as const)
      try {
        for (;;) take(count);
      } catch {}
    expect(region.stats().lentFrames).toBe(2048);
    const message = expectError("ENOMEM", () => region.alloc(10));
    expect(message).toContain("movable memory has borrowed frames there");
    for (const movable of movables) movable.free();
    region.alloc(10);
  });

  test("a heap of a region: what the buffer needs, and where", () => {
    const system = build.system({ memoryBytes: 16 * MiB, cma: { camera: 4 * MiB } });
    system.region("camera").alloc(1);
    const call = () => system.heap("camera").alloc(4 * MiB, { name: "frame 7" });
    expect(expectRefusal(system, "ENOMEM", call)).toContain(
      "Cannot place frame 7: it needs 4 MiB in one run of camera, and 1 of 1024 frames are used",
    );
    const at = () => system.frames.allocAt(0, 1);
    expect(expectRefusal(system, "EBUSY", at)).toContain("Cannot allocate 1 frame at 0: frame 0");
  });

  test("region.alloc(): pins as runs of frames, and room in whole units", () => {
    const cma = { default: { sizeBytes: 4 * MiB, orderPerBit: 4 } };
    const system = build.system({ memoryBytes: 8 * MiB, cma });
    const region = system.region("default");
    const [low, high] = [system.movable(100), system.movable(600)].map((one) => one.pin());
    const pfns = [...(low?.pfns ?? []), ...(high?.pfns ?? [])].filter(
      (pfn) => pfn >= region.basePfn,
    );
    const [first, last] = [Math.min(...pfns), Math.max(...pfns)];
    expect(pfns.length).toBe(last - first + 1);
    const message = expectRefusal(system, "EBUSY", () => region.alloc(1024));
    expect(message).toContain(`in the way: ${first} to ${last}; unpin them`);
    const room = Math.floor((first - region.basePfn) / 16) * 16;
    expect(message).toContain(`without one is ${room} frames (`);
    region.alloc(room).free();
  });

  test("system.movable(): what is free outside the regions, and kept", () => {
    const system = build.system({ memoryBytes: 4 * MiB });
    const message = expectRefusal(system, "ENOMEM", () => system.movable(1000));
    const { core } = system;
    const free = core.word(core.exports.HEADER_AT.value, headerWords.freeFrames);
    expect(message).toContain("it needs 1000 frames and, outside the CMA regions, 1 more");
    expect(message).toContain(`${free} are free outside, of which ${Math.sqrt(4096)} are kept`);
    expect(system.stats().freeFrames - free).toBeLessThan(4); // few wait with the thread
  });

  test("sg tables: what of the arguments is wrong", () => {
    const system = build.system({ memoryBytes: 8 * MiB });
    const { pfn } = system.frames.alloc(2);
    const movable = system.movable(1).pin().pfns[0] as number;
    const rows: [() => unknown, "EINVAL" | "ENOENT", string][] = [
      [() => system.sgTableFromFrames([]), "EINVAL", "the list has no frame"],
      [
        () => system.sgTableFromFrames([pfn], { maxSegmentBytes: 9 }),
        "EINVAL",
        "4096 or more, and is 9",
      ],
      [
        () => system.sgTableFromFrames([pfn], { offset: 4096 }),
        "EINVAL",
        "must lie in the first frame",
      ],
      [
        () => system.sgTableFromFrames([pfn], { lengthBytes: 0 }),
        "EINVAL",
        "must be 1 or more, and is 0",
      ],
      [
        () => system.sgTableFromFrames([pfn], { offset: 9, lengthBytes: 4088 }),
        "EINVAL",
        "4088 bytes from 9 on do not fit into 1 frame",
      ],
      [() => system.sgTableFromRange(pfn, 0), "EINVAL", "frameCount must be an integer from 1"],
      [
        () => system.sgTableFromRange(pfn, 2, 4095),
        "EINVAL",
        "maxSegmentBytes must be an integer from 40",
      ],
      [() => system.sgTableFromList([]), "EINVAL", "it names no segment"],
      [
        () => system.sgTableFromList([{ pfn, offset: 0, lengthBytes: 0 }]),
        "EINVAL",
        "a segment is empty",
      ],
      [
        () => system.sgTableFromRange(2047, 2),
        "EINVAL",
        "one of frames 2047 to 2048 is no frame with",
      ],
      [
        () => system.sgTableFromRange(movable, 1),
        "ENOENT",
        `frame ${movable} is not handed out as a r`,
      ],
    ];
    for (const [call, code, words] of rows)
      expect(expectRefusal(system, code, call)).toContain(words);
  });

  test("a range whose frames somebody gave back past it says so", () => {
    const system = build.system({ memoryBytes: 8 * MiB });
    const range = system.frames.alloc(2);
    system.core.exports.frameFree(range.pfn, 1);
    expect(expectRefusal(system, "ENOENT", () => range.pin())).toContain(
      "given back past the range",
    );
  });

  test("a user range owns its pages alone, and lets go of what others freed", () => {
    const system = build.system({ memoryBytes: 8 * MiB });
    const free = system.stats().freeFrames;
    const [one, two, gone] = [1, 2, 3].map(() => system.movable(1)) as [never, never, never];
    const large = system.movable(2);
    expectRefusal(system, "EINVAL", () => new UserRange([one, two, one]));
    expectRefusal(system, "EINVAL", () => new UserRange([one, large]));
    const range = new UserRange([one, null, gone]);
    expectRefusal(system, "EINVAL", () => new UserRange([two, one]));
    (gone as { free(): void }).free();
    expectRefusal(system, "ESTALE", () => new UserRange([gone]));
    range.unmap();
    new UserRange([two]).unmap();
    large.free();
    expect(system.stats().freeFrames).toBe(free);
  });
});
