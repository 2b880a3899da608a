/**
 * Holders: who keeps a buffer from going away, from moving, or from being used next.
 *
 *     reference   descriptors and CPU mappings apart, whoever called get() or export()
 *     fd          a descriptor of a table that the system knows
 *     attachment, mapping, pin      a device
 *     vmap, cpu-mapping             the CPU
 *     fence       work that has not finished
 *
 * - HO1  The counts of reference, fd and cpu-mapping add up to refCount, as far as the system knows
 *        the tables.
 * - HO2  Where a holder was made is known in systems that track holders, and only there: it costs a
 *        stack trace for each attachment and mapping.
 *
 * Compare the kernel's /sys/kernel/debug/dma_buf/bufinfo.
 *
 * @module
 */

import type { CountedFile } from "../files/open-file.ts";
import type { Attachment } from "./attachment.ts";
import type { CpuMapping } from "./cpu-mapping.ts";
import type { Resv } from "./resv.ts";
import type { Vmapping } from "./vmap.ts";

/** What a holder does with the buffer. */
export type HolderKind =
  | "reference"
  | "fd"
  | "attachment"
  | "mapping"
  | "pin"
  | "vmap"
  | "cpu-mapping"
  | "fence";

/** One who holds a buffer. */
export interface Holder {
  readonly kind: HolderKind;
  /** For people: a device, a descriptor, pages, a fence with its usage. */
  readonly name: string;
  /** How many of them are meant. */
  readonly count: number;
  /** The stack of the call that made it; null if that is not known (HO2). */
  readonly stack: string | null;
}

/** Where descriptors are looked for. */
export interface FileTable {
  /** Whose it is, for people; may be empty. */
  readonly name: string;
  readonly fds: readonly number[];
  peek(fd: number): CountedFile;
}

/** @internal Where things were made, for systems that track holders. */
export class HolderNotes {
  readonly #stacks: WeakMap<object, string> = new WeakMap();

  /** Notes that the caller's caller makes `token`. */
  note(token: object): void {
    const [, , ...frames] = (new Error().stack ?? "").split("\n");
    this.#stacks.set(token, frames.map((frame) => frame.trim()).join("\n"));
  }

  /** Where `token` was made. */
  stackOf(token: object): string | null {
    return this.#stacks.get(token) ?? null;
  }
}

/** @internal What a buffer knows of those who hold it. */
export interface Held {
  readonly file: CountedFile & { readonly refCount: number };
  readonly attachments: readonly Attachment[];
  readonly vmapping: Vmapping | null;
  readonly vmapCount: number;
  readonly cpuMappings: Iterable<CpuMapping>;
  readonly resv: Resv;
  readonly tables: Iterable<FileTable>;
  readonly notes: HolderNotes | null;
}

/** @internal All who hold a buffer. */
export function holdersOf(held: Held): Holder[] {
  const stackOf = (token: object): string | null => held.notes?.stackOf(token) ?? null;
  const fds = [...fdsOf(held)];
  const cpu = [...held.cpuMappings].map((mapping) => ({
    kind: "cpu-mapping" as const,
    name: `${mapping.pageCount} pages from page ${mapping.pageOffset} on`,
    count: 1,
    stack: stackOf(mapping),
  }));
  const references = held.file.refCount - fds.length - cpu.length; // HO1
  return [
    ...(references > 0 ? [one("reference", "get()", references, stackOf(held.file))] : []),
    ...fds,
    ...held.attachments.flatMap((attachment) => [...importersOf(attachment, stackOf)]),
    ...(held.vmapping === null
      ? []
      : [one("vmap", "kernel", held.vmapCount, stackOf(held.vmapping))]),
    ...cpu,
    ...held.resv.entries
      .filter(({ fence }) => !fence.isSignaled)
      .map(({ fence, usage }) => one("fence", `${fence.name} (${usage})`, 1, null)),
  ];
}

function one(kind: HolderKind, name: string, count: number, stack: string | null): Holder {
  return { kind, name, count, stack };
}

function* fdsOf({ file, tables }: Held): Generator<Holder> {
  for (const table of tables) {
    for (const fd of table.fds) {
      if (table.peek(fd) !== file) continue;
      const whose = table.name === "" ? "" : ` of ${table.name}`;
      yield one("fd", `descriptor ${fd}${whose}`, 1, null);
    }
  }
}

function* importersOf(
  attachment: Attachment,
  stackOf: (token: object) => string | null,
): Generator<Holder> {
  const { name } = attachment.device;
  yield one("attachment", name, 1, stackOf(attachment));
  for (const { mapping, direction, uses } of attachment.mappings)
    if (uses > 0) yield one("mapping", `${name} ${direction}`, uses, stackOf(mapping));
  if (attachment.pinCount > 0) yield one("pin", name, attachment.pinCount, null);
}
