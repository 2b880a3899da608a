/**
 * A buffer that a naive twin is compared with: every callback of its exporter is written down, and
 * fails or answers later if the command says so.
 *
 * @module
 */

import type {
  AttachOps,
  CpuMapping,
  Device,
  DeviceMapping,
  DmaBuf,
  DmaBufOps,
  Fence,
  System,
  Vmapping,
  WaitOptions,
} from "../../src/index.ts";
import { Attachment, DmaBufError } from "../../src/index.ts";
import type { Command, ExporterKind } from "../model/dma-buf.model.ts";
import { lockOf, watched } from "./exporter.ts";
import { TestClock } from "./test-clock.ts";

/** The exporter's callbacks by the verb that the model has for them. */
export const callbacks: Readonly<Record<string, keyof DmaBufOps>> = {
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
/** Callbacks that give: a synchronous call gets no promise of theirs. */
const GIVING = ["attach", "pin", "map", "begin", "end", "vmap"];
/** Callbacks that always answer at once. */
const PROMPT = ["mmap", "release"];
/** Turns in which everything has run that waits for nothing but its turn. */
const TURNS = 60;
const TIMEOUT_MS = 5;

/** An attachment and what its map() gave out. */
interface Held {
  readonly attachment: Attachment;
  kept: DeviceMapping[];
  own: DeviceMapping[];
}

/** The buffer under test. */
export class FuzzedBuffer {
  readonly buf: DmaBuf;
  readonly held: Held[] = [];
  calls: string[] = [];
  command: Command | null = null;
  readonly #system: System;
  readonly #devices: Device[];
  readonly #cpu: CpuMapping[] = [];
  readonly #vmaps: Vmapping[] = [];
  readonly #lost: Map<DeviceMapping, Device> = new Map();
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
      const { faultAt, fault, form } = this.command ?? { form: "now" };
      if (verb === "release") this.#unmapLost();
      if (verb === "unmap") this.#noteUnmap(args as [Attachment, DeviceMapping], faultAt === verb);
      if (faultAt !== verb) return op(...args);
      const lost = new DmaBufError("EIO", verb, "a fault");
      if (fault === "throw") throw lost;
      if (PROMPT.includes(verb) || (form !== "async" && !GIVING.includes(verb))) return op(...args);
      if (fault === "reject") return Promise.reject(lost);
      return form === "async"
        ? Promise.resolve().then(() => op(...args))
        : Promise.resolve(op(...args));
    };
  }

  /** A mapping whose unmap failed is still there; a call that is undone does not try again. */
  #noteUnmap([attachment, mapping]: [Attachment, DeviceMapping], isFailing: boolean): void {
    if (isFailing) this.#lost.set(mapping, attachment.device);
    else this.#lost.delete(mapping);
  }

  /** An exporter whose unmap failed undoes at its end what is left of that. */
  #unmapLost(): void {
    for (const [mapping, device] of this.#lost)
      if (!mapping.isEnded) device.dma.unmapSgtable(mapping);
    this.#lost.clear();
  }

  /** What a call answers: "ok", or a code. */
  apply(command: Command): string {
    this.calls = [];
    this.command = command;
    try {
      this.#do(command);
      return "ok";
    } catch (error) {
      return codeOf(error);
    } finally {
      this.command = null;
    }
  }

  /** The same for forms that wait: their time is over when nothing happens any more. */
  async applyAsync(command: Command): Promise<string> {
    this.calls = [];
    this.command = command;
    const clock = new TestClock();
    const options = { timeoutMs: TIMEOUT_MS, clock };
    const answer = this.#doAsync(command, options).then(() => "ok", codeOf);
    for (let i = 0; i < TURNS; i++) await null;
    clock.fire();
    const code = await answer;
    this.command = null;
    return code;
  }

  async #doAsync(command: Command, options: WaitOptions): Promise<void> {
    const held = this.held[command.at % Math.max(1, this.held.length)];
    const { buf } = this;
    const calls: Partial<Record<Command["verb"], () => Promise<unknown> | undefined>> = {
      attach: () => this.#attachAsync(command, options),
      detach: () => held && this.#detachAsync(held, options),
      map: () => held && this.#mapAsync(held, command, options),
      unmap: () => held && this.#unmapAsync(held, command, options),
      pin: () => held?.attachment.pinAsync(options),
      unpin: () => held?.attachment.unpinAsync(options),
      vmap: async () => this.#vmaps.push(await buf.vmapAsync(options)),
      vunmap: async () => {
        await buf.vunmapAsync(this.#vmaps.at(-1) as Vmapping, options);
        this.#vmaps.pop();
      },
      begin: () => buf.beginCpuAccessAsync("bidirectional", options),
      end: () => buf.endCpuAccessAsync("bidirectional", options),
    };
    const call = calls[command.verb];
    if (call === undefined) this.#do(command);
    else await call();
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

  #importer({ at, isDynamic }: Command): [Device, AttachOps | null] {
    const moveNotify = (one: Attachment): void =>
      void this.calls.push(`moveNotify ${one.device.name} ${lockOf(this.buf)}`);
    return [this.#devices[at % 3] as Device, isDynamic ? { moveNotify } : null];
  }

  #attach(command: Command): void {
    const attachment = this.buf.dynamicAttach(...this.#importer(command));
    this.held.push({ attachment, kept: [], own: [] });
  }

  async #attachAsync(command: Command, options: WaitOptions): Promise<void> {
    const [device, importerOps] = this.#importer(command);
    const attachment = await this.buf.dynamicAttachAsync(device, importerOps, null, options);
    this.held.push({ attachment, kept: [], own: [] });
  }

  #detach(held: Held): void {
    try {
      held.attachment.detach();
    } finally {
      if (held.attachment.isDetached) this.held.splice(this.held.indexOf(held), 1);
    }
  }

  async #detachAsync(held: Held, options: WaitOptions): Promise<void> {
    try {
      await held.attachment.detachAsync(options);
    } finally {
      if (held.attachment.isDetached) this.held.splice(this.held.indexOf(held), 1);
    }
  }

  #map(held: Held, { form, direction }: Command): void {
    const { attachment } = held;
    const mapping =
      form === "unlocked" ? attachment.mapUnlocked(direction) : attachment.map(direction);
    (attachment.isKeepingMapping ? held.kept : held.own).push(mapping);
  }

  async #mapAsync(held: Held, { direction }: Command, options: WaitOptions): Promise<void> {
    const { attachment } = held;
    const mapping = await attachment.mapAsync(direction, options);
    (attachment.isKeepingMapping ? held.kept : held.own).push(mapping);
  }

  #unmap(held: Held, command: Command): void {
    const { attachment } = held;
    const mapping = choose(held, command);
    if (command.form === "unlocked") attachment.unmapUnlocked(mapping);
    else attachment.unmap(mapping);
    forget(held, mapping);
  }

  async #unmapAsync(held: Held, command: Command, options: WaitOptions): Promise<void> {
    const mapping = choose(held, command);
    await held.attachment.unmapAsync(mapping, options);
    forget(held, mapping);
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

/** Of the mappings that were given out, the kept one comes first. */
function choose({ kept, own }: Held, { which }: Command): DeviceMapping {
  const choice = [...kept.slice(0, 1), ...own];
  return choice[which % Math.max(1, choice.length)] as DeviceMapping;
}

function forget({ kept, own }: Held, mapping: DeviceMapping): void {
  const list = kept.includes(mapping) ? kept : own;
  list.splice(list.indexOf(mapping), 1);
}

function codeOf(error: unknown): string {
  if (error instanceof DmaBufError) return error.code;
  throw error;
}
