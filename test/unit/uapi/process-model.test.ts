import { describe, expect, test } from "vitest";
import { type DmaBuf, F_SEAL_SHRINK, MiB, O_CLOEXEC, O_RDWR, POLLOUT } from "../../../src/index.ts";
import * as uapi from "../../../src/uapi/index.ts";
import { eachCore } from "../../support/cores.ts";
import { fuzzSeed, Prng } from "../../support/prng.ts";
import { allocBuffer } from "../../support/program.ts";

const EVENTS = 800;
const SEED = fuzzSeed(20261122);

/** A process, and what the model knows of it: the buffers behind its numbers and its mappings. */
interface Known {
  readonly process: uapi.Process;
  readonly fds: Map<number, { readonly buf: DmaBuf; readonly isMarked: boolean }>;
  readonly mappings: { readonly buf: DmaBuf; readonly mapping: uapi.UserMapping | null }[];
}

describe.each(eachCore)("processes on the $name core", (build) => {
  test(`hold references as a model counts them, seed ${SEED}`, () => {
    const random = new Prng(SEED);
    const system = build.system({ memoryBytes: 4 * MiB });
    const known: Known[] = [];
    const begin = (process: uapi.Process): Known => {
      const one = { process, fds: new Map(), mappings: [] };
      known.push(one);
      return one;
    };
    const first = begin(new uapi.Process(system, { fdLimit: 16 }));
    const bufs = new Set<DmaBuf>();
    const lowest = ({ fds }: Known): number => {
      let fd = 0;
      while (fds.has(fd)) fd += 1;
      return fd;
    };
    const make = ({ process, fds }: Known): void => {
      const fd = random.below(2) === 0 ? fromHeap(process) : fromMemfd(process);
      const buf = process.dmaBuf(fd);
      buf.put();
      bufs.add(buf);
      fds.set(fd, { buf, isMarked: process.fcntl(fd, uapi.F_GETFD) === 1 });
    };
    const events: ((one: Known, other: Known) => void)[] = [
      (one) => one.fds.size < 14 && make(one),
      ({ process, fds }) => {
        if (fds.size === 0) return;
        const fd = random.pick([...fds.keys()]);
        process.close(fd);
        fds.delete(fd);
      },
      (one) => {
        if (one.fds.size === 0 || one.fds.size > 13) return;
        const fd = random.pick([...one.fds.keys()]);
        const { buf } = one.fds.get(fd) as { buf: DmaBuf };
        const to = lowest(one);
        expect(one.process.dup(fd)).toBe(to);
        one.fds.set(to, { buf, isMarked: false });
      },
      (one, other) => {
        if (one.fds.size === 0 || other.fds.size > 13) return;
        const fd = random.pick([...one.fds.keys()]);
        const { buf } = one.fds.get(fd) as { buf: DmaBuf };
        const to = lowest(other);
        expect(one.process.sendFd(fd, other.process, { closeOnExec: true })).toBe(to);
        other.fds.set(to, { buf, isMarked: true });
      },
      (one) => {
        if (one.fds.size === 0) return;
        const [fd, { buf }] = random.pick([...one.fds]);
        const mapping = one.process.mmap(1, uapi.PROT_READ, uapi.MAP_SHARED, fd);
        one.mappings.push({ buf, mapping });
      },
      (one) => {
        const at = one.mappings.findIndex(({ mapping }) => mapping !== null);
        if (at >= 0) one.mappings.splice(at, 1)[0]?.mapping?.unmap();
      },
      (one) => {
        if (known.length > 4) return;
        const child = begin(one.process.fork());
        for (const [fd, held] of one.fds) child.fds.set(fd, held);
        child.mappings.push(...one.mappings.map(({ buf }) => ({ buf, mapping: null })));
      },
      (one) => {
        one.process.exec("next");
        one.mappings.length = 0;
        for (const [fd, { isMarked }] of [...one.fds]) if (isMarked) one.fds.delete(fd);
      },
      (one) => {
        if (one === first || known.length < 3) return;
        one.process.exit();
        known.splice(known.indexOf(one), 1);
      },
      ({ process, fds }) => {
        for (const fd of fds.keys())
          expect(process.poll([{ fd, events: POLLOUT }])).toEqual([POLLOUT]);
      },
    ];
    for (let event = 0; event < EVENTS; event++) {
      random.pick(events)(random.pick(known), random.pick(known));
      for (const buf of bufs) {
        const holders = known.flatMap(({ fds, mappings }) => [...fds.values(), ...mappings]);
        const count = holders.filter((holder) => holder.buf === buf).length;
        expect(buf.refCount, `event ${event}`).toBe(count);
        if (count === 0) bufs.delete(buf);
      }
      for (const { process, fds } of known)
        expect(process.files.fds).toEqual([...fds.keys()].sort((a, b) => a - b));
      expect(system.stats().bufferCount).toBe(bufs.size);
      expect(system.check(), `event ${event}`).toBeNull();
    }
    for (const { process } of known) process.exit();
    expect(system.stats().bufferCount).toBe(0);
    expect(system.check(true)).toBeNull();
    system.close();
  });

  function fromHeap(process: uapi.Process): number {
    return allocBuffer(process, 8192, O_RDWR + O_CLOEXEC);
  }

  function fromMemfd(process: uapi.Process): number {
    const memfd = process.memfdCreate("m", uapi.MFD_ALLOW_SEALING);
    process.ftruncate(memfd, 8192);
    process.fcntl(memfd, uapi.F_ADD_SEALS, F_SEAL_SHRINK);
    const device = process.open("/dev/udmabuf");
    const argument = uapi.udmabufCreate.encode({ memfd, size: 4096n });
    const fd = process.ioctl(device, uapi.UDMABUF_CREATE, argument);
    process.close(memfd);
    process.close(device);
    return fd;
  }
});
