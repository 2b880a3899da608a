import { describe, expect, test } from "vitest";
import type { DmaBuf, System } from "../../../src/index.ts";
import { MiB } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectRefusal, expectRejection } from "../../support/errors.ts";
import { deaf, watched } from "../../support/exporter.ts";
import { settle, slow } from "../../support/slow-exporter.ts";
import { TestClock } from "../../support/test-clock.ts";
import { watch } from "../../support/watch.ts";

describe.each(eachCore)("one limit over an asynchronous call on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 4 * MiB });
  const gpuOf = (system: System, name = "gpu") => system.addDevice({ name, iommu: true });

  test("the waits of mapAsync for the lock, the exporter and the fences share one timeout", async () => {
    const system = open();
    const clock = new TestClock();
    const { buf, gate } = slow(system, "map", { pins: true });
    const moving = buf.dynamicAttach(gpuOf(system), deaf);
    buf.resv.lock();
    const mapped = watch(moving.mapAsync("to-device", { timeoutMs: 10, clock }));
    await clock.advance(6);
    buf.resv.unlock(); // 6 of 10 are gone
    await settle();
    expect([mapped.code, buf.resv.isLocked]).toEqual(["pending", true]);
    await clock.advance(3);
    expect(mapped.code).toBe("pending");
    await clock.advance(1);
    expect(mapped.code).toBe("ETIME");
    gate.open();
    await settle();
    expect(clock.timerCount).toBe(0);
  });

  test("a fence gets what the exporter left of the timeout", async () => {
    const system = open();
    const clock = new TestClock();
    const { buf, calls, gate } = slow(system, "map");
    const attachment = buf.attach(gpuOf(system));
    buf.resv.addFence(system.fence("move"), "kernel");
    const mapped = watch(attachment.mapAsync("to-device", { timeoutMs: 10, clock }));
    await clock.advance(7);
    gate.open();
    await settle();
    expect([mapped.code, calls.at(-1)]).toEqual(["pending", "map gpu unlocked"]);
    await clock.advance(3);
    expect([mapped.code, calls.at(-1)]).toEqual(["ETIME", "unmap gpu unlocked"]);
    attachment.detach();
    buf.put();
    expect(system.check(true)).toBeNull();
  });

  test("an exporter that is late: the caller hears it in time, the mapping goes back under the lock", async () => {
    const system = open();
    const { buf, calls, gate } = slow(system, "map", { pins: true });
    const attachment = buf.dynamicAttach(gpuOf(system), deaf);
    await expectRejection("ETIME", attachment.mapAsync("to-device", { timeoutMs: 1 }));
    expect([buf.resv.isLocked, attachment.mapCount]).toEqual([true, 0]);
    expectRefusal(system, "EBUSY", () => attachment.detach());
    gate.open();
    await settle();
    expect(calls.slice(1)).toEqual(["map gpu locked", "unmap gpu locked"]);
    expect([buf.resv.isLocked, buf.stats().mapCount]).toEqual([false, 0]);
    attachment.detach();
    buf.put();
  });

  const waits: [string, "attach" | "pin" | "map" | "beginCpuAccess" | "vmap", string][] = [
    ["attachAsync", "attach", "detach gpu unlocked"],
    ["attachAsync", "pin", "detach gpu unlocked"],
    ["attachAsync", "map", "detach gpu unlocked"],
    ["pinAsync", "pin", "unpin gpu locked"],
    ["beginCpuAccessAsync", "beginCpuAccess", "end to-device unlocked"],
    ["vmapAsync", "vmap", "vunmap unlocked"],
  ];

  test.each(waits)(
    "an AbortSignal interrupts %s while the exporter's %s takes its time",
    async (call, which, undone) => {
      const system = open();
      const { buf, calls, gate } = slow(system, which, { pins: true });
      const abort = new AbortController();
      const before = buf.stats();
      const interrupted = callOf(buf, system, call)({ signal: abort.signal });
      await settle();
      abort.abort();
      await expectRejection("EINTR", interrupted);
      gate.open();
      await settle();
      expect(calls.at(-1)).toBe(undone);
      const now = buf.stats();
      expect([now.mapCount, now.pinCount, now.vmapCount, now.refCount]).toEqual([0, 0, 0, 1]);
      expect([buf.resv.isLocked, before.refCount]).toEqual([false, 1]);
      for (const one of buf.attachments) one.detach();
      buf.put();
      expect(system.check(true)).toBeNull();
    },
  );

  function callOf(buf: DmaBuf, system: System, call: string) {
    const calls: Record<string, (options: { signal: AbortSignal }) => Promise<unknown>> = {
      attachAsync: (options) => buf.attachAsync(gpuOf(system), options),
      pinAsync: (options) => buf.dynamicAttach(gpuOf(system), deaf).pinAsync(options),
      beginCpuAccessAsync: (options) => buf.beginCpuAccessAsync("to-device", options),
      vmapAsync: (options) => buf.vmapAsync(options),
    };
    return calls[call] as (options: { signal: AbortSignal }) => Promise<unknown>;
  }

  test("ends that are interrupted go on: the mapping, the pin and the kernel mapping end all the same", async () => {
    const system = open();
    for (const which of ["unmap", "unpin", "vunmap", "detach"] as const) {
      const { buf, gate } = slow(system, which, { pins: true });
      const attachment = buf.dynamicAttach(gpuOf(system), deaf);
      if (which === "unpin") await attachment.pinAsync();
      const soon = { timeoutMs: 1 };
      const ended = {
        unmap: () => attachment.unmapAsync(attachment.mapUnlocked("to-device"), soon),
        unpin: () => attachment.unpinAsync(soon),
        vunmap: () => buf.vunmapAsync(buf.vmap(), soon),
        detach: () => attachment.detachAsync(soon),
      }[which]();
      await expectRejection("ETIME", ended);
      gate.open();
      await settle();
      expect([buf.resv.isLocked, attachment.isDetached]).toEqual([false, which === "detach"]);
      if (which !== "detach") attachment.detach();
      buf.put();
    }
    expect(system.check(true)).toBeNull();
  });

  test("detachAsync waits for calls that were interrupted, detach does not", async () => {
    const system = open();
    for (const which of ["map", "unmap"] as const) {
      const { buf, calls, gate } = slow(system, which, { pins: true });
      const attachment = buf.dynamicAttach(gpuOf(system), deaf);
      const soon = { timeoutMs: 1 };
      if (which === "map") await expectRejection("ETIME", attachment.mapAsync("to-device", soon));
      else {
        const mapping = attachment.mapUnlocked("to-device");
        await expectRejection("ETIME", attachment.unmapAsync(mapping, soon));
      }
      expectRefusal(system, "EBUSY", () => attachment.detach());
      await expectRejection("ETIME", attachment.detachAsync(soon));
      gate.open();
      await settle();
      expect(attachment.isDetached).toBe(false); // it had not begun
      await attachment.detachAsync();
      expect(calls.slice(1)).toEqual(["map gpu locked", "unmap gpu locked", "detach gpu unlocked"]);
      buf.put();
    }
    expect(system.check(true)).toBeNull();
  });

  test("endCpuAccessAsync is interrupted; the exporter's end goes on", async () => {
    const system = open();
    const { buf, calls, gate } = slow(system, "endCpuAccess");
    await expectRejection("ETIME", buf.endCpuAccessAsync("to-device", { timeoutMs: 1 }));
    gate.open();
    await settle();
    expect(calls).toEqual(["end to-device unlocked"]);
  });

  test("a second vmapAsync waits for the first, and asks itself when that was given up", async () => {
    const system = open();
    const { buf, calls, gate } = slow(system, "vmap");
    const first = watch(buf.vmapAsync({ timeoutMs: 1 }));
    const second = buf.vmapAsync();
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(first.code).toBe("ETIME");
    gate.open();
    const mapping = await second;
    expect(calls).toEqual(["vmap unlocked", "vunmap unlocked", "vmap unlocked"]);
    buf.vunmap(mapping);
    buf.put();
  });

  test("whatever a call waited for, its error names the call and the timeout that was asked for", async () => {
    const system = open();
    const clock = new TestClock();
    const { buf, gate } = slow(system, "map", { info: { name: "shot" } });
    const attachment = buf.attach(gpuOf(system));
    const moving = system.fence("move");
    buf.resv.addFence(moving, "kernel");
    const late = expectRejection(
      "ETIME",
      attachment.mapAsync("to-device", { timeoutMs: 10, clock }),
    );
    await clock.advance(7);
    gate.open();
    await settle();
    await clock.advance(3);
    expect(await late).toBe("Cannot map shot for gpu: it is pending after 10 ms");
    const stop = new AbortController();
    const mapped = attachment.mapAsync("to-device", { signal: stop.signal });
    await settle();
    stop.abort();
    expect(await expectRejection("EINTR", mapped)).toBe(
      "Cannot map shot for gpu: the wait was aborted",
    );
    buf.resv.lock();
    const other = buf.attachAsync(gpuOf(system, "vpu"), { timeoutMs: 5 });
    expect(await expectRejection("ETIME", other)).toBe(
      "Cannot attach vpu to shot: it is pending after 5 ms",
    );
    buf.resv.unlock();
    const written = expectRejection(
      "ETIME",
      buf.beginCpuAccessAsync("to-device", { timeoutMs: 5 }),
    );
    expect(await written).toBe("Cannot begin CPU access to shot: it is pending after 5 ms");
    expect(clock.timerCount).toBe(0);
  });

  test("a negative timeout is EINVAL before the exporter hears of the call", async () => {
    const system = open();
    const calls: string[] = [];
    const buf = watched(system, calls, { pins: true });
    const attachment = buf.dynamicAttach(gpuOf(system), deaf);
    const bad = { timeoutMs: -1 };
    for (const call of [
      attachment.mapAsync("to-device", bad),
      attachment.pinAsync(bad),
      buf.attachAsync(gpuOf(system), bad),
      buf.beginCpuAccessAsync("to-device", bad),
      buf.vmapAsync(bad),
      attachment.detachAsync(bad),
    ])
      await expectRejection("EINVAL", call);
    expect(calls).toEqual(["attach gpu unlocked"]);
  });
});
