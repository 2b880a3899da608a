import { describe, expect } from "vitest";
import type { DmaBuf, DmaBufOps, System, Vmapping } from "../../src/index.ts";
import { MiB, SyncFile } from "../../src/index.ts";
import { eachCore } from "../support/cores.ts";
import { deaf, watched } from "../support/exporter.ts";
import { matrix } from "../support/matrix.ts";

/**
 * fresh: exported, dynamic exporter. attached: a static importer. vmapped: a kernel mapping.
 * cpu: a CPU mapping. locked: somebody holds buf.resv. busy: an asynchronous call for another
 * device holds it. fenced: a writer is pending. revoked, released: so. ending: the exporter has not
 * ended the kernel mapping.
 */
const table = `
  method             |fresh |attached|vmapped|cpu   |locked|busy  |fenced|revoked|released|ending
  get                |ok    |ok      |ok     |ok    |ok    |ok    |ok    |ok     |ESTALE  |ok
  put                |ok    |EBUSY   |EBUSY  |ok    |ok    |EBUSY |ok    |ok     |ESTALE  |EBUSY
  setName            |ok    |ok      |ok     |ok    |ok    |ok    |ok    |ok     |ESTALE  |ok
  seek               |ok    |ok      |ok     |ok    |ok    |ok    |ok    |ok     |ESTALE  |ok
  stats              |ok    |ok      |ok     |ok    |ok    |ok    |ok    |ok     |ok      |ok
  holders            |ok    |ok      |ok     |ok    |ok    |ok    |ok    |ok     |ok      |ok
  attach             |ok    |ok      |ok     |ok    |EAGAIN|EAGAIN|ok    |ok     |ESTALE  |ok
  attach null        |EINVAL|EINVAL  |EINVAL |EINVAL|EINVAL|EINVAL|EINVAL|EINVAL |ESTALE  |EINVAL
  attach removed     |ENODEV|ENODEV  |ENODEV |ENODEV|ENODEV|ENODEV|ENODEV|ENODEV |ESTALE  |ENODEV
  attach foreign     |EINVAL|EINVAL  |EINVAL |EINVAL|EINVAL|EINVAL|EINVAL|EINVAL |ESTALE  |EINVAL
  attachAsync        |ok    |ok      |ok     |ok    |ETIME |ETIME |ok    |ok     |ESTALE  |ok
  dynamicAttach      |ok    |ok      |ok     |ok    |EAGAIN|EAGAIN|ok    |ok     |ESTALE  |ok
  dynamicAttach {}   |EINVAL|EINVAL  |EINVAL |EINVAL|EINVAL|EINVAL|EINVAL|EINVAL |ESTALE  |EINVAL
  moveNotify         |EINVAL|EINVAL  |EINVAL |EINVAL|ok    |ok    |EINVAL|EINVAL |ESTALE  |EINVAL
  revoke             |ok    |ok      |ok     |ok    |ETIME |ETIME |ok    |ok     |ESTALE  |ok
  beginCpuAccess     |ok    |ok      |ok     |ok    |ok    |ok    |EAGAIN|ok     |ESTALE  |ok
  beginCpuAccessAsync|ok    |ok      |ok     |ok    |ok    |ok    |ETIME |ok     |ESTALE  |ok
  endCpuAccess       |ok    |ok      |ok     |ok    |ok    |ok    |ok    |ok     |ESTALE  |ok
  endCpuAccessAsync  |ok    |ok      |ok     |ok    |ok    |ok    |ok    |ok     |ESTALE  |ok
  mmap               |ok    |ok      |ok     |ok    |ok    |ok    |ok    |ok     |ESTALE  |ok
  mmap too much      |EINVAL|EINVAL  |EINVAL |EINVAL|EINVAL|EINVAL|EINVAL|EINVAL |ESTALE  |EINVAL
  vmap               |ok    |ok      |ok     |ok    |ok    |ok    |ok    |ok     |ESTALE  |EAGAIN
  vmapAsync          |ok    |ok      |ok     |ok    |ok    |ok    |ok    |ok     |ESTALE  |ETIME
  vunmap             |EINVAL|EINVAL  |ok     |EINVAL|EINVAL|EINVAL|EINVAL|EINVAL |EINVAL  |EALREADY
  vunmapAsync        |EINVAL|EINVAL  |ok     |EINVAL|EINVAL|EINVAL|EINVAL|EINVAL |EINVAL  |EALREADY
  exportSyncFile     |ok    |ok      |ok     |ok    |ok    |ok    |ok    |ok     |ESTALE  |ok
  importSyncFile     |ok    |ok      |ok     |ok    |EAGAIN|EAGAIN|ok    |ok     |ESTALE  |ok
  poll               |ok    |ok      |ok     |ok    |ok    |ok    |ok    |ok     |ESTALE  |ok
  dispose            |ok    |EBUSY   |EBUSY  |ok    |ok    |EBUSY |ok    |ok     |ok      |EBUSY
`;

const soon = { timeoutMs: 1 };

/** A system, a buffer in a state, and what its methods are called with. */
class Bench {
  readonly calls: string[] = [];
  readonly buf: DmaBuf;
  readonly system: System;
  readonly #foreign: System;
  #vmapping: Vmapping | null = null;

  constructor(system: System, foreign: System) {
    this.system = system;
    this.#foreign = foreign;
    const slow = new Promise<never>(() => {});
    this.buf = watched(system, this.calls, { pins: true, frames: 2 });
    const ops = this.buf.priv as { map: DmaBufOps["map"] };
    const { map } = ops;
    ops.map = (one, direction) => (one.device.name === "slow" ? slow : map(one, direction));
  }

  async enter(state: string): Promise<void> {
    const { buf, system } = this;
    const states: Record<string, () => unknown> = {
      fresh: () => {},
      attached: () => buf.attach(this.#device("still")),
      vmapped: () => {
        this.#vmapping = buf.vmap();
      },
      cpu: () => buf.mmap(),
      locked: () => buf.resv.lock(),
      busy: () => void buf.dynamicAttach(this.#device("slow"), deaf).mapAsync("to-device"),
      fenced: () => buf.resv.addFence(system.fence("writer"), "write"),
      revoked: () => buf.revoke(),
      released: () => buf.put(),
      ending: () => {
        this.#vmapping = buf.vmap();
        (buf.priv as { vunmap: unknown }).vunmap = () => new Promise(() => {});
        void buf.vunmapAsync(this.#vmapping);
      },
    };
    await states[state]?.();
  }

  call(method: string): unknown {
    const { buf, system } = this;
    const file = new SyncFile(system.fence("late"));
    const gpu = this.#device("gpu");
    const removed = this.#device("removed");
    removed.remove();
    const nothing = null as unknown as typeof gpu;
    const methods: Record<string, () => unknown> = {
      get: () => buf.get(),
      put: () => buf.put(),
      setName: () => buf.setName("frame"),
      seek: () => buf.seek(0, "end"),
      stats: () => buf.stats(),
      holders: () => buf.holders(),
      attach: () => buf.attach(gpu),
      "attach null": () => buf.attach(nothing),
      "attach removed": () => buf.attach(removed),
      "attach foreign": () => buf.attach(this.#foreign.addDevice({ name: "foreign" })),
      attachAsync: () => buf.attachAsync(gpu, soon),
      dynamicAttach: () => buf.dynamicAttach(gpu, deaf),
      "dynamicAttach {}": () => buf.dynamicAttach(gpu, {} as typeof deaf),
      moveNotify: () => buf.moveNotify(),
      revoke: () => buf.revoke(soon),
      beginCpuAccess: () => buf.beginCpuAccess("bidirectional"),
      beginCpuAccessAsync: () => buf.beginCpuAccessAsync("bidirectional", soon),
      endCpuAccess: () => buf.endCpuAccess("bidirectional"),
      endCpuAccessAsync: () => buf.endCpuAccessAsync("bidirectional", soon),
      mmap: () => buf.mmap(),
      "mmap too much": () => buf.mmap({ pageCount: 3 }),
      vmap: () => buf.vmap(),
      vmapAsync: () => buf.vmapAsync(soon),
      vunmap: () => buf.vunmap(this.#vmapping as Vmapping),
      vunmapAsync: () => buf.vunmapAsync(this.#vmapping as Vmapping, soon),
      exportSyncFile: () => buf.exportSyncFile("read"),
      importSyncFile: () => buf.importSyncFile(file, "write"),
      poll: () => buf.poll(1),
      dispose: () => buf[Symbol.dispose](),
    };
    const call = methods[method];
    if (call === undefined) throw new Error(`no method ${method}`);
    return call();
  }

  #device(name: string) {
    return this.system.addDevice({ name, iommu: true });
  }
}

describe.each([eachCore[0], eachCore[3]])("a buffer on the $name core", (build) => {
  const open = () => (build as (typeof eachCore)[0]).system({ memoryBytes: 2 * MiB });
  const foreign = open();
  matrix("method by state", table, async ({ state, method }) => {
    const bench = new Bench(open(), foreign);
    await bench.enter(state);
    const before = JSON.stringify(bench.buf.stats());
    const callsBefore = bench.calls.length;
    return {
      call: () => bench.call(method),
      after: (outcome) => {
        if (outcome !== "ok") expect(JSON.stringify(bench.buf.stats())).toBe(before);
        if (outcome === "ESTALE") expect(bench.calls.length).toBe(callsBefore);
        expect(bench.system.check()).toBeNull();
      },
    };
  });
});
