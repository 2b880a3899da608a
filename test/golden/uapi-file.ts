/**
 * `lseek`, `mmap`, `mmap_facts`, `sync`, `sync_sequence`, `sync_rdonly_fd`, `set_name`, `lifetime`,
 * `stat`, `stat2`: a buffer's file.
 *
 * @module
 */

import { O_CLOEXEC, O_RDONLY, O_RDWR } from "dmabuf";
import * as uapi from "dmabuf/uapi";
import type { Bed } from "./bed.ts";
import { type Fields, MalformedRecord } from "./fields.ts";
import { factsOf, type Outcome } from "./outcome.ts";
import { attempt, inWorld, UapiWorld, type Verdict } from "./uapi-world.ts";

const PAGE_BYTES = 4096;

/** `lseek`. */
export function lseek(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const fd = world.alloc(fields.number("size"));
    let r = -1;
    const errno = attempt(() => {
      r = world.process.lseek(fd, Number(fields.integer("offset")), fields.number("whence"));
    });
    return { facts: factsOf(fields, { r, errno }) };
  });
}

/** `mmap` of a part of a buffer. */
export function mmap(fields: Fields, bed: Bed): Outcome {
  const [prots = "", sharing] = fields.text("mode").split(" ");
  const bits = { R: uapi.PROT_READ, W: uapi.PROT_WRITE, X: 4 };
  const prot = Object.entries(bits).reduce(
    (sum, [letter, bit]) => (prots.includes(letter) ? sum + bit : sum),
    0,
  );
  const flags = sharing === "shared" ? uapi.MAP_SHARED : uapi.MAP_PRIVATE;
  return inWorld(bed, (world) => {
    const fd = world.alloc(fields.number("size"));
    const { process } = world;
    const [length, offset] = [fields.integer("len"), fields.integer("offset")];
    const r = attempt(() => process.mmap(length, prot, flags, fd, offset));
    return { facts: factsOf(fields, { r }) };
  });
}

/** `mmap_facts`: an offset shows another page, and a mapping outlives its descriptor. */
export function mmapFacts(fields: Fields, bed: Bed): Outcome {
  const page1ThroughOffset = fields.number("page1ThroughOffset");
  const afterCloseStillMapped = fields.number("afterCloseStillMapped");
  return inWorld(bed, (world) => {
    const fd = world.alloc(2 * PAGE_BYTES);
    const whole = world.map(fd, 2 * PAGE_BYTES);
    whole.set(PAGE_BYTES, page1ThroughOffset);
    const second = world.map(fd, PAGE_BYTES, PAGE_BYTES);
    const found = second.at(0);
    world.process.close(fd);
    second.set(0, afterCloseStillMapped);
    return {
      facts: factsOf(fields, {
        page1ThroughOffset: found,
        afterCloseStillMapped: whole.at(PAGE_BYTES),
      }),
    };
  });
}

function sync({ process }: UapiWorld, fd: number, flags: bigint): Verdict {
  const argument = uapi.dmaBufSync.encode({ flags });
  return attempt(() => process.ioctl(fd, uapi.DMA_BUF_IOCTL_SYNC, argument));
}

/** `sync` and `sync_rdonly_fd`: one bracket of an idle buffer. */
export function syncOnce(fields: Fields, bed: Bed): Outcome {
  const mode = fields.kind === "sync_rdonly_fd" ? O_RDONLY : O_RDWR;
  return inWorld(bed, (world) => {
    const r = sync(world, world.alloc(PAGE_BYTES, mode), fields.integer("flags"));
    return { facts: factsOf(fields, { r }) };
  });
}

/** `sync_sequence`: brackets that neither nest nor match. */
export function syncSequence(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const fd = world.alloc();
    const seq = (fields.list("seq") as readonly (readonly [number, string])[]).map(([flags]) => [
      flags,
      sync(world, fd, BigInt(flags)),
    ]);
    return { facts: factsOf(fields, { seq }) };
  });
}

/** `set_name`: the records of one file name one buffer, one after the other. */
export function setName(fields: Fields, bed: Bed): Outcome {
  const { world, fd } = bed.memo("set_name", () => {
    const kept = new UapiWorld(bed);
    bed.atEnd(() => kept.close());
    return { world: kept, fd: kept.alloc() };
  });
  const command = uapi.ioctlNumber(uapi.IOC_WRITE, "b", 1, fields.number("cmdSize"));
  const length = fields.number("len");
  const text = length < 0 ? null : fields.text("char").repeat(length);
  const argument = text === null ? null : new TextEncoder().encode(`${text}\0`);
  const r = attempt(() => world.process.ioctl(fd, command, argument));
  const all = {
    r,
    link: world.process.readlink(`/proc/self/fd/${fd}`),
    fdinfo: world.fdinfo(fd),
  };
  const asked = Object.entries(all).filter(([name]) => fields.has(name));
  return { facts: factsOf(fields, Object.fromEntries(asked)) };
}

/** `lifetime`: references, as fdinfo counts them. */
export function lifetime(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const life = new Lifetime(world);
    const steps = (fields.list("steps") as readonly (readonly [string, unknown])[]).map(
      ([what]) => [what, life.step(what)],
    );
    return { facts: factsOf(fields, { steps }) };
  });
}

/** The descriptors of one buffer, in the order they were made. */
class Lifetime {
  readonly #world: UapiWorld;
  #original = -1;
  #fds: number[] = [];
  #mapping: uapi.UserMapping | null = null;
  #child: uapi.Process | null = null;

  constructor(world: UapiWorld) {
    this.#world = world;
  }

  /** Does what a step says. What it tells: a value, or fdinfo of the oldest descriptor. */
  step(what: string): unknown {
    const { process } = this.#world;
    const [first = -1] = this.#fds;
    switch (what) {
      case "alloc":
        this.#original = this.#world.alloc();
        this.#fds.push(this.#original);
        break;
      case "dup":
        this.#fds.push(process.dup(first));
        break;
      case "dup cloexec":
        this.#fds.push(process.fcntl(first, uapi.F_DUPFD_CLOEXEC));
        break;
      case "close original":
      case "close dup":
        process.close(first);
        this.#fds.shift();
        break;
      case "lseek on closed fd":
        return attempt(() => this.#world.seekEnd(this.#original));
      case "lseek on dup":
        return this.#world.seekEnd(first);
      case "mmap":
        this.#mapping = this.#world.map(first, PAGE_BYTES);
        break;
      case "munmap":
        this.#mapping?.unmap();
        break;
      case "fork":
        this.#child = process.fork();
        break;
      case "child gone":
        this.#child?.exit();
        break;
      default:
        throw new MalformedRecord(`there is no step ${what}`);
    }
    return this.#world.fdinfo(this.#fds[0] ?? -1);
  }
}

/** `stat` and `stat2`: the inode. */
export function stat(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const fd = world.alloc(PAGE_BYTES, O_RDWR + O_CLOEXEC);
    const { process } = world;
    const { ino, mode, nlink, blockBytes } = process.fstat(fd);
    const all = {
      mode,
      nlink,
      blksize: blockBytes,
      dupSameIno: process.fstat(process.dup(fd)).ino === ino,
      otherBufferOtherIno: process.fstat(world.alloc()).ino !== ino,
    };
    const asked = Object.entries(all).filter(([name]) => fields.has(name));
    return { facts: factsOf(fields, Object.fromEntries(asked)) };
  });
}
