/**
 * `fdop`: other system calls, on a buffer, a sync file, a timeline.
 *
 * @module
 */

import { O_RDWR } from "dmabuf";
import * as uapi from "dmabuf/uapi";
import type { Bed } from "./bed.ts";
import type { Fields } from "./fields.ts";
import { factsOf, notYet, type Outcome } from "./outcome.ts";
import { fileNamed, numberOf } from "./uapi-words.ts";
import { attempt, inWorld, type UapiWorld } from "./uapi-world.ts";

type Call = (world: UapiWorld, fd: number) => unknown;

const bytes = (): Uint8Array => new Uint8Array(16);
const READ_WRITE = uapi.IOC_READ + uapi.IOC_WRITE;

/** What each text calls. */
const calls: Readonly<Record<string, Call>> = {
  read: ({ process }, fd) => process.read(fd, bytes()),
  readv: ({ process }, fd) => process.read(fd, bytes()),
  write: ({ process }, fd) => process.write(fd, bytes()),
  writev: ({ process }, fd) => process.write(fd, bytes()),
  pread: ({ process }, fd) => process.pread(fd, bytes(), 0),
  preadv: ({ process }, fd) => process.pread(fd, bytes(), 0),
  pwrite: ({ process }, fd) => process.pwrite(fd, bytes(), 0),
  pwritev: ({ process }, fd) => process.pwrite(fd, bytes(), 0),
  lseek: ({ process }, fd) => process.lseek(fd, 0, uapi.SEEK_END),
  ftruncate: ({ process }, fd) => process.ftruncate(fd, 4096),
  fallocate: ({ process }, fd) => process.fallocate(fd, 0, 0, 4096),
  fsync: ({ process }, fd) => process.fsync(fd),
  fdatasync: ({ process }, fd) => process.fsync(fd),
  mmap: ({ process }, fd) => process.mmap(4096, uapi.PROT_READ, uapi.MAP_SHARED, fd),
  "unknown ioctl": ({ process }, fd) =>
    process.ioctl(fd, uapi.ioctlNumber(READ_WRITE, "x", 77, 8), bytes()),
  F_GETFL: ({ process }, fd) => process.fcntl(fd, uapi.F_GETFL),
  F_GETFD: ({ process }, fd) => process.fcntl(fd, uapi.F_GETFD),
  F_GET_SEALS: ({ process }, fd) => process.fcntl(fd, uapi.F_GET_SEALS),
  "inc NULL": ({ process }, fd) => process.ioctl(fd, uapi.SW_SYNC_IOC_INC, null),
  "create NULL": ({ process }, fd) => process.ioctl(fd, uapi.SW_SYNC_IOC_CREATE_FENCE, null),
  "merge NULL": ({ process }, fd) => process.ioctl(fd, uapi.SYNC_IOC_MERGE, null),
  "info NULL": ({ process }, fd) => process.ioctl(fd, uapi.SYNC_IOC_FILE_INFO, null),
  "sync NULL": ({ process }, fd) => process.ioctl(fd, uapi.DMA_BUF_IOCTL_SYNC, null),
  "alloc NULL": ({ process }, fd) => process.ioctl(fd, uapi.DMA_HEAP_IOCTL_ALLOC, null),
};

/** A call, and whose it is: a buffer's, if the text does not say. */
const OWNED = /^(?:(sync_file|sw_sync|udmabuf|heap|memfd) )?(.*)$/;

/** `fdop`. */
export function fdop(fields: Fields, bed: Bed): Outcome {
  const [, owner, op = ""] = OWNED.exec(fields.text("op")) ?? [];
  const call = Object.hasOwn(calls, op) ? calls[op] : (ioctlOf(op) ?? fcntlOf(op));
  if (call === null || call === undefined) return notYet(`the call ${op}`);
  return inWorld(bed, (world) => {
    const fd = fileOf(world, owner);
    const r = attempt(() => call(world, fd));
    return { facts: factsOf(fields, fields.has("getfl") ? { r, getfl: world.getfl(fd) } : { r }) };
  });
}

function fileOf(world: UapiWorld, owner: string | undefined): number {
  const fd = owner === undefined ? null : fileNamed(world, owner);
  return fd ?? world.alloc(4096, O_RDWR);
}

/** "F_SETFL O_NONBLOCK", "F_ADD_SEALS F_SEAL_SHRINK": a command with its argument. */
function fcntlOf(op: string): Call | null {
  const [, name = "", text = ""] = /^(F_\w+) (.+)$/.exec(op) ?? [];
  const command = (uapi as unknown as Record<string, unknown>)[name];
  const argument = numberOf(text);
  if (typeof command !== "number" || argument === null) return null;
  return ({ process }, fd) => process.fcntl(fd, command, Number(argument));
}

/** "ioctl b 9": an ioctl by type and number, and by the argument's size. */
function ioctlOf(op: string): Call | null {
  const [, type, number, size = "8"] = /^ioctl (\S) (\d+)(?: size (\d+))?$/.exec(op) ?? [];
  if (type === undefined) return null;
  const command = uapi.ioctlNumber(READ_WRITE, type, Number(number), Number(size));
  return ({ process }, fd) => process.ioctl(fd, command, bytes());
}
