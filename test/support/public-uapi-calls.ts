/**
 * A valid call of each function of `dmabuf/uapi` and `dmabuf/adapters` that takes arguments.
 *
 * @module
 */

import {
  readViews,
  SocketReader,
  sendViews,
  writeGpuBuffer,
  writeGpuTexture,
  writeViews,
} from "../../src/adapters/index.ts";
import * as uapi from "../../src/uapi/index.ts";
import { fn, LIMIT, noRead, noWrite, on, type PublicCall, type World } from "./public-world.ts";

/** The system-call face, and what carries bytes elsewhere. */
export function uapiCalls(w: World): PublicCall[] {
  const request = uapi.dmaHeapAllocationData.encode({ len: 4096n, fdFlags: 2 });
  const { memfd } = w;
  const structs = Object.entries(uapi).flatMap(([name, value]) =>
    value instanceof uapi.Struct
      ? on(name, value, {
          encode: [{}],
          decode: [new Uint8Array(64), 0],
          get: [new Uint8Array(64), Object.keys(value.offsets)[0], 0],
          set: [new Uint8Array(64), Object.keys(value.offsets)[0], 1, 0],
        })
      : [],
  );
  return [
    fn("new Process", (...args: [never]) => new uapi.Process(...args), [w.system, { name: "p" }]),
    ...on("process", w.process, {
      open: ["/dev/udmabuf", 2],
      readdir: ["/dev"],
      close: [memfd],
      dup: [memfd],
      dup3: [memfd, 9, 0],
      fallocate: [w.fd, 0, 0, 4096],
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
    ...on("userMapping", w.userMapping, { at: [0], set: [0, 1] }),
    ...structs,
    fn("new Struct", (...args: [never, never]) => new uapi.Struct(...args), ["s", { a: "u32" }]),
    fn("ioctlNumber", uapi.ioctlNumber, [1, "b", 0, 8]),
    fn("ioctlParts", uapi.ioctlParts, [5]),
    fn("readViews", readViews, [{ readv: noRead }, [w.bytes], {}]),
    fn("writeViews", writeViews, [{ writev: noWrite }, [w.bytes], {}]),
    fn("sendViews", sendViews, [
      { cork() {}, uncork() {}, write: (_: unknown, done: () => void) => done() },
      [w.bytes],
    ]),
    fn("writeGpuBuffer", writeGpuBuffer, [{ writeBuffer() {} }, {}, [w.bytes], 0]),
    fn("writeGpuTexture", writeGpuTexture, [
      { writeTexture() {} },
      {},
      w.bytes,
      { width: 2, height: 2, bytesPerRow: 8 },
    ]),
    fn("new SocketReader", (...args: [never, never]) => new SocketReader(...args), [
      [w.bytes],
      () => null,
    ]),
  ];
}
