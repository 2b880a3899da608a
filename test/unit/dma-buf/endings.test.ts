import { describe, expect, test } from "vitest";
import type { System } from "../../../src/index.ts";
import { MiB } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRefusal, expectRejection } from "../../support/errors.ts";
import { deaf, watched } from "../../support/exporter.ts";
import { settle, slow } from "../../support/slow-exporter.ts";

describe.each(eachCore)("exporters that end asynchronously on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 4 * MiB });
  const gpuOf = (system: System, name = "gpu") => system.addDevice({ name, iommu: true });

  test("unmapAsync resolves when the exporter has ended the mapping, which is there until then", async () => {
    const system = open();
    const { buf, calls, gate } = slow(system, "unmap");
    const attachment = buf.attach(gpuOf(system));
    const mapping = attachment.map("to-device");
    const ended = attachment.unmapAsync(mapping);
    await settle();
    expect([attachment.mapCount, buf.stats().mapCount, calls.length]).toEqual([1, 1, 2]);
    expectRefusal(system, "EALREADY", () => attachment.unmap(mapping));
    expectRefusal(system, "EBUSY", () => attachment.detach());
    await expectRejection("EALREADY", attachment.unmapAsync(mapping));
    gate.open();
    await ended;
    expect(calls.filter((call) => call === "unmap gpu unlocked")).toHaveLength(1);
    expect([attachment.mapCount, buf.stats().mapCount]).toEqual([0, 0]);
    await expectRejection("EINVAL", attachment.unmapAsync(mapping));
    attachment.detach();
    buf.put();
    expect(system.check(true)).toBeNull();
  });

  test("a sync unmap is EWOULDBLOCK and changes nothing; what the exporter began goes on", async () => {
    const system = open();
    const { buf, calls, gate } = slow(system, "unmap", { pins: true });
    const attachment = buf.dynamicAttach(gpuOf(system), deaf);
    const mapping = attachment.mapUnlocked("to-device");
    expectRefusal(system, "EWOULDBLOCK", () => attachment.unmapUnlocked(mapping));
    expect([attachment.mapCount, buf.resv.isLocked, mapping.nents]).toEqual([1, false, 1]);
    expectRefusal(system, "EALREADY", () => attachment.unmapUnlocked(mapping));
    expectRefusal(system, "EBUSY", () => attachment.detach());
    const ended = attachment.unmapAsync(mapping); // takes it over
    await expectRejection("EALREADY", attachment.unmapAsync(mapping));
    gate.open();
    await ended;
    expect(calls.filter((call) => call.startsWith("unmap"))).toHaveLength(1);
    expect(attachment.mapCount).toBe(0);
    attachment.detach();
    buf.put();
    expect(system.check(true)).toBeNull();
  });

  test("an end that fails leaves the mapping, the pin and the kernel mapping as they were", async () => {
    const system = open();
    for (const which of ["unmap", "unpin", "vunmap"] as const) {
      const { buf, gate } = slow(system, which, { pins: true });
      const attachment = buf.dynamicAttach(gpuOf(system), deaf);
      const mapping = attachment.mapUnlocked("to-device");
      await attachment.pinAsync();
      const vmapping = buf.vmap();
      const before = buf.stats();
      const ended = {
        unmap: () => attachment.unmapAsync(mapping),
        unpin: () => attachment.unpinAsync(),
        vunmap: () => buf.vunmapAsync(vmapping),
      }[which]();
      gate.fail(new Error("lost"));
      await expect(ended).rejects.toThrow("lost");
      expect([buf.stats(), buf.resv.isLocked]).toEqual([before, false]);
      expect(vmapping.bytes.length).toBe(4096); // shown again
    }
  });

  test("unpinAsync holds the lock and takes one pin; sync unpin is EWOULDBLOCK and joined", async () => {
    const system = open();
    const { buf, calls, gate } = slow(system, "unpin", { pins: true });
    const attachment = buf.dynamicAttach(gpuOf(system), deaf);
    await attachment.pinAsync();
    await attachment.pinAsync();
    const ended = attachment.unpinAsync();
    await settle();
    expect([buf.resv.isLocked, attachment.pinCount]).toEqual([true, 2]);
    gate.open();
    await ended;
    expect([buf.resv.isLocked, attachment.pinCount]).toEqual([false, 1]);
    buf.resv.lock();
    expectError("EWOULDBLOCK", () => attachment.unpin());
    expectError("EALREADY", () => attachment.unpin());
    expect(attachment.pinCount).toBe(1);
    buf.resv.unlock();
    await attachment.unpinAsync();
    expect(attachment.pinCount).toBe(0);
    expect(calls.filter((call) => call.startsWith("unpin"))).toHaveLength(2);
    await expectRejection("EINVAL", attachment.unpinAsync());
    attachment.detach();
    buf.put();
  });

  test("two unpinAsync take two pins, one after the other", async () => {
    const system = open();
    const { buf, calls, gate } = slow(system, "unpin", { pins: true });
    const attachment = buf.dynamicAttach(gpuOf(system), deaf);
    await attachment.pinAsync();
    await attachment.pinAsync();
    const both = Promise.all([attachment.unpinAsync(), attachment.unpinAsync()]);
    gate.open();
    await both;
    expect([
      attachment.pinCount,
      calls.filter((call) => call === "unpin gpu locked").length,
    ]).toEqual([0, 2]);
  });

  test("detachAsync waits for the lock and the exporter; the buffer is not released before", async () => {
    const system = open();
    const { buf, calls, gate } = slow(system, "detach");
    const attachment = buf.attach(gpuOf(system));
    buf.resv.lock();
    const detached = attachment.detachAsync();
    await settle();
    expect([attachment.isDetached, buf.attachments.length]).toEqual([false, 1]);
    expectRefusal(system, "EALREADY", () => attachment.detach());
    await expectRejection("EALREADY", attachment.detachAsync());
    expectRefusal(system, "EINVAL", () => attachment.map("to-device"));
    buf.resv.unlock();
    await settle();
    expect([attachment.isDetached, buf.attachments.length]).toEqual([true, 0]);
    expectRefusal(system, "EBUSY", () => buf.put());
    expectRefusal(system, "EINVAL", () => attachment.detach());
    await expectRejection("EINVAL", attachment.detachAsync());
    gate.open();
    await detached;
    expect(calls).toEqual(["attach gpu unlocked", "detach gpu unlocked"]);
    await expectRejection("EINVAL", attachment.detachAsync());
    buf.put();
    expect(system.check(true)).toBeNull();
  });

  test("a sync detach whose exporter answers later is EWOULDBLOCK, and has taken place", async () => {
    const system = open();
    const { buf, gate } = slow(system, "detach");
    const attachment = buf.attach(gpuOf(system));
    expectError("EWOULDBLOCK", () => attachment.detach());
    expect([attachment.isDetached, buf.attachments.length]).toEqual([true, 0]);
    expectRefusal(system, "EBUSY", () => buf.put());
    const ended = attachment.detachAsync();
    gate.open();
    await ended;
    buf.put();
  });

  test("a detach that could not lock in time leaves the attachment as it was", async () => {
    const system = open();
    const buf = watched(system, [], { pins: true });
    const attachment = buf.attach(gpuOf(system)); // keeps a mapping
    buf.resv.lock();
    await expectRejection("ETIME", attachment.detachAsync({ timeoutMs: 1 }));
    await expectRejection("EINTR", attachment.detachAsync({ signal: AbortSignal.abort() }));
    buf.resv.unlock();
    expect([attachment.isDetached, attachment.isKeepingMapping]).toEqual([false, true]);
    attachment.unmap(attachment.map("to-device"));
    await attachment.detachAsync();
    buf.put();
    expect(system.check(true)).toBeNull();
  });

  describe.each(["unmap", "unpin"] as const)("a kept mapping whose %s answers later", (which) => {
    const calls = (all: string[]) => all.slice(all.indexOf("unmap gpu locked"));
    const ends = ["unmap gpu locked", "unpin gpu locked", "detach gpu unlocked"];

    test("is ended by detachAsync, in order and under the lock", async () => {
      const system = open();
      const slowly = slow(system, which, { pins: true });
      const attachment = slowly.buf.attach(gpuOf(system));
      attachment.map("to-device");
      const detached = attachment.detachAsync();
      await settle();
      expect(slowly.buf.resv.isLocked).toBe(true);
      slowly.gate.open();
      await detached;
      expect(calls(slowly.calls)).toEqual(ends);
      expect([slowly.buf.stats().mapCount, slowly.buf.resv.isLocked]).toEqual([0, false]);
      slowly.buf.put();
      expect(system.check(true)).toBeNull();
    });

    test("makes detach EWOULDBLOCK, and detachAsync goes on from there", async () => {
      const system = open();
      const slowly = slow(system, which, { pins: true });
      const attachment = slowly.buf.attach(gpuOf(system));
      expectError("EWOULDBLOCK", () => attachment.detach());
      expectRefusal(system, "EALREADY", () => attachment.detach());
      expectRefusal(system, "EINVAL", () => attachment.map("to-device"));
      expect(attachment.isDetached).toBe(false);
      slowly.gate.open();
      await attachment.detachAsync();
      expect(calls(slowly.calls)).toEqual(ends);
      slowly.buf.put();
      expect(system.check(true)).toBeNull();
    });
  });

  test("a dynamic importer's kept mapping ends without the lock, and the detach goes on after a timeout", async () => {
    const system = open();
    const { buf, calls, gate } = slow(system, "unmap");
    const attachment = buf.dynamicAttach(gpuOf(system), deaf);
    await expectRejection("ETIME", attachment.detachAsync({ timeoutMs: 1 }));
    expect([attachment.isDetached, buf.resv.isLocked]).toEqual([false, false]);
    await expectRejection("EALREADY", attachment.detachAsync());
    gate.open();
    await settle();
    expect(attachment.isDetached).toBe(true);
    expect(calls.slice(-2)).toEqual(["unmap gpu unlocked", "detach gpu unlocked"]);
    buf.put();
  });

  test("vunmapAsync ends the kernel mapping for the last user; vmap waits until it has ended", async () => {
    const system = open();
    const { buf, calls, gate } = slow(system, "vunmap");
    const mapping = buf.vmap();
    expect(buf.vmap()).toBe(mapping);
    await buf.vunmapAsync(mapping); // not the last one: nobody is asked
    expect(buf.vmapCount).toBe(1);
    const ended = buf.vunmapAsync(mapping);
    expectRefusal(system, "EAGAIN", () => buf.vmap());
    expectRefusal(system, "EALREADY", () => buf.vunmap(mapping));
    expectRefusal(system, "EBUSY", () => buf.put());
    const next = buf.vmapAsync();
    gate.open();
    await ended;
    const second = await next;
    expect([second === mapping, mapping.isMapped, buf.vmapCount]).toEqual([false, false, 1]);
    expect(calls).toEqual(["vmap unlocked", "vunmap unlocked", "vmap unlocked"]);
    expectError("EWOULDBLOCK", () => buf.vunmap(second));
    await buf.vunmapAsync(second);
    await expectRejection("EINVAL", buf.vunmapAsync(second));
    buf.put();
    expect(system.check(true)).toBeNull();
  });

  test("the async forms serve exporters that end at once, too", async () => {
    const system = open();
    const calls: string[] = [];
    const buf = watched(system, calls, { pins: true });
    const attachment = await buf.dynamicAttachAsync(gpuOf(system), deaf);
    const mapping = await attachment.mapAsync("to-device");
    await attachment.pinAsync();
    await attachment.unmapAsync(mapping, { direction: "bidirectional" });
    await attachment.unpinAsync();
    await attachment.detachAsync();
    await buf.vunmapAsync(await buf.vmapAsync());
    buf.put();
    expect(calls.slice(3)).toEqual([
      "unmap gpu locked",
      "unpin gpu locked",
      "detach gpu unlocked",
      "vmap unlocked",
      "vunmap unlocked",
      "release unlocked",
    ]);
    expect(system.check(true)).toBeNull();
  });

  test("what undoes a late or failed call may answer later, or fail, and nobody is told", async () => {
    const system = open();
    const late = slow(system, "map", { pins: true, ops: { unmap: async () => Promise.reject(1) } });
    const attachment = late.buf.dynamicAttach(gpuOf(system), deaf);
    expectError("EWOULDBLOCK", () => attachment.mapUnlocked("to-device"));
    late.gate.open();
    await settle();
    const attaching = slow(system, "attach", { ops: { detach: () => Promise.reject(2) } });
    expectError("EWOULDBLOCK", () => attaching.buf.attach(gpuOf(system)));
    attaching.gate.open();
    await settle();
    expect([late.buf.resv.isLocked, attaching.buf.attachments]).toEqual([false, []]);
  });
});
