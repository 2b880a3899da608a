import { describe, expect } from "vitest";
import type { Attachment, DeviceMapping, DmaBuf, System } from "../../src/index.ts";
import { MiB } from "../../src/index.ts";
import { eachCore } from "../support/cores.ts";
import { expectError } from "../support/errors.ts";
import { deaf, watched } from "../support/exporter.ts";
import { matrix } from "../support/matrix.ts";

/**
 * static: on a static exporter. kept: static on a dynamic exporter, mapped at attach. caching: the
 * exporter keeps the first mapping, made for "to-device". dynamic: on both sides, the lock is free.
 * held: the same, the importer holds the lock. pinned: and has a pin. busy: its own asynchronous
 * map has not ended. fenced: static, a kernel fence is pending.
 */
const attachments = `
  method         |static|kept  |caching|dynamic|held  |pinned|busy   |fenced|revoked|detached
  map            |ok    |ok    |ok     |EINVAL |ok    |ok    |EDEADLK|EAGAIN|ENODEV |EINVAL
  map other way  |ok    |ok    |EBUSY  |EINVAL |ok    |ok    |EDEADLK|EAGAIN|ENODEV |EINVAL
  map none       |EINVAL|ok    |EBUSY  |EINVAL |EINVAL|EINVAL|EDEADLK|EAGAIN|ENODEV |EINVAL
  map sideways   |EINVAL|EINVAL|EINVAL |EINVAL |EINVAL|EINVAL|EINVAL |EINVAL|EINVAL |EINVAL
  mapUnlocked    |ok    |ok    |ok     |ok     |EAGAIN|EAGAIN|EDEADLK|EAGAIN|ENODEV |EINVAL
  mapAsync       |ok    |ok    |ok     |ok     |ETIME |ETIME |ETIME  |ETIME |ENODEV |EINVAL
  unmap nothing  |EINVAL|EINVAL|EINVAL |EINVAL |EINVAL|EINVAL|EINVAL |EINVAL|EINVAL |EINVAL
  unmapAsync 0   |EINVAL|EINVAL|EINVAL |EINVAL |EINVAL|EINVAL|EINVAL |EINVAL|EINVAL |EINVAL
  unmapUnlocked 0|EINVAL|EINVAL|EINVAL |EINVAL |EINVAL|EINVAL|EINVAL |EINVAL|EINVAL |EINVAL
  pin            |EINVAL|EINVAL|EINVAL |EINVAL |ok    |ok    |EDEADLK|EINVAL|ENODEV |EINVAL
  pinAsync       |EINVAL|EINVAL|EINVAL |ok     |ETIME |ETIME |ETIME  |EINVAL|ENODEV |EINVAL
  unpin          |EINVAL|EINVAL|EINVAL |EINVAL |EINVAL|ok    |EINVAL |EINVAL|EINVAL |EINVAL
  unpinAsync     |EINVAL|EINVAL|EINVAL |EINVAL |EINVAL|ETIME |EINVAL |EINVAL|EINVAL |EINVAL
  detach         |ok    |ok    |ok     |ok     |EAGAIN|EBUSY |EBUSY  |ok    |ok     |EINVAL
  detachAsync    |ok    |ok    |ok     |ok     |ETIME |EBUSY |EBUSY  |ok    |ok     |EINVAL
  dispose        |ok    |ok    |ok     |ok     |EAGAIN|EBUSY |EBUSY  |ok    |ok     |ok
`;

/**
 * leaving: its detachAsync waits for the exporter's unmap. left: detached, and the exporter's
 * detach has not ended.
 */
const endings = `
  method         |leaving |left
  map            |EINVAL  |EINVAL
  map other way  |EINVAL  |EINVAL
  map none       |EINVAL  |EINVAL
  map sideways   |EINVAL  |EINVAL
  mapUnlocked    |EINVAL  |EINVAL
  mapAsync       |EINVAL  |EINVAL
  unmap nothing  |EINVAL  |EINVAL
  unmapAsync 0   |EINVAL  |EINVAL
  unmapUnlocked 0|EINVAL  |EINVAL
  pin            |EINVAL  |EINVAL
  pinAsync       |EINVAL  |EINVAL
  unpin          |EINVAL  |EINVAL
  unpinAsync     |EINVAL  |EINVAL
  detach         |EALREADY|EINVAL
  detachAsync    |EALREADY|ETIME
  dispose        |EALREADY|ok
`;

/**
 * own: of a static importer. shared: the attachment keeps it, two users. unused: it keeps it,
 * nobody uses it. locked: of a dynamic importer, the lock is free. ended: it was unmapped. foreign:
 * of another attachment. dropped: kept, and ended by detach. ending: unmapAsync waits for the
 * exporter. begun: unmap was EWOULDBLOCK.
 */
const mappings = `
  method         |own   |shared|unused|locked|ended |foreign|dropped|ending  |begun
  unmap          |ok    |ok    |EINVAL|EINVAL|EINVAL|EINVAL |EINVAL |EALREADY|EALREADY
  unmap other way|ok    |ok    |EINVAL|EINVAL|EINVAL|EINVAL |EINVAL |EALREADY|EALREADY
  unmap sideways |EINVAL|EINVAL|EINVAL|EINVAL|EINVAL|EINVAL |EINVAL |EINVAL  |EINVAL
  unmapUnlocked  |ok    |ok    |EINVAL|ok    |EINVAL|EINVAL |EINVAL |EALREADY|EALREADY
  unmapAsync     |ok    |ok    |EINVAL|ok    |EINVAL|EINVAL |EINVAL |EALREADY|ETIME
  detach         |EBUSY |ok    |ok    |EBUSY |ok    |ok     |EINVAL |EBUSY   |EBUSY
  dma            |ok    |ok    |ok    |ok    |ESTALE|ok     |ESTALE |ok      |ok
  dma outside    |EINVAL|EINVAL|EINVAL|EINVAL|EINVAL|EINVAL |EINVAL |EINVAL  |EINVAL
  segments       |ok    |ok    |ok    |ok    |ESTALE|ok     |ESTALE |ok      |ok
  at             |ok    |ok    |ok    |ok    |ESTALE|ok     |ESTALE |ok      |ok
  split          |ok    |ok    |ok    |ok    |ESTALE|ok     |ESTALE |ok      |ok
  read           |ok    |ok    |ok    |ok    |EFAULT|ok     |EFAULT |ok      |ok
  lengths        |ok    |ok    |ok    |ok    |ok    |ok     |ok     |ok      |ok
`;

const soon = { timeoutMs: 1 };

/** An attachment in a state, its buffer, and a mapping where the state has one. */
class Bench {
  readonly system: System;
  readonly calls: string[] = [];
  buf: DmaBuf;
  attachment: Attachment;
  #mapping: DeviceMapping | null = null;

  constructor(system: System, state: string) {
    this.system = system;
    const dynamic = ["kept", "shared", "unused", "dropped"].includes(state);
    const both = ["dynamic", "held", "pinned", "busy", "revoked", "locked"].includes(state);
    const cacheSgtMapping = state === "caching" || state === "leaving";
    this.buf = watched(system, this.calls, { pins: dynamic || both, ops: { cacheSgtMapping } });
    const gpu = system.addDevice({ name: "gpu", iommu: true });
    this.attachment = both ? this.buf.dynamicAttach(gpu, deaf) : this.buf.attach(gpu);
  }

  async enter(state: string): Promise<void> {
    const { attachment, buf, system } = this;
    const { resv } = buf;
    const states: Record<string, () => unknown> = {
      caching: () => attachment.map("to-device"),
      held: () => resv.lock(),
      pinned: () => {
        resv.lock();
        attachment.pin();
      },
      busy: () => {
        this.#endless("map");
        void attachment.mapAsync("to-device");
      },
      fenced: () => resv.addFence(system.fence("move"), "kernel"),
      revoked: () => buf.revoke(),
      detached: () => attachment.detach(),
      leaving: () => {
        attachment.unmap(attachment.map("to-device"));
        this.#endless("unmap");
        void attachment.detachAsync();
      },
      left: () => {
        this.#endless("detach");
        expectError("EWOULDBLOCK", () => attachment.detach());
      },
      ending: () => {
        const mapping = this.#map(attachment);
        this.#endless("unmap");
        void attachment.unmapAsync(mapping);
      },
      begun: () => {
        const mapping = this.#map(attachment);
        this.#endless("unmap");
        expectError("EWOULDBLOCK", () => attachment.unmap(mapping));
      },
      own: () => this.#map(attachment),
      shared: () => this.#map(attachment) === attachment.map("bidirectional"),
      unused: () => attachment.unmap(this.#map(attachment)),
      locked: () => this.#map(attachment),
      ended: () => attachment.unmap(this.#map(attachment)),
      foreign: () => this.#map(buf.attach(attachment.device)),
      dropped: () => this.#map(attachment) && attachment.detach(),
    };
    await states[state]?.();
  }

  /** From now on the exporter never answers `op`. */
  #endless(op: "map" | "unmap" | "detach"): void {
    const ops = this.buf.priv as Record<string, unknown>;
    ops[op] = (): Promise<never> => new Promise(() => {});
  }

  #map(attachment: Attachment): DeviceMapping {
    this.#mapping = attachment.mapUnlocked("bidirectional");
    this.#address = this.#mapping.dma(0).address;
    return this.#mapping;
  }

  #address = 0;

  /** What a method of the attachment is called with. */
  callAttachment(method: string): unknown {
    const { attachment } = this;
    const none = null as unknown as DeviceMapping;
    const methods: Record<string, () => unknown> = {
      map: () => attachment.map("to-device"),
      "map other way": () => attachment.map("from-device"),
      "map none": () => attachment.map("none"),
      "map sideways": () => attachment.map("sideways" as "none"),
      mapUnlocked: () => attachment.mapUnlocked("to-device"),
      mapAsync: () => attachment.mapAsync("to-device", soon),
      "unmap nothing": () => attachment.unmap(none),
      "unmapAsync 0": () => attachment.unmapAsync(none),
      "unmapUnlocked 0": () => attachment.unmapUnlocked(none),
      pin: () => attachment.pin(),
      pinAsync: () => attachment.pinAsync(soon),
      unpin: () => attachment.unpin(),
      unpinAsync: () => attachment.unpinAsync(soon),
      detach: () => attachment.detach(),
      detachAsync: () => attachment.detachAsync(soon),
      dispose: () => attachment[Symbol.dispose](),
    };
    return pick(methods, method)();
  }

  /** What a method of, or with, the mapping is called with. */
  callMapping(method: string): unknown {
    const { attachment } = this;
    const mapping = this.#mapping as DeviceMapping;
    const methods: Record<string, () => unknown> = {
      unmap: () => attachment.unmap(mapping),
      "unmap other way": () => attachment.unmap(mapping, "from-device"),
      "unmap sideways": () => attachment.unmap(mapping, "sideways" as "none"),
      unmapUnlocked: () => attachment.unmapUnlocked(mapping),
      unmapAsync: () => attachment.unmapAsync(mapping, soon),
      detach: () => attachment.detach(),
      dma: () => mapping.dma(0),
      "dma outside": () => mapping.dma(mapping.nents),
      segments: () => [...mapping.segments()],
      at: () => mapping.at(1),
      split: () => mapping.split([1, 2]),
      read: () => attachment.device.dma.read(this.#address, new Uint8Array(8)),
      lengths: () => mapping.lengthBytes + mapping.nents,
    };
    return pick(methods, method)();
  }
}

function pick<T>(methods: Record<string, T>, name: string): T {
  const found = methods[name];
  if (found === undefined) throw new Error(`no method ${name}`);
  return found;
}

describe.each([eachCore[0], eachCore[3]])("an attachment on the $name core", (build) => {
  const enter = async (state: string): Promise<Bench> => {
    const core = build as (typeof eachCore)[0];
    const bench = new Bench(core.system({ memoryBytes: 2 * MiB }), state);
    await bench.enter(state);
    return bench;
  };
  const scene = (bench: Bench, call: () => unknown) => {
    const before = JSON.stringify([bench.buf.stats(), bench.attachment.isDetached]);
    return {
      call,
      after: (outcome: string) => {
        const now = JSON.stringify([bench.buf.stats(), bench.attachment.isDetached]);
        if (outcome !== "ok") expect(now).toBe(before);
        expect(bench.system.check()).toBeNull();
      },
    };
  };
  for (const table of [attachments, endings]) {
    matrix("attachment: method by state", table, async ({ state, method }) => {
      const bench = await enter(state);
      return scene(bench, () => bench.callAttachment(method));
    });
  }
  matrix("mapping: method by state", mappings, async ({ state, method }) => {
    const bench = await enter(state);
    return scene(bench, () => bench.callMapping(method));
  });
});
