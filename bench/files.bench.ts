/**
 * What do descriptors and system calls cost above the calls they make?
 *
 *     files/dup        table.dup() + close() among 1000 open descriptors
 *     files/poll       buf.poll() of an idle buffer, both directions
 *     files/export     buf.exportSyncFile() of an idle buffer + poll + put
 *     files/alloc      system.heap("system").alloc(4096) + put()
 *     files/alloc/uapi the same as ioctl(DMA_HEAP_IOCTL_ALLOC) + close(), structs included
 *     files/sync/uapi  ioctl(DMA_BUF_IOCTL_SYNC), structs included
 *
 * Nanoseconds per operation. The peer of dup opens and closes /dev/null: a table of descriptors
 * too, that of the kernel underneath.
 *
 * @module
 */

import assert from "node:assert/strict";
import { closeSync, openSync as openFile } from "node:fs";
import { FdTable, MiB, O_RDWR, openSync, POLLIN, POLLOUT, SyncFile } from "dmabuf";
import * as uapi from "dmabuf/uapi";
import type { Family, Suite } from "./suite.ts";

const OPEN_COUNT = 1000;

/** Adds the rows. */
export const family: Family = (suite: Suite) => {
  const system = openSync({ memoryBytes: 16 * MiB });
  addFiles(suite, system.fence("bench"));
  addCalls(suite, new uapi.Process(system));
  const buf = system.heap("system").alloc(4096);
  suite.row("files/poll", "poll", () => ({
    run(count) {
      let ready = 0;
      for (let i = 0; i < count; i++) ready += buf.poll(POLLIN + POLLOUT);
      assert.equal(ready, count * (POLLIN + POLLOUT));
    },
  }));
  suite.row("files/export", "file", () => ({
    run(count) {
      let ready = 0;
      for (let i = 0; i < count; i++) {
        const file = buf.exportSyncFile("write");
        ready += file.poll(POLLIN);
        file.put();
      }
      assert.equal(ready, count * POLLIN);
    },
  }));
  suite.row("files/alloc", "buffer", () => ({
    run(count) {
      for (let i = 0; i < count; i++) system.heap("system").alloc(4096).put();
    },
  }));
  assert.equal(system.check(), null);
};

function addFiles(suite: Suite, fence: ConstructorParameters<typeof SyncFile>[0]): void {
  suite.row("files/dup", "fd", () => {
    const table = new FdTable<SyncFile>(2 * OPEN_COUNT);
    table.install(new SyncFile(fence));
    while (table.openCount < OPEN_COUNT) table.dup(0);
    return {
      run(count) {
        for (let i = 0; i < count; i++) table.close(table.dup(0));
        assert.equal(table.openCount, OPEN_COUNT);
      },
      end: () => table.closeAll(),
    };
  });
  suite.peer("files/dup", "fs.openSync", "fd", () => ({
    run(count) {
      for (let i = 0; i < count; i++) closeSync(openFile("/dev/null", "r"));
    },
  }));
}

function addCalls(suite: Suite, process: uapi.Process): void {
  const heap = process.open("/dev/dma_heap/system");
  const request = uapi.dmaHeapAllocationData.encode({ len: 4096n, fdFlags: O_RDWR });
  const argument = new Uint8Array(request.length);
  const alloc = (): number => {
    argument.set(request);
    process.ioctl(heap, uapi.DMA_HEAP_IOCTL_ALLOC, argument);
    return uapi.dmaHeapAllocationData.decode(argument).fd;
  };
  suite.row("files/alloc/uapi", "buffer", () => ({
    run(count) {
      for (let i = 0; i < count; i++) process.close(alloc());
    },
  }));
  const fd = alloc();
  const start = uapi.dmaBufSync.encode({ flags: BigInt(uapi.DMA_BUF_SYNC_READ) });
  suite.row("files/sync/uapi", "call", () => ({
    run(count) {
      for (let i = 0; i < count; i++) process.ioctl(fd, uapi.DMA_BUF_IOCTL_SYNC, start);
    },
  }));
}
