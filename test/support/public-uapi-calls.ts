/**
 * A valid call of each function of `dmabuf/uapi` and `dmabuf/adapters` that takes arguments.
 *
 * @module
 */

import { readViews, SocketReader, sendViews, writeViews } from "../../src/adapters/index.ts";
import * as uapi from "../../src/uapi/index.ts";
import { fn, LIMIT, noRead, noWrite, on, type PublicCall, type World } from "./public-world.ts";

/** The system-call face, and what carries bytes elsewhere. */
export function uapiCalls(w: World): PublicCall[] {
  const request = uapi.dmaHeapAllocationData.encode({ len: 4096n, fdFlags: 2 });
  const { memfd } = w;
  const structs = Object.entries(uapi).flatMap(([name, value]) =>
    value instanceof uapi.Struct
      ? [
          fn(`${name}.encode`, (values) => value.encode(values), [{}]),
          fn(`${name}.decode`, (bytes) => value.decode(bytes), [new Uint8Array(64)]),
        ]
      : [],
  );
  return [
    fn("new Process", (...args: [never]) => new uapi.Process(...args), [w.system, { name: "p" }]),
    ...on("process", w.process, {
      open: ["/dev/udmabuf", 2],
      readdir: ["/dev"],
      close: [memfd],
      dup: [memfd],
      fcntl: [memfd, uapi.F_GETFL, 0],
      ioctl: [w.heapFd, uapi.DMA_HEAP_IOCTL_ALLOC, request],
      ioctlAsync: [w.heapFd, uapi.DMA_HEAP_IOCTL_ALLOC, request, {}],
      lseek: [memfd, 0, 0],
      read: [memfd, w.bytes],
      write: [memfd, w.bytes],
      pread: [memfd, w.bytes, 0],
      pwrite: [memfd, w.bytes, 0],
      ftruncate: [memfd, 4096],
      fsync: [memfd],
      mmap: [4096, 3, 1, memfd, 0],
      poll: [[{ fd: memfd, events: 1 }]],
      pollAsync: [[{ fd: memfd, events: 1 }], LIMIT],
      memfdCreate: ["n", 0],
      readlink: ["/proc/self/fd/0"],
      fdinfo: [memfd],
      fstat: [memfd],
      sendFd: [memfd, w.process, { closeOnExec: true }],
      exec: ["n"],
      dmaBuf: [w.fd],
      install: [w.file, {}],
    }),
    ...structs,
    fn("ioctlNumber", uapi.ioctlNumber, [1, "b", 0, 8]),
    fn("ioctlParts", uapi.ioctlParts, [5]),
    fn("readViews", readViews, [{ readv: noRead }, [w.bytes], {}]),
    fn("writeViews", writeViews, [{ writev: noWrite }, [w.bytes], {}]),
    fn("sendViews", sendViews, [
      { cork() {}, uncork() {}, write: (_: unknown, done: () => void) => done() },
      [w.bytes],
    ]),
    fn("new SocketReader", (...args: [never, never]) => new SocketReader(...args), [
      [w.bytes],
      () => null,
    ]),
  ];
}
