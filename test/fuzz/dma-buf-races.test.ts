/**
 * Importers whose calls overlap, on an exporter that answers every callback later: fast-check
 * chooses the order of the answers, and when calls are interrupted. Whatever that order is, what
 * the exporter gave it gets back once, under the lock that it relies on, and all is released in the
 * end.
 */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Attachment, DmaBuf, System } from "../../src/index.ts";
import { DmaBufError, MiB } from "../../src/index.ts";
import { eachCore } from "../support/cores.ts";
import { deaf, watched } from "../support/exporter.ts";
import { settle } from "../support/slow-exporter.ts";

const RUNS = 40;

/** Ops that a dynamic exporter relies on the lock for, from its call to its answer. */
const LOCKED = ["pin", "unpin", "map", "unmap"];
/** What gives, and what takes it back. */
const PAIRS: readonly [string, string][] = [
  ["attach", "detach"],
  ["pin", "unpin"],
  ["map", "unmap"],
  ["vmap", "vunmap"],
  ["beginCpuAccess", "endCpuAccess"],
];

/** How a call is interrupted. */
type Interrupt = { readonly signal?: AbortSignal };

/** What one importer does. `abortAt`: which of its calls are interrupted. */
interface Script {
  readonly isDynamic: boolean;
  readonly mapCount: number;
  readonly pins: boolean;
  readonly vmaps: boolean;
  readonly begins: boolean;
  readonly abortAt: readonly number[];
}

/** An exporter all of whose answers wait for the scheduler. */
class RacingBuffer {
  readonly buf: DmaBuf;
  /** Answers less answers taken back, by what gave them. */
  readonly balance: Map<string, number> = new Map();
  readonly faults: string[] = [];

  constructor(system: System, pins: boolean, scheduler: fc.Scheduler) {
    this.buf = watched(system, [], { pins, frames: 2 });
    const ops = this.buf.priv as Record<string, (...args: unknown[]) => unknown>;
    for (const [give, take] of PAIRS) {
      for (const [name, change] of [[give, 1] as const, [take, -1] as const]) {
        const op = ops[name];
        if (op !== undefined) ops[name] = this.#racing(name, op, give, change, scheduler);
      }
    }
  }

  #racing(
    name: string,
    op: (...args: unknown[]) => unknown,
    give: string,
    change: 1 | -1,
    scheduler: fc.Scheduler,
  ): (...args: unknown[]) => Promise<unknown> {
    return async (...args) => {
      this.#requireLock(`${name} begins`, name);
      await scheduler.schedule(Promise.resolve(), name);
      this.#requireLock(`${name} ends`, name);
      const result = op(...args);
      this.balance.set(give, (this.balance.get(give) ?? 0) + change);
      return result;
    };
  }

  #requireLock(when: string, name: string): void {
    const { buf } = this;
    if (buf.isDynamic && LOCKED.includes(name) && !buf.resv.isLocked)
      this.faults.push(`${when} without the lock`);
  }
}

/** Runs a script; what is interrupted is left out, and what was got is given back. */
async function importer(
  system: System,
  buf: DmaBuf,
  script: Script,
  scheduler: fc.Scheduler,
): Promise<void> {
  let step = 0;
  const options = (): Interrupt => {
    const controller = new AbortController();
    const isInterrupted = script.abortAt.includes(step++);
    if (isInterrupted)
      void scheduler.schedule(Promise.resolve(), "abort").then(() => controller.abort());
    return isInterrupted ? { signal: controller.signal } : {};
  };
  const device = system.addDevice({ name: `gpu${system.devices.length}`, iommu: true });
  const ops = script.isDynamic ? deaf : null;
  const attachment = await interrupted(buf.dynamicAttachAsync(device, ops, null, options()));
  const cpu = cpuUser(buf, script, options);
  if (attachment !== null) await use(attachment, script, options);
  await cpu;
  if (attachment !== null) await ended((how) => attachment.detachAsync(how), options());
}

async function use(
  attachment: Attachment,
  { mapCount, pins, isDynamic }: Script,
  options: () => Interrupt,
): Promise<void> {
  const pinned =
    pins && isDynamic ? interrupted(attachment.pinAsync(options()).then(() => true)) : null;
  const mapped = await Promise.all(
    Array.from({ length: mapCount }, () =>
      interrupted(attachment.mapAsync("bidirectional", options())),
    ),
  );
  const ends = mapped.map(
    (one) => one && ended((how) => attachment.unmapAsync(one, how), options()),
  );
  if ((await pinned) === true) ends.push(ended((how) => attachment.unpinAsync(how), options()));
  await Promise.all(ends);
}

async function cpuUser(
  buf: DmaBuf,
  { vmaps, begins }: Script,
  options: () => Interrupt,
): Promise<void> {
  const mapping = vmaps ? await interrupted(buf.vmapAsync(options())) : null;
  const begun = begins ? await interrupted(buf.beginCpuAccessAsync("to-device", options())) : null;
  if (begun !== null) await interrupted(buf.endCpuAccessAsync("to-device", options()));
  if (mapping !== null) await ended((how) => buf.vunmapAsync(mapping, how), options());
}

/** The result; null if the call was interrupted. */
async function interrupted<T>(promise: Promise<T>): Promise<T | null> {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof DmaBufError && error.code === "EINTR") return null;
    throw error;
  }
}

/** An end that is interrupted goes on, or has not begun: then it is called once more. */
async function ended(call: (options: Interrupt) => Promise<unknown>, first: Interrupt) {
  try {
    await call(first);
  } catch (error) {
    expect((error as DmaBufError).code).toBe("EINTR");
    await call({}).catch((again) => expect(again.code).toMatch(/^(EALREADY|EINVAL)$/));
  }
}

const script: fc.Arbitrary<Script> = fc.record({
  isDynamic: fc.boolean(),
  mapCount: fc.nat(2),
  pins: fc.boolean(),
  vmaps: fc.boolean(),
  begins: fc.boolean(),
  abortAt: fc.uniqueArray(fc.nat(5), { maxLength: 2 }),
});

describe.each(eachCore)("calls that overlap on the $name core", (build) => {
  test.each([true, false])(
    "give back what they got, once and under the lock; a dynamic exporter: %s",
    async (pins) => {
      const property = fc.asyncProperty(
        fc.scheduler(),
        fc.array(script, { minLength: 1, maxLength: 4 }),
        async (scheduler, scripts) => {
          const system = build.system({ memoryBytes: 2 * MiB });
          const opened = system.stats();
          const racing = new RacingBuffer(system, pins, scheduler);
          const { buf } = racing;
          const all = Promise.all(scripts.map((one) => importer(system, buf, one, scheduler)));
          await scheduler.waitFor(all);
          do {
            await scheduler.waitIdle();
            await settle(); // what was interrupted goes on
          } while (scheduler.count() > 0);
          const { resv, vmapCount } = buf;
          expect([racing.faults, resv.isLocked, vmapCount]).toEqual([[], false, 0]);
          expect([...racing.balance.values()].filter((count) => count !== 0)).toEqual([]);
          expect(Object.values(buf.stats()).filter((count) => count !== 0)).toEqual([1]);
          buf.put();
          for (const device of system.devices) device.remove();
          expect([system.check(true), system.stats()]).toEqual([null, opened]);
          system.close();
        },
      );
      await fc.assert(property, { numRuns: RUNS });
    },
  );
});
