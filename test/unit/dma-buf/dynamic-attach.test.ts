import { describe, expect, test } from "vitest";
import type { Attachment, AttachOps, DmaBuf, System } from "../../../src/index.ts";
import { MiB } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRefusal } from "../../support/errors.ts";
import { deaf, watched } from "../../support/exporter.ts";

describe.each(eachCore)("dynamic attachments on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 8 * MiB });
  const gpuOf = (system: System, name = "gpu") => system.addDevice({ name, iommu: true });

  test("a static importer of a dynamic exporter is pinned and mapped at attach, until detach", () => {
    const system = open();
    const calls: string[] = [];
    const buf = watched(system, calls, { pins: true });
    const attachment = buf.attach(gpuOf(system));
    expect(calls).toEqual(["attach gpu unlocked", "pin gpu locked", "map gpu locked"]);
    expect(attachment.map("to-device")).toBe(attachment.map("from-device"));
    expect([attachment.mapCount, calls.length]).toEqual([2, 3]);
    attachment.detach(); // the mapping is the attachment's: nobody need unmap it
    expect(calls.slice(3)).toEqual(["unmap gpu locked", "unpin gpu locked", "detach gpu unlocked"]);
    buf.put();
    expect(system.check(true)).toBeNull();
  });

  test("a dynamic importer of a static exporter is mapped at attach, without the lock", () => {
    const system = open();
    const calls: string[] = [];
    const buf = watched(system, calls);
    const attachment = buf.dynamicAttach(gpuOf(system), deaf);
    expect(calls).toEqual(["attach gpu unlocked", "map gpu unlocked"]);
    expectRefusal(system, "EINVAL", () => attachment.map("to-device")); // needs the lock
    buf.resv.lock();
    const mapping = attachment.map("to-device");
    attachment.unmap(mapping);
    buf.resv.unlock();
    expectRefusal(system, "EINVAL", () => attachment.unmap(mapping));
    attachment.detach();
    expect(calls.slice(2)).toEqual(["unmap gpu unlocked", "detach gpu unlocked"]);
  });

  test("dynamic on both sides: plain map needs buf.resv held, mapUnlocked holds it", () => {
    const system = open();
    const calls: string[] = [];
    const buf = watched(system, calls, { pins: true });
    const attachment = buf.dynamicAttach(gpuOf(system), deaf);
    expect(expectRefusal(system, "EINVAL", () => attachment.map("to-device"))).toContain("lock");
    const mapping = attachment.mapUnlocked("to-device");
    const late = gpuOf(system, "late");
    expect(buf.resv.isLocked).toBe(false);
    expectRefusal(system, "EINVAL", () => attachment.unmap(mapping));
    buf.resv.lock();
    expectRefusal(system, "EAGAIN", () => attachment.mapUnlocked("to-device"));
    expectRefusal(system, "EAGAIN", () => attachment.unmapUnlocked(mapping));
    expectRefusal(system, "EAGAIN", () => buf.attach(late));
    attachment.unmap(mapping);
    expectRefusal(system, "EAGAIN", () => attachment.detach());
    buf.resv.unlock();
    attachment.detach();
    expect(calls).toEqual([
      "attach gpu unlocked",
      "map gpu locked",
      "unmap gpu locked",
      "detach gpu unlocked",
    ]);
  });

  test("pin and unpin need a dynamic importer and the lock, are counted, and keep it attached", () => {
    const system = open();
    const calls: string[] = [];
    const buf = watched(system, calls, { pins: true });
    const attachment = buf.dynamicAttach(gpuOf(system), deaf);
    expectRefusal(system, "EINVAL", () => attachment.pin());
    buf.resv.lock();
    attachment.pin();
    attachment.pin();
    buf.resv.unlock();
    expect([attachment.pinCount, calls.slice(1)]).toEqual([
      2,
      ["pin gpu locked", "pin gpu locked"],
    ]);
    expectRefusal(system, "EBUSY", () => attachment.detach());
    expectRefusal(system, "EINVAL", () => attachment.unpin());
    buf.resv.lock();
    attachment.unpin();
    attachment.unpin();
    expectRefusal(system, "EINVAL", () => attachment.unpin());
    buf.resv.unlock();
    const still = buf.attach(gpuOf(system, "still"));
    buf.resv.lock();
    expectRefusal(system, "EINVAL", () => still.pin());
    buf.resv.unlock();
  });

  test("moveNotify reaches dynamic importers, the latest first, with the lock held", () => {
    const system = open();
    const calls: string[] = [];
    const buf = watched(system, calls, { pins: true });
    const heard: string[] = [];
    const listening: AttachOps = {
      moveNotify: ({ device }) => void heard.push(`${device.name} ${buf.resv.isLocked}`),
    };
    buf.attach(gpuOf(system, "still"));
    for (const name of ["first", "second"]) buf.dynamicAttach(gpuOf(system, name), listening);
    expectRefusal(system, "EINVAL", () => buf.moveNotify());
    buf.resv.lock();
    buf.moveNotify();
    buf.resv.unlock();
    expect(heard).toEqual(["second true", "first true"]);
  });

  test("an importer may unmap inside moveNotify, and one that detaches is told no more", () => {
    const system = open();
    const buf = watched(system, [], { pins: true });
    const importer = { moveNotify: (one: Attachment) => one.unmap(mapping) };
    const attachment = buf.dynamicAttach(gpuOf(system), importer);
    const mapping = attachment.mapUnlocked("to-device");
    buf.resv.lock();
    buf.moveNotify();
    buf.resv.unlock();
    expect(attachment.mapCount).toBe(0);
    attachment.detach();
    buf.put();
  });

  test("peer-to-peer is what the importer allows, unless the exporter's attach clears it", () => {
    const system = open();
    const seen: boolean[] = [];
    const attach = (_: DmaBuf, attachment: Attachment): void => {
      seen.push(attachment.peer2peer);
      if (attachment.device.name === "refused") attachment.peer2peer = false;
    };
    const buf = watched(system, [], { ops: { attach } });
    const peer = { ...deaf, allowPeer2Peer: true };
    const flags = ["allowed", "refused"].map(
      (name) => buf.dynamicAttach(gpuOf(system, name), peer).peer2peer,
    );
    expect([buf.attach(gpuOf(system)).peer2peer, ...flags]).toEqual([false, true, false]);
    expect(seen).toEqual([true, true, false]);
  });

  test.each([
    ["ops without moveNotify", {}],
    ["a moveNotify that is no function", { moveNotify: 1 }],
    ["undefined", undefined],
  ])("dynamicAttach with %s is EINVAL; with null it is attach", (_, importerOps) => {
    const system = open();
    const [buf, gpu] = [watched(system, []), gpuOf(system)];
    expectRefusal(system, "EINVAL", () =>
      buf.dynamicAttach(gpu, importerOps as unknown as AttachOps),
    );
    const attachment = buf.dynamicAttach(gpu, null);
    expect(attachment.isDynamic).toBe(false);
  });

  test("when pin or map fails at attach, what was done is undone in reverse", () => {
    const system = open();
    const boom = (): never => {
      throw new Error("boom");
    };
    const calls: string[] = [];
    const noPin = watched(system, calls, { pins: true, ops: { pin: boom } });
    expect(() => noPin.attach(gpuOf(system))).toThrow("boom");
    expect(calls).toEqual(["attach gpu unlocked", "detach gpu unlocked"]);
    calls.length = 0;
    const noMap = watched(system, calls, { pins: true, ops: { map: boom } });
    expect(() => noMap.attach(gpuOf(system))).toThrow("boom");
    expect(calls.slice(1)).toEqual(["pin gpu locked", "unpin gpu locked", "detach gpu unlocked"]);
    for (const buf of [noPin, noMap]) {
      expect([buf.attachments.length, buf.resv.isLocked]).toEqual([0, false]);
      buf.put();
    }
  });

  test("cacheSgtMapping keeps the first mapping: other directions are EBUSY unless it has both", () => {
    const system = open();
    const calls: string[] = [];
    const buf = watched(system, calls, { ops: { cacheSgtMapping: true } });
    const attachment = buf.attach(gpuOf(system));
    const mapping = attachment.map("to-device");
    expect(attachment.map("to-device")).toBe(mapping);
    expectRefusal(system, "EBUSY", () => attachment.map("bidirectional"));
    attachment.unmap(mapping);
    attachment.unmap(mapping);
    expectRefusal(system, "EINVAL", () => attachment.unmap(mapping));
    expect([mapping.isEnded, attachment.map("to-device")]).toEqual([false, mapping]);
    attachment.detach();
    expect([mapping.isEnded, calls]).toEqual([
      true,
      ["attach gpu unlocked", "map gpu unlocked", "unmap gpu unlocked", "detach gpu unlocked"],
    ]);
  });

  test("a callback that runs with the lock held cannot attach: EDEADLK", () => {
    const system = open();
    const errors: string[] = [];
    const late = gpuOf(system, "late");
    const buf = watched(system, [], {
      ops: {
        pin: ({ buf: self }) => void errors.push(expectError("EDEADLK", () => self.attach(late))),
        unpin: () => {},
      },
    });
    buf.attach(gpuOf(system));
    expect(errors).toHaveLength(1);
  });
});
