/**
 * ScenarioWorld: one buffer of area B, with an exporter that writes down each callback and the
 * state of the lock while it runs, and that fails where it is told to.
 *
 * @module
 */

import {
  type Attachment,
  type AttachOps,
  type Device,
  type DeviceMapping,
  type Direction,
  DmaBuf,
  DmaBufError,
  type DmaBufOps,
  type System,
  type Vmapping,
} from "dmabuf";
import { PAGE_BYTES } from "./bed.ts";
import { MalformedRecord } from "./fields.ts";

/** The directions by the kernel's names. */
const directions: Readonly<Record<string, Direction>> = {
  BIDIRECTIONAL: "bidirectional",
  TO_DEVICE: "to-device",
  FROM_DEVICE: "from-device",
  NONE: "none",
};
const DEVICE_COUNT = 4;
/** Pages that are there of a buffer: no record looks at its bytes. */
const STORED_PAGES = 1024;
/** The value to inject that makes map() return nothing. */
const RETURN_NULL = 1;

/** The direction of a recorded name. */
export function directionOf(name: string): Direction {
  const direction = directions[name];
  if (direction === undefined) throw new MalformedRecord(`the direction "${name}" is unknown`);
  return direction;
}

/** Thrown by a callback that the record lets fail: any number, errno of the library or not. */
class Injected extends Error {
  readonly value: number;

  constructor(value: number) {
    super(`the record injects ${value}`);
    this.value = value;
  }
}

/** What `call` returns, or the number that the record injects. */
export function injectedOr<T>(call: () => T): T | number {
  try {
    return call();
  } catch (error) {
    if (error instanceof Injected) return error.value;
    throw error;
  }
}

/** A buffer, its devices, and what its exporter was asked. */
export class ScenarioWorld {
  readonly buf: DmaBuf;
  /** What an exporter's callback returns from now on; 0: as usual. */
  readonly injected: Map<string, number> = new Map();
  readonly attachments: Map<number, Attachment> = new Map();
  readonly vmappings: Vmapping[] = [];
  readonly #devices: readonly Device[];
  readonly #numbers: WeakMap<Attachment, number> = new WeakMap();
  readonly #sgts: Map<DeviceMapping, string> = new Map();
  readonly #byName: Map<string, DeviceMapping> = new Map();
  readonly #kinds: string;
  #attaching = 0;
  #trace: string[] = [];

  constructor(system: System, ops: readonly string[], sizeBytes: number) {
    this.#kinds = ` ${ops.join(" ").replace("+", " ")} `;
    this.#devices = Array.from({ length: DEVICE_COUNT }, (_, i) =>
      system.addDevice({ name: `device${i}`, iommu: true }),
    );
    this.buf = system.export({ ops: this.#ops(system, sizeBytes), sizeBytes });
  }

  /** What was written down since the last call. */
  heard(): string[] {
    const trace = this.#trace;
    this.#trace = [];
    return trace;
  }

  /** Attaches device `a mod 4` as number `a`, in one of the recorded ways. */
  attach(a: number, importer: string): void {
    const device = this.#devices[a % DEVICE_COUNT] as Device;
    this.#attaching = a;
    const attachment = this.#attachAs(importer, device);
    this.#numbers.set(attachment, a);
    this.attachments.set(a, attachment);
  }

  /** The live attachment with number `a`. */
  attachment(a: number): Attachment {
    const attachment = this.attachments.get(a);
    if (attachment === undefined) throw new MalformedRecord(`there is no attachment a${a}`);
    return attachment;
  }

  /** The recorded name of a mapping: "sgtN" for the exporter's N-th. */
  sgtOf(mapping: DeviceMapping): string {
    return this.#sgts.get(mapping) ?? "a mapping that the exporter never gave";
  }

  /** The mapping behind a recorded name. */
  mapping(sgt: string): DeviceMapping {
    const mapping = this.#byName.get(sgt);
    if (mapping === undefined) throw new MalformedRecord(`there is no ${sgt}`);
    return mapping;
  }

  /** Runs `call` with the reservation held, as its caller would. */
  held<T>(call: () => T): T {
    this.buf.resv.lock();
    try {
      return call();
    } finally {
      this.buf.resv.unlock();
    }
  }

  /** Ends what attachment `a` holds, and the attachment. */
  drop(a: number): void {
    const attachment = this.attachment(a);
    for (const mapping of this.#byName.values()) this.#unmapAll(attachment, mapping);
    while (attachment.pinCount > 0) this.held(() => attachment.unpin());
    attachment.detach();
    this.attachments.delete(a);
  }

  /** Ends all users of the buffer, and its references. */
  dropAll(): void {
    for (const mapping of this.vmappings.splice(0)) this.buf.vunmap(mapping);
    for (const a of this.attachments.keys()) this.drop(a);
    while (this.buf.refCount > 0) this.buf.put();
  }

  /** Ends what the record left, and the devices. */
  close(): void {
    this.dropAll();
    for (const device of this.#devices) device.remove();
  }

  #unmapAll(attachment: Attachment, mapping: DeviceMapping): void {
    try {
      for (;;) attachment.unmapUnlocked(mapping);
    } catch (error) {
      if (!(error instanceof DmaBufError)) throw error; // it is not alive there any more
    }
  }

  #attachAs(importer: string, device: Device): Attachment {
    const moveNotify = (attachment: Attachment): void =>
      this.#note(`move_notify a${this.#number(attachment)}`);
    switch (importer) {
      case "static":
        return this.buf.attach(device);
      case "dynamic":
        return this.buf.dynamicAttach(device, { moveNotify });
      case "dynamic+p2p":
        return this.buf.dynamicAttach(device, { moveNotify, allowPeer2Peer: true });
      case "dynamic_attach_null_ops":
        return this.buf.dynamicAttach(device, null);
      case "ops_without_move_notify":
        return this.buf.dynamicAttach(device, {} as AttachOps);
      default:
        throw new MalformedRecord(`the importer "${importer}" is unknown`);
    }
  }

  /** The number of an attachment; the exporter meets it first while it is being attached. */
  #number(attachment: Attachment): number {
    const number = this.#numbers.get(attachment) ?? this.#attaching;
    this.#numbers.set(attachment, number);
    return number;
  }

  #note(line: string, after = ""): void {
    this.#trace.push(`${line} ${this.buf.resv.isLocked ? "locked" : "unlocked"}${after}`);
  }

  /** Throws what was injected for a callback. */
  #inject(what: string): void {
    const value = this.injected.get(what) ?? 0;
    if (value !== 0) throw new Injected(value);
  }

  #has(kind: string): boolean {
    return this.#kinds.includes(` ${kind} `);
  }

  /** The ops of the record; map, unmap and release are always there. */
  #ops(system: System, sizeBytes: number): DmaBufOps {
    const whole = Math.max(1, Math.ceil(sizeBytes / PAGE_BYTES));
    const pages = Math.min(whole, STORED_PAGES);
    const range = system.frames.alloc(pages);
    const table = system.sgTableFromRange(range.pfn, pages);
    const label = (attachment: Attachment): string => `a${this.#number(attachment)}`;
    const optional: DmaBufOps = {
      ...this.#mapOps((device, direction) => {
        const transfer = direction === "none" ? "bidirectional" : direction;
        return device.dma.mapSgtable(table, transfer);
      }),
      release: () => {
        this.#note("release");
        table.free();
        range.free();
      },
      cacheSgtMapping: this.#has("cache_sgt_mapping"),
      ...(this.#has("attach") && {
        attach: (_, attachment) => {
          const flags = `p2p=${Number(attachment.peer2peer)} dyn=${Number(attachment.isDynamic)}`;
          this.#note(`attach ${label(attachment)} ${flags}`);
          this.#inject("attach");
        },
      }),
      ...(this.#has("detach") && { detach: (_, one) => this.#note(`detach ${label(one)}`) }),
      ...(this.#has("pin") && {
        pin: (one) => {
          this.#note(`pin ${label(one)}`);
          this.#inject("pin");
        },
        unpin: (one) => this.#note(`unpin ${label(one)}`),
      }),
      ...this.#cpuOps(),
      ...(this.#has("mmap") && {
        mmap: (buf, { pageOffset, pageCount }) => {
          const file = `fileIsDmabuf=${Number(buf === this.buf && buf instanceof DmaBuf)}`;
          this.#note(`mmap pgoff=${pageOffset} pages=${pageCount} ${file}`);
          this.#inject("mmap");
          return table;
        },
      }),
      ...(this.#has("vmap") && {
        vmap: () => {
          this.#note("vmap");
          this.#inject("vmap");
          return table;
        },
      }),
      ...(this.#has("vunmap") && { vunmap: () => this.#note("vunmap") }),
    };
    return optional;
  }

  #mapOps(
    mapFor: (device: Device, direction: Direction) => DeviceMapping,
  ): Pick<DmaBufOps, "map" | "unmap"> {
    const nameOf = (direction: Direction): string =>
      Object.keys(directions).find((name) => directions[name] === direction) ?? direction;
    return {
      map: (attachment, direction) => {
        const line = `map a${this.#number(attachment)} ${nameOf(direction)}`;
        const value = this.injected.get("map") ?? 0;
        if (value !== 0) this.#note(line, value === RETURN_NULL ? " -> NULL" : " -> ERR");
        if (value === RETURN_NULL) return null as unknown as DeviceMapping;
        this.#inject("map");
        const mapping = mapFor(attachment.device, direction);
        const sgt = `sgt${this.#sgts.size + 1}`;
        this.#sgts.set(mapping, sgt);
        this.#byName.set(sgt, mapping);
        this.#note(line, ` -> ${sgt}`);
        return mapping;
      },
      unmap: (attachment, mapping, direction) => {
        const line = `unmap a${this.#number(attachment)} ${nameOf(direction)}`;
        this.#note(line, ` ${this.sgtOf(mapping)}`);
        attachment.device.dma.unmapSgtable(mapping);
      },
    };
  }

  #cpuOps(): Pick<DmaBufOps, "beginCpuAccess" | "endCpuAccess"> {
    const op =
      (name: string, what: string) =>
      (_: DmaBuf, direction: Direction): number => {
        this.#note(`${name} ${direction.replace("-", "_").toUpperCase()}`);
        const value = this.injected.get(what) ?? 0;
        if (value < 0) throw new Injected(value);
        return value;
      };
    return {
      ...(this.#has("begin_cpu_access") && { beginCpuAccess: op("begin_cpu_access", "begin") }),
      ...(this.#has("end_cpu_access") && { endCpuAccess: op("end_cpu_access", "end") }),
    };
  }
}
