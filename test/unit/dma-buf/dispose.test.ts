import { describe, expect, test } from "vitest";
import { FRAME_BYTES, MiB } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError } from "../../support/errors.ts";
import { deaf, watched } from "../../support/exporter.ts";

describe.each(eachCore)("using mappings on the $name core", (build) => {
  const open = () => {
    const system = build.system({ memoryBytes: 8 * MiB });
    return { system, gpu: system.addDevice({ name: "gpu", iommu: true }) };
  };

  test("a block's attachment and mapping end in order, and its error is the one that is seen", () => {
    const { system, gpu } = open();
    const buf = system.heap("system").alloc(FRAME_BYTES);
    const work = (): void => {
      using attachment = buf.attach(gpu);
      using mapping = attachment.map("to-device");
      expect(mapping.isEnded).toBe(false);
      throw new Error("the first");
    };
    expect(work).toThrow("the first");
    expect(buf.attachments).toEqual([]);
    buf.put();
    gpu.remove();
    expect(system.check(true)).toBeNull();
  });

  test("what was unmapped already is left alone", () => {
    const { system, gpu } = open();
    const buf = system.heap("system").alloc(FRAME_BYTES);
    const attachment = buf.attach(gpu);
    {
      using mapping = attachment.map("to-device");
      attachment.unmap(mapping);
    }
    expect(attachment.mapCount).toBe(0);
    attachment.detach();
    buf.put();
  });

  test("a kept mapping is given back once for each map()", () => {
    const { system, gpu } = open();
    const calls: string[] = [];
    const buf = watched(system, calls, { pins: true });
    const attachment = buf.attach(gpu); // keeps a mapping
    {
      using one = attachment.map("to-device");
      using other = attachment.map("from-device");
      expect(one).toBe(other);
      expect(attachment.mapCount).toBe(2);
    }
    expect(attachment.mapCount).toBe(0);
    const kept = attachment.map("to-device");
    attachment.unmap(kept);
    kept[Symbol.dispose](); // nobody's
    expect([attachment.mapCount, kept.isEnded]).toEqual([0, false]);
    expect(calls.filter((call) => call.startsWith("unmap"))).toEqual([]);
    attachment.detach();
    expect(kept.isEnded).toBe(true);
    kept[Symbol.dispose]();
    buf.put();
  });

  test("a dynamic importer's mapping takes the lock if nobody has it", () => {
    const { system, gpu } = open();
    const buf = watched(system, [], { pins: true });
    const attachment = buf.dynamicAttach(gpu, deaf);
    {
      using _unlocked = attachment.mapUnlocked("to-device");
    }
    expect(attachment.mapCount).toBe(0);
    buf.resv.lock();
    {
      using _locked = attachment.map("to-device");
    }
    expect([attachment.mapCount, buf.resv.isLocked]).toEqual([0, true]);
    buf.resv.unlock();
    attachment.detach();
    buf.put();
  });

  test("the kernel mapping has one user less", () => {
    const { system } = open();
    const buf = system.heap("system").alloc(FRAME_BYTES);
    {
      using one = buf.vmap();
      using other = buf.vmap();
      expect([one === other, buf.vmapCount]).toEqual([true, 2]);
    }
    expect(buf.vmapCount).toBe(0);
    {
      using done = buf.vmap();
      buf.vunmap(done);
    }
    buf.put();
    expect(system.check(true)).toBeNull();
  });

  test("a device's own mappings end by their kind, its memory's with the memory", () => {
    const { system, gpu } = open();
    const range = system.frames.alloc(2);
    const table = system.sgTableFromRange(range.pfn, 2);
    {
      using _page = gpu.dma.mapPage(range.pfn, 0, FRAME_BYTES, "to-device");
      using _list = gpu.dma.mapSg([table.cpu(0)], "to-device");
      using _table = gpu.dma.mapSgtable(table, "to-device");
      using _registers = gpu.dma.mapResource(2 ** 40, 100, "to-device");
      expectError("EBUSY", () => gpu.remove());
    }
    const memory = gpu.dma.allocCoherent(FRAME_BYTES);
    memory.mapping[Symbol.dispose]();
    expect(memory.mapping.isEnded).toBe(false);
    memory.free();
    table.free();
    range.free();
    gpu.remove();
    expect(system.check(true)).toBeNull();
  });
});
