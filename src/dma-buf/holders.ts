/**
 * Holders: who keeps a buffer from going away, from moving, or from being used next.
 *
 *     reference   descriptors and CPU mappings apart, whoever called get() or export()
 *     fd          a descriptor of a table that the system knows
 *     attachment, mapping, pin      a device
 *     vmap, cpu-mapping             the CPU
 *     fence       work that has not finished
 *     thread      another one, which has imported it
 *
 * - HO1  The counts of reference, fd and cpu-mapping add up to refCount, as far as the system knows
 *        the tables.
 * - HO2  Where a holder was made is known in systems that track holders, and only there: it costs a
 *        stack trace for each. Holders of one kind and name are told apart by their stacks.
 * - HO3  The stack of a fence is where that was made: who made it knows who must signal it.
 * - HO4  A reference has the name of the call that made it: get(), and for the first alloc(),
 *        export() or import(), in systems that track holders. Others do not know which are left.
 * - HO5  What another thread has of the buffer is known there only: here that thread is one holder,
 *        until it has put the buffer or is reaped.
 *
 * Compare the kernel's /sys/kernel/debug/dma_buf/bufinfo.
 *
 * @module
 */

import type { CountedFile } from "../files/open-file.ts";
import type { HolderKind, Stacks } from "../stacks.ts";
import { countOf } from "../units.ts";
import type { Attachment } from "./attachment.ts";
import type { CpuMapping } from "./cpu-mapping.ts";
import type { Resv } from "./resv.ts";
import type { Vmapping } from "./vmap.ts";

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
  /** Where a descriptor was made; null if that is not known. */
  stackOf(fd: number): string | null;
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
  /** The other threads that hold it (HO5). */
  readonly threads: readonly number[];
  readonly stacks: Stacks | null;
}

/** @internal All who hold a buffer. */
export function holdersOf(held: Held): Holder[] {
  const { file, stacks, vmapping } = held;
  const fds = [...fdsOf(held)];
  const cpu = [...held.cpuMappings];
  const references = file.refCount - fds.length - cpu.length; // HO1
  return [
    ...alike("reference", "get()", references, file, stacks).map((holder) => {
      return { ...holder, name: stacks?.callOf(file, holder.stack) ?? holder.name }; // HO4
    }),
    ...fds,
    ...held.attachments.flatMap((attachment) => [...importersOf(attachment, stacks)]),
    ...(vmapping === null ? [] : alike("vmap", "kernel", held.vmapCount, vmapping, stacks)),
    ...cpu.flatMap((mapping) => {
      const name = `${countOf(mapping.pageCount, "page")} from page ${mapping.pageOffset} on`;
      return alike("cpu-mapping", name, 1, mapping, stacks);
    }),
    ...held.resv.entries
      .filter(({ fence }) => !fence.isSignaled)
      .flatMap(({ fence, usage }) => alike("fence", `${fence.name} (${usage})`, 1, fence, stacks)),
    ...held.threads.map((thread): Holder => {
      return { kind: "thread", name: `thread ${thread}`, count: 1, stack: null };
    }),
  ];
}

/** `count` holders that only their stacks tell apart: those of one stack are one row (HO2). */
function alike(
  kind: HolderKind,
  name: string,
  count: number,
  token: object,
  stacks: Stacks | null,
): Holder[] {
  const counts = new Map<string | null, number>();
  const noted = stacks?.of(kind, token).slice(0, count) ?? [];
  for (const stack of noted) counts.set(stack, (counts.get(stack) ?? 0) + 1);
  if (noted.length < count) counts.set(null, count - noted.length);
  return [...counts].map(([stack, times]) => ({ kind, name, count: times, stack }));
}

function* fdsOf({ file, tables }: Held): Generator<Holder> {
  for (const table of tables) {
    for (const fd of table.fds) {
      if (table.peek(fd) !== file) continue;
      const whose = table.name === "" ? "" : ` of ${table.name}`;
      const name = `descriptor ${fd}${whose}`;
      yield { kind: "fd", name, count: 1, stack: table.stackOf(fd) };
    }
  }
}

function* importersOf(attachment: Attachment, stacks: Stacks | null): Generator<Holder> {
  const { name } = attachment.device;
  yield* alike("attachment", name, 1, attachment, stacks);
  for (const { mapping, direction, uses } of attachment.mappings)
    yield* alike("mapping", `${name} ${direction}`, uses, mapping, stacks);
  yield* alike("pin", name, attachment.pinCount, attachment, stacks);
}
