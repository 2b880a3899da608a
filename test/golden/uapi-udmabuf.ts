/**
 * `udmabuf_create`, `udmabuf_list`, `udmabuf_content`: /dev/udmabuf.
 *
 * @module
 */

import * as dmabuf from "dmabuf";
import * as uapi from "dmabuf/uapi";
import type { Bed } from "./bed.ts";
import { type Fields, MalformedRecord } from "./fields.ts";
import { factsOf, notYet, type Outcome } from "./outcome.ts";
import { fileNamed, numberOf } from "./uapi-words.ts";
import { attempt, inWorld, type UapiWorld } from "./uapi-world.ts";

const PAGE_BYTES = 4096;
const PAGES = 16;
const MIB = 2 ** 20;
/** More items than any list may have. */
const LIST_MAX = 4096;

interface Item {
  readonly memfd: number;
  readonly offset: bigint;
  readonly size: bigint;
}

/** `udmabuf_create`: a buffer of a part of one memfd. */
export function udmabufCreate(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const memfd = memfdFor(world, fields.text("what"));
    if (memfd === null) return notYet("a file of another kind");
    const item = { memfd, offset: fields.integer("offset"), size: fields.integer("size") };
    const device = world.process.open("/dev/udmabuf");
    const flags = Number(fields.integer("flags"));
    const argument = uapi.udmabufCreate.encode({ ...item, flags });
    return outcome(world, fields, () => world.process.ioctl(device, uapi.UDMABUF_CREATE, argument));
  });
}

/** `udmabuf_list`: a buffer of parts. */
export function udmabufList(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const what = fields.text("what");
    const count = fields.number("count");
    const device = world.process.open("/dev/udmabuf");
    if (what.startsWith("unknown ioctl")) {
      const number = Number(what.split(" ").at(-1));
      const command = uapi.ioctlNumber(uapi.IOC_WRITE, "u", number, 8);
      return outcome(world, fields, () => world.process.ioctl(device, command, new Uint8Array(8)));
    }
    const items = what === "NULL" ? [] : listFor(world, what, count);
    if (items === null) return notYet("a list of another kind");
    const argument = what === "NULL" ? null : encodeList(items, count, flagsOf(what));
    return outcome(world, fields, () =>
      world.process.ioctl(device, uapi.UDMABUF_CREATE_LIST, argument),
    );
  });
}

/** `udmabuf_content`: the same bytes from both sides, and sealing afterwards. */
export function udmabufContent(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const { process } = world;
    const memfd = sealedMemfd(world, PAGES * PAGE_BYTES, dmabuf.F_SEAL_SHRINK);
    const memory = world.map(memfd, PAGES * PAGE_BYTES);
    for (let page = 0; page < PAGES; page++) memory.set(page * PAGE_BYTES, page + 1);
    const list = fields.list("list").map(Number);
    const items = list.map((page) => pageItem(memfd, page));
    const argument = encodeList(items, items.length, 1);
    const fd = process.ioctl(process.open("/dev/udmabuf"), uapi.UDMABUF_CREATE_LIST, argument);
    const buffer = world.map(fd, list.length * PAGE_BYTES);
    const firstBytes = list.map((_, i) => buffer.at(i * PAGE_BYTES));
    const slotOfPage0 = list.indexOf(0);
    buffer.set(slotOfPage0 * PAGE_BYTES, 200);
    memory.set((list[2] ?? 0) * PAGE_BYTES, 201);
    const rw = uapi.PROT_READ + uapi.PROT_WRITE;
    return {
      facts: factsOf(fields, {
        firstBytes,
        afterWriteThroughDmabufMemfdPage0: memory.at(0),
        afterWriteThroughMemfdDmabufPage2: buffer.at(2 * PAGE_BYTES),
        mmapPrivate: attempt(() => process.mmap(PAGE_BYTES, rw, uapi.MAP_PRIVATE, fd)),
        ftruncateSealedShrink: attempt(() => process.ftruncate(memfd, PAGE_BYTES)),
        addSealWriteAfterCreate: attempt(() => {
          memory.unmap();
          process.fcntl(memfd, uapi.F_ADD_SEALS, dmabuf.F_SEAL_WRITE);
        }),
      }),
    };
  });
}

function outcome(world: UapiWorld, fields: Fields, create: () => number): Outcome {
  let fd = -1;
  const r = attempt(() => {
    fd = create();
  });
  if (r !== "OK") return { facts: factsOf(fields, { r }) };
  const all = {
    r,
    seekEnd: world.seekEnd(fd),
    getfl: world.getfl(fd),
    getfd: world.getfd(fd),
    fdinfo: world.fdinfo(fd),
  };
  const asked = Object.entries(all).filter(([name]) => fields.has(name));
  return { facts: factsOf(fields, Object.fromEntries(asked)) };
}

/** A memfd of so many bytes; `seals` null: sealing is not allowed. */
function sealedMemfd({ process }: UapiWorld, sizeBytes: number, seals: number | null): number {
  const memfd = process.memfdCreate("record", seals === null ? 0 : uapi.MFD_ALLOW_SEALING);
  process.ftruncate(memfd, sizeBytes);
  if (seals !== null && seals !== 0) process.fcntl(memfd, uapi.F_ADD_SEALS, seals);
  return memfd;
}

/** The descriptor that a text describes; null for a text that is not known. */
function memfdFor(world: UapiWorld, what: string): number | null {
  const { process } = world;
  const seals = sealsOf(what);
  const [, count, unit = ""] = /(\d+)(?: (pages?|bytes|MiB))/.exec(what) ?? [];
  const size = count ?? /\bsize (\d+)/.exec(what)?.[1];
  const isMemfd = /^memfd\b(?! -?\d+$)/.test(what);
  const isSized = isMemfd && size !== undefined;
  const unitBytes = unit.startsWith("page") ? PAGE_BYTES : unit === "MiB" ? MIB : 1;
  const sizeBytes = isSized ? Number(size) * unitBytes : PAGES * PAGE_BYTES;
  if (/tmpfs|rootfs|(without|no) MFD_ALLOW_SEALING/.test(what))
    return sealedMemfd(world, sizeBytes, null); // whose files can never be sealed
  const [, reopened] = /reopened (read|write)-only/.exec(what) ?? [];
  if (reopened !== undefined) {
    const memfd = sealedMemfd(world, sizeBytes, seals ?? dmabuf.F_SEAL_SHRINK);
    const mode = reopened === "read" ? dmabuf.O_RDONLY : dmabuf.O_WRONLY;
    return process.open(`/proc/self/fd/${memfd}`, mode);
  }
  if (isSized || seals !== null)
    return sealedMemfd(world, sizeBytes, seals ?? dmabuf.F_SEAL_SHRINK);
  return fileNamed(world, what);
}

/** The seals that a text names; null: it says nothing about seals. */
function sealsOf(text: string): number | null {
  if (/\bno seals/.test(text)) return 0;
  const names = [...text.matchAll(/F_SEAL_\w+/g)].join("|");
  if (names === "") return null;
  const seals = numberOf(names);
  if (seals === null) throw new MalformedRecord(`there is a seal unknown in ${names}`);
  return Number(seals);
}

function flagsOf(what: string): number {
  const flags = /flags (0x[0-9a-f]+|\d+)/i.exec(what)?.[1];
  return flags === undefined ? uapi.UDMABUF_FLAGS_CLOEXEC : Number(flags);
}

function pageItem(memfd: number, page: number, pageCount = 1): Item {
  return { memfd, offset: BigInt(page * PAGE_BYTES), size: BigInt(pageCount * PAGE_BYTES) };
}

/** The items that a text describes; null for a text that is not known. */
function listFor(world: UapiWorld, what: string, count: number): Item[] | null {
  const seal = dmabuf.F_SEAL_SHRINK;
  const large = /^(\w+) items? of (\d+) MiB$/.exec(what);
  if (large !== null) {
    const size = BigInt(Number(large[2]) * MIB);
    const memfd = sealedMemfd(world, Number(size), seal);
    return Array.from({ length: count }, () => ({ memfd, offset: 0n, size }));
  }
  const memfd = sealedMemfd(world, PAGES * PAGE_BYTES, seal);
  const listed = Math.min(count, LIST_MAX); // a longer list is refused by its count alone
  const items = Array.from({ length: listed }, (_, i) => pageItem(memfd, i % PAGES));
  if (/^n items|all good$|^flags /.test(what)) return items;
  if (what === "overlapping items") return spread(items, [2, 1, 1]);
  const fault = /^(first|second|third) item (.+)$/.exec(what);
  const at = ["first", "second", "third"].indexOf(fault?.[1] ?? "");
  const item = items[at];
  if (item === undefined) return null;
  const changed = faulty(world, item, fault?.[2] ?? "");
  if (changed === null) return null;
  items[at] = changed;
  return items;
}

/** Items that begin one page after the other and are so many pages long. */
function spread(items: readonly Item[], pageCounts: readonly number[]): Item[] {
  return items.map(({ memfd }, i) => pageItem(memfd, i, pageCounts[i] ?? 1));
}

function faulty(world: UapiWorld, item: Item, fault: string): Item | null {
  if (fault.includes("unaligned size")) return { ...item, size: 100n };
  if (fault.includes("unaligned offset")) return { ...item, offset: 100n };
  if (fault.includes("beyond the end")) return { ...item, offset: BigInt(PAGES * PAGE_BYTES) };
  if (fault === "bad memfd") return { ...item, memfd: -1 };
  if (fault === "size 0") return { ...item, size: 0n };
  const memfd = memfdFor(world, fault.replace(/^(of|is) (an? )?/, ""));
  return memfd === null ? null : { ...item, memfd };
}

function encodeList(items: readonly Item[], count: number, flags: number): Uint8Array {
  const head = uapi.udmabufCreateList.encode({ flags, count });
  const parts = [head, ...items.map((item) => uapi.udmabufCreateItem.encode(item))];
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
