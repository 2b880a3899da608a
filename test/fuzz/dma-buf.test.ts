/**
 * Random calls on one buffer and on its naive twin, with faults in every callback of the exporter:
 * answers, callbacks, lock state and counts must agree, and in the end everything is released.
 */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { CpuMapping, Fence, Vmapping } from "../../src/index.ts";
import {
  Attachment,
  type Device,
  type DeviceMapping,
  type DmaBuf,
  DmaBufError,
  type DmaBufOps,
  MiB,
  type System,
} from "../../src/index.ts";
import { type Command, DmaBufModel, type ExporterKind, verbs } from "../model/dma-buf.model.ts";
import { eachCore } from "../support/cores.ts";
import { lockOf, watched } from "../support/exporter.ts";

const RUNS = 60;
const MAX_COMMANDS = 80;

/** The exporter's callbacks by the verb that the model has for them. */
const callbacks: Readonly<Record<string, keyof DmaBufOps>> = {
  attach: "attach",
  detach: "detach",
  pin: "pin",
  unpin: "unpin",
  map: "map",
  unmap: "unmap",
  begin: "beginCpuAccess",
  end: "endCpuAccess",
  mmap: "mmap",
  vmap: "vmap",
  vunmap: "vunmap",
  release: "release",
};
const mayPromise = ["attach", "pin", "map", "begin", "end", "vmap"];

/** An attachment and what its map() gave out. */
interface Held {
  readonly attachment: Attachment;
  kept: DeviceMapping[];
  own: DeviceMapping[];
}

/** The buffer under test. */
class Real {
  readonly buf: DmaBuf;
  readonly held: Held[] = [];
  calls: string[] = [];
  command: Command | null = null;
  readonly #system: System;
  readonly #devices: Device[];
  readonly #cpu: CpuMapping[] = [];
  readonly #vmaps: Vmapping[] = [];
  #fence: Fence | null = null;

  constructor(system: System, kind: ExporterKind) {
    this.#system = system;
    this.#devices = [0, 1, 2].map((i) => system.addDevice({ name: `gpu${i}`, iommu: true }));
    const ops = { cacheSgtMapping: kind === "caching" };
    this.buf = watched(system, [], { pins: kind === "dynamic", frames: 2, ops });
    for (const [verb, name] of Object.entries(callbacks)) this.#wrap(verb, name);
  }

  /** Writes every call of an op down, and fails it if the command says so. */
  #wrap(verb: string, name: keyof DmaBufOps): void {
    const ops = this.buf.priv as Record<string, unknown>;
    const op = ops[name] as ((...args: unknown[]) => unknown) | undefined;
    if (op === undefined) return;
    ops[name] = (...args: unknown[]) => {
      const attachment = args.find((arg) => arg instanceof Attachment);
      const device = attachment === undefined ? "" : ` ${attachment.device.name}`;
      this.calls.push(`${verb}${device} ${lockOf(this.buf)}`);
      if (this.command?.faultAt !== verb) return op(...args);
      if (this.command.fault === "throw") throw new DmaBufError("EIO", verb, "a fault");
      return mayPromise.includes(verb) ? Promise.resolve(op(...args)) : op(...args);
    };
  }

  apply(command: Command): string {
    this.calls = [];
    this.command = command;
    try {
      this.#do(command);
      return "ok";
    } catch (error) {
      if (error instanceof DmaBufError) return error.code;
      throw error;
    } finally {
      this.command = null;
    }
  }

  #do(command: Command): void {
    const held = this.held[command.at % Math.max(1, this.held.length)];
    const calls: Partial<Record<Command["verb"], () => void>> = {
      attach: () => this.#attach(command),
      detach: () => held && this.#detach(held),
      map: () => held && this.#map(held, command),
      unmap: () => held && this.#unmap(held, command),
      pin: () => held?.attachment.pin(),
      unpin: () => held?.attachment.unpin(),
      ...this.#bufferCalls(),
    };
    calls[command.verb]?.();
  }

  #bufferCalls(): Partial<Record<Command["verb"], () => void>> {
    const { buf } = this;
    return {
      lock: () => buf.resv.lock(),
      unlock: () => buf.resv.unlock(),
      moveNotify: () => buf.moveNotify(),
      vmap: () => void this.#vmaps.push(buf.vmap()),
      vunmap: () => {
        buf.vunmap(this.#vmaps.at(-1) as Vmapping);
        this.#vmaps.pop();
      },
      mmap: () => void this.#cpu.push(buf.mmap()),
      munmap: () => {
        this.#cpu.at(-1)?.unmap();
        this.#cpu.pop();
      },
      begin: () => void buf.beginCpuAccess("bidirectional"),
      end: () => void buf.endCpuAccess("bidirectional"),
      fence: () => {
        if (this.#fence === null) {
          this.#fence = this.#system.fence("move");
          buf.resv.addFence(this.#fence, "kernel");
        }
      },
      signal: () => {
        this.#fence?.signal();
        this.#fence = null;
      },
      get: () => void buf.get(),
      put: () => buf.put(),
    };
  }

  #attach({ at, isDynamic }: Command): void {
    const device = this.#devices[at % 3] as Device;
    const moveNotify = (one: Attachment): void =>
      void this.calls.push(`moveNotify ${one.device.name} ${lockOf(this.buf)}`);
    const attachment = isDynamic
      ? this.buf.dynamicAttach(device, { moveNotify })
      : this.buf.attach(device);
    this.held.push({ attachment, kept: [], own: [] });
  }

  #detach(held: Held): void {
    try {
      held.attachment.detach();
    } finally {
      if (held.attachment.isDetached) this.held.splice(this.held.indexOf(held), 1);
    }
  }

  #map(held: Held, { isUnlocked, direction }: Command): void {
    const { attachment } = held;
    const mapping = isUnlocked ? attachment.mapUnlocked(direction) : attachment.map(direction);
    (attachment.isKeepingMapping ? held.kept : held.own).push(mapping);
  }

  #unmap(held: Held, { isUnlocked, which }: Command): void {
    const { attachment, kept, own } = held;
    const choice = [...kept.slice(0, 1), ...own];
    const mapping = choice[which % Math.max(1, choice.length)] as DeviceMapping;
    if (isUnlocked) attachment.unmapUnlocked(mapping);
    else attachment.unmap(mapping);
    const list = kept.includes(mapping) ? kept : own;
    list.splice(list.indexOf(mapping), 1);
  }

  /** Gives everything back, as well-behaved users would. */
  release(): void {
    const { buf } = this;
    if (buf.resv.isLocked) buf.resv.unlock();
    this.#fence?.signal();
    for (const { attachment, own, kept } of this.held) {
      for (const mapping of [...own, ...kept]) attachment.unmapUnlocked(mapping);
      buf.resv.lock();
      while (attachment.pinCount > 0) attachment.unpin();
      buf.resv.unlock();
      attachment.detach();
    }
    for (const mapping of this.#vmaps) buf.vunmap(mapping);
    for (const mapping of this.#cpu) mapping.unmap();
    while (buf.refCount > 0) buf.put();
  }

  end(): void {
    for (const device of this.#devices) device.remove();
  }
}

const command: fc.Arbitrary<Command> = fc.record({
  verb: fc.constantFrom(...verbs),
  at: fc.nat(7),
  which: fc.nat(7),
  isDynamic: fc.boolean(),
  isUnlocked: fc.boolean(),
  direction: fc.constantFrom("bidirectional" as const, "to-device" as const),
  faultAt: fc.oneof(
    { weight: 4, arbitrary: fc.constant("") },
    { weight: 1, arbitrary: fc.constantFrom(...Object.keys(callbacks)) },
  ),
  fault: fc.constantFrom("throw" as const, "promise" as const),
});

const kinds: readonly ExporterKind[] = ["static", "caching", "dynamic"];

describe.each(eachCore)("a buffer and its twin on the $name core", (build) => {
  test.each(kinds)("agree on every call of a %s exporter, whatever fails", async (kind) => {
    await fc.assert(
      fc.asyncProperty(fc.array(command, { maxLength: MAX_COMMANDS }), async (commands) => {
        const system = build.system({ memoryBytes: 2 * MiB });
        const opened = system.stats();
        const [real, model] = [new Real(system, kind), new DmaBufModel(kind)];
        for (const [i, one] of commands.entries()) {
          const expected = [model.apply(one), model.calls, model.isLocked, model.counts];
          const actual = [real.apply(one), real.calls, real.buf.resv.isLocked, real.buf.stats()];
          expect(actual, `command ${i}: ${one.verb}`).toEqual(expected);
          expect(system.check(), `command ${i}: ${one.verb}`).toBeNull();
        }
        if (real.buf.resv.isLocked) real.buf.resv.unlock();
        await new Promise((resolve) => setTimeout(resolve, 0)); // what comes late is given back
        real.release();
        real.end();
        expect([real.buf.holders(), system.check(true)]).toEqual([[], null]);
        expect(system.stats()).toEqual(opened);
        system.close();
      }),
      { numRuns: RUNS },
    );
  });
});
