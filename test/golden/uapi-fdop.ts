/**
 * `fdop`: other system calls, on a buffer, a sync file, a timeline.
 *
 * @module
 */

import { O_APPEND, O_NONBLOCK, O_RDWR } from "dmabuf";
import * as uapi from "dmabuf/uapi";
import type { Bed } from "./bed.ts";
import type { Fields } from "./fields.ts";
import { factsOf, notYet, type Outcome } from "./outcome.ts";
import { attempt, inWorld, type UapiWorld } from "./uapi-world.ts";

type Call = (world: UapiWorld, fd: number) => unknown;

const bytes = (): Uint8Array => new Uint8Array(16);
const READ_WRITE = uapi.IOC_READ + uapi.IOC_WRITE;

/** What each text calls. */
const calls: Readonly<Record<string, Call>> = {
  read: ({ process }, fd) => process.read(fd, bytes()),
  write: ({ process }, fd) => process.write(fd, bytes()),
  pread: ({ process }, fd) => process.pread(fd, bytes(), 0),
  pwrite: ({ process }, fd) => process.pwrite(fd, bytes(), 0),
  lseek: ({ process }, fd) => process.lseek(fd, 0, uapi.SEEK_END),
  ftruncate: ({ process }, fd) => process.ftruncate(fd, 4096),
  fallocate: ({ process }, fd) => process.fallocate(fd, 0, 0, 4096),
  fsync: ({ process }, fd) => process.fsync(fd),
  fdatasync: ({ process }, fd) => process.fsync(fd),
  mmap: ({ process }, fd) => process.mmap(4096, uapi.PROT_READ, uapi.MAP_SHARED, fd),
  "unknown ioctl": ({ process }, fd) =>
    process.ioctl(fd, uapi.ioctlNumber(READ_WRITE, "x", 77, 8), bytes()),
  "F_SETFL O_NONBLOCK": ({ process }, fd) => process.fcntl(fd, uapi.F_SETFL, O_NONBLOCK),
  "F_SETFL O_APPEND": ({ process }, fd) => process.fcntl(fd, uapi.F_SETFL, O_APPEND),
  "inc NULL": ({ process }, fd) => process.ioctl(fd, uapi.SW_SYNC_IOC_INC, null),
  "create NULL": ({ process }, fd) => process.ioctl(fd, uapi.SW_SYNC_IOC_CREATE_FENCE, null),
  "merge NULL": ({ process }, fd) => process.ioctl(fd, uapi.SYNC_IOC_MERGE, null),
  "info NULL": ({ process }, fd) => process.ioctl(fd, uapi.SYNC_IOC_FILE_INFO, null),
};

/** `fdop`. */
export function fdop(fields: Fields, bed: Bed): Outcome {
  const [, owner, op = ""] = /^(?:(sync_file|sw_sync) )?(.*)$/.exec(fields.text("op")) ?? [];
  const call = calls[op] ?? ioctlOf(op);
  if (call === null) return notYet(`the call ${op}`);
  return inWorld(bed, (world) => {
    const fd = fileOf(world, owner);
    const r = attempt(() => call(world, fd));
    return { facts: factsOf(fields, fields.has("getfl") ? { r, getfl: world.getfl(fd) } : { r }) };
  });
}

function fileOf(world: UapiWorld, owner: string | undefined): number {
  if (owner === undefined) return world.alloc(4096, O_RDWR);
  const timeline = world.timeline("tl");
  return owner === "sw_sync" ? timeline : world.fence(timeline, 1);
}

/** "ioctl b 9": an ioctl by type and number. */
function ioctlOf(op: string): Call | null {
  const match = /^ioctl (\S) (\d+)$/.exec(op);
  if (match === null) return null;
  const command = uapi.ioctlNumber(READ_WRITE, match[1] as string, Number(match[2]), 8);
  return ({ process }, fd) => process.ioctl(fd, command, bytes());
}
