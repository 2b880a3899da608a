import { describe, expect, test } from "vitest";
import {
  F_SEAL_SHRINK,
  O_APPEND,
  O_CLOEXEC,
  O_DIRECT,
  O_NOATIME,
  O_NONBLOCK,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  POLLIN,
  POLLNVAL,
  POLLOUT,
} from "../../../src/index.ts";
import * as uapi from "../../../src/uapi/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRefusal, expectRejection } from "../../support/errors.ts";
import {
  allocBuffer,
  createFence,
  importFence,
  inc,
  openProgram,
  RW,
  sync,
} from "../../support/program.ts";

describe.each(eachCore)("a process on the $name core", (build) => {
  const open = (options: uapi.ProcessOptions = {}) => openProgram(build, options);

  test("open finds heaps, udmabuf and sw_sync, and takes the lowest free number", () => {
    const [, process] = open();
    expect(process.readdir("/dev/dma_heap")).toEqual(["auto", "reserved", "system"]);
    const paths = ["/dev/dma_heap/reserved", "/dev/udmabuf", "/sys/kernel/debug/sync/sw_sync"];
    expect(paths.map((path) => process.open(path))).toEqual([0, 1, 2]);
    expect([0, 1, 2].map((fd) => process.readlink(`/proc/self/fd/${fd}`))).toEqual(paths);
    process.close(1);
    expect(process.open("sw_sync", O_RDWR + O_CLOEXEC)).toBe(1);
    expect([process.fcntl(1, uapi.F_GETFD), process.fcntl(1, uapi.F_GETFL)]).toEqual([1, O_RDWR]);
    for (const path of ["/dev/dma_heap/none", "/dev/null", "/proc/self/fd/9"])
      expectError("ENOENT", () => process.open(path));
    expectError("ENOENT", () => process.readlink("/proc/self/fd/9"));
    expectError("ENOENT", () => process.readdir("/dev"));
  });

  test("a full table is EMFILE before anything is made", () => {
    const [system, process] = open({ fdLimit: 3 });
    const buf = allocBuffer(process);
    const timeline = process.open("sw_sync");
    const file = createFence(process, timeline, 1);
    expect(process.files.openCount).toBe(3);
    const argument = uapi.dmaBufSyncFile.encode({ flags: 1 });
    for (const call of [
      () => process.open("/dev/udmabuf"),
      () => process.memfdCreate("m"),
      () => process.dup(buf),
      () => createFence(process, timeline, 2),
      () => process.ioctl(buf, uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, argument),
      () => process.ioctl(file, uapi.SYNC_IOC_MERGE, null), // before the argument is looked at
    ])
      expectRefusal(system, "EMFILE", call);
    process.close(file);
    const heap = process.open("/dev/dma_heap/system");
    const request = uapi.dmaHeapAllocationData.encode({ len: 4096n });
    expectRefusal(system, "EMFILE", () => process.ioctl(heap, uapi.DMA_HEAP_IOCTL_ALLOC, request));
    expect(uapi.dmaHeapAllocationData.decode(request).fd).toBe(0);
  });

  test("every call on a descriptor that is not open is EBADF", () => {
    const [, process] = open();
    for (const call of [
      () => process.close(5),
      () => process.dup(5),
      () => process.dup3(5, 6),
      () => process.fcntl(5, uapi.F_GETFL),
      () => process.ioctl(5, uapi.DMA_BUF_IOCTL_SYNC, null),
      () => process.lseek(5, 0, uapi.SEEK_END),
      () => process.read(5, new Uint8Array(1)),
      () => process.write(5, new Uint8Array(1)),
      () => process.pread(5, new Uint8Array(1), 0),
      () => process.pwrite(5, new Uint8Array(1), 0),
      () => process.ftruncate(5, 0),
      () => process.fallocate(5, 0, 0, 1),
      () => process.fsync(5),
      () => process.fstat(5),
      () => process.fdinfo(5),
      () => process.mmap(4096, RW, uapi.MAP_SHARED, 5),
      () => process.dmaBuf(5),
      () => process.sendFd(5, process),
    ])
      expectError("EBADF", call);
    expect(process.poll([{ fd: 5, events: POLLIN }])).toEqual([POLLNVAL]);
  });

  test("ioctl works on bytes and on addresses in the process's memory", () => {
    const [, process] = open();
    const heap = process.open("/dev/dma_heap/system");
    const at = 4096;
    process.memory.set(uapi.dmaHeapAllocationData.encode({ len: 5000n, fdFlags: O_RDWR }), at);
    expect(process.ioctl(heap, uapi.DMA_HEAP_IOCTL_ALLOC, at)).toBe(0);
    const { fd, len } = uapi.dmaHeapAllocationData.decode(process.memory, at);
    expect([process.lseek(fd, 0, uapi.SEEK_END), len]).toEqual([8192, 5000n]);
    process.memory.set(new TextEncoder().encode("frame\0"), 8000);
    process.ioctl(fd, uapi.DMA_BUF_SET_NAME_B, 8000);
    expect(process.readlink(`/proc/self/fd/${fd}`)).toBe("/dmabuf:frame");
    expectError("EFAULT", () => process.ioctl(heap, uapi.DMA_HEAP_IOCTL_ALLOC, 16380));
    expectError("ENOTTY", () => process.ioctl(fd, 0x12345678, 8000));
    expectError("ENOTTY", () => process.ioctl(process.memfdCreate("m"), 0, 8000));
  });

  test("the heap ioctl takes shorter and longer structs, and copies what its number says", () => {
    const [, process] = open();
    const heap = process.open("/dev/dma_heap/reserved");
    const number = (direction: number, size: number) => uapi.ioctlNumber(direction, "H", 0, size);
    const request = () => {
      const bytes = new Uint8Array(64);
      bytes.set(uapi.dmaHeapAllocationData.encode({ len: 4096n, fdFlags: O_WRONLY + O_CLOEXEC }));
      return bytes;
    };
    const fdIn = (bytes: Uint8Array) => uapi.dmaHeapAllocationData.decode(bytes).fd;
    const short = request();
    process.ioctl(heap, number(3, 8), short);
    expect([fdIn(short), process.fcntl(1, uapi.F_GETFL)]).toEqual([0, O_RDONLY]);
    const long = request();
    process.ioctl(heap, number(3, 64), long);
    expect([fdIn(long), process.fcntl(2, uapi.F_GETFL), process.fcntl(2, uapi.F_GETFD)]).toEqual([
      2,
      O_WRONLY,
      1,
    ]);
    const inOnly = request();
    process.ioctl(heap, number(1, 24), inOnly);
    expect([fdIn(inOnly), process.files.openCount]).toEqual([0, 4]);
    const outOnly = request();
    expectError("EINVAL", () => process.ioctl(heap, number(2, 24), outOnly));
    expect(outOnly).toEqual(request());
    expectError("EINVAL", () => process.ioctl(heap, number(2, 24), null));
    expectError("EFAULT", () => process.ioctl(heap, number(3, 24), null));
    expectError("EINVAL", () => process.ioctl(heap, uapi.ioctlNumber(3, "H", 1, 24), request()));
  });

  test("fcntl duplicates, marks and sets flags of descriptors", () => {
    const [, process] = open();
    const fd = allocBuffer(process, 4096, O_RDWR + O_CLOEXEC);
    expect(process.fcntl(fd, uapi.F_DUPFD, 10)).toBe(10);
    expect(process.fcntl(fd, uapi.F_DUPFD_CLOEXEC, 10)).toBe(11);
    expect([fd, 10, 11].map((one) => process.fcntl(one, uapi.F_GETFD))).toEqual([1, 0, 1]);
    process.fcntl(10, uapi.F_SETFD, uapi.FD_CLOEXEC);
    expect(process.fcntl(10, uapi.F_GETFD)).toBe(1);
    process.fcntl(10, uapi.F_SETFL, O_NONBLOCK + O_WRONLY);
    expect(process.fcntl(fd, uapi.F_GETFL)).toBe(O_RDWR + O_NONBLOCK);
    process.fcntl(fd, uapi.F_SETFL, O_APPEND + O_NOATIME);
    expect(process.fcntl(fd, uapi.F_GETFL)).toBe(O_RDWR + O_APPEND + O_NOATIME);
    expectError("EINVAL", () => process.fcntl(fd, uapi.F_SETFL, O_DIRECT));
    expect(process.dup3(fd, 20, O_CLOEXEC)).toBe(20);
    expectError("EINVAL", () => process.dup3(fd, 21, O_NONBLOCK));
    expectError("EINVAL", () => process.fcntl(fd, 77));
    expectError("EINVAL", () => process.fcntl(fd, uapi.F_GET_SEALS));
    expectError("EINVAL", () => process.fcntl(fd, uapi.F_ADD_SEALS, F_SEAL_SHRINK));
    expectError("EINVAL", () => process.fcntl(fd, uapi.F_DUPFD, 5000));
  });

  test("read and write fail on a dma-buf as Linux has it, and work on a memfd", () => {
    const [, process] = open();
    const bytes = Uint8Array.of(1, 2, 3);
    const [rw, ro, wo] = [O_RDWR, O_RDONLY, O_WRONLY].map((mode) =>
      allocBuffer(process, 4096, mode),
    );
    expectError("EINVAL", () => process.read(rw as number, bytes));
    expectError("EINVAL", () => process.write(rw as number, bytes));
    expectError("EBADF", () => process.read(wo as number, bytes));
    expectError("EBADF", () => process.write(ro as number, bytes));
    for (const call of [
      () => process.pread(rw as number, bytes, 0),
      () => process.pwrite(rw as number, bytes, 0),
    ])
      expectError("ESPIPE", call);
    expectError("EINVAL", () => process.ftruncate(rw as number, 0));
    expectError("ENODEV", () => process.fallocate(rw as number, 0, 0, 4096));
    expectError("EINVAL", () => process.fsync(rw as number));
    const memfd = process.memfdCreate("m");
    expect([process.write(memfd, bytes), process.pwrite(memfd, bytes, 4)]).toEqual([3, 3]);
    const into = new Uint8Array(8);
    expect([process.lseek(memfd, 1, uapi.SEEK_SET), process.read(memfd, into)]).toEqual([1, 6]);
    expect([...into]).toEqual([2, 3, 0, 1, 2, 3, 0, 0]);
    process.fsync(memfd);
    expect(process.fstat(memfd)).toMatchObject({ sizeBytes: 7, blocks: 1, nlink: 1 });
    expect(process.fdinfo(memfd)).toBe("pos:\t7\nflags:\t02\n");
    expectError("EOPNOTSUPP", () => process.fallocate(memfd, 0, 0, 4096));
  });

  test("what a path opens has offsets, and no bytes", () => {
    const [, process] = open();
    const bytes = new Uint8Array(1);
    const [timeline, device] = [process.open("sw_sync"), process.open("/dev/udmabuf")];
    for (const fd of [timeline, device]) {
      expectError("EINVAL", () => process.pread(fd, bytes, 0));
      expectError("EINVAL", () => process.pwrite(fd, bytes, 0));
      expectError("ESPIPE", () => process.lseek(fd, 0, uapi.SEEK_END));
    }
    expectError("EOPNOTSUPP", () => process.fallocate(timeline, 0, 0, 4096));
    expectError("ENODEV", () => process.fallocate(device, 0, 0, 4096));
    const heap = process.open("/dev/dma_heap/system");
    expectError("ESPIPE", () => process.pread(heap, bytes, 0));
    const readOnly = process.open("/dev/udmabuf", O_RDONLY);
    expectError("EBADF", () => process.pwrite(readOnly, bytes, 0));
  });

  test("mmap checks the offset, the descriptor, the length and the access, in this order", () => {
    const [system, process] = open();
    const [rw, ro, wo] = [O_RDWR, O_RDONLY, O_WRONLY].map((mode) =>
      allocBuffer(process, 8192, mode),
    ) as [number, number, number];
    const map = (fd: number, length: number, prot = RW, flags = uapi.MAP_SHARED, offset = 0) =>
      process.mmap(length, prot, flags, fd, offset);
    expectError("EINVAL", () => map(99, 4096, RW, 1, 1));
    expectError("EBADF", () => map(99, 0));
    expectRefusal(system, "EINVAL", () => map(rw, 0));
    expectRefusal(system, "ENOMEM", () => map(rw, 2 ** 50));
    expectRefusal(system, "EINVAL", () => map(rw, 2 ** 47 - 4096));
    expectRefusal(system, "ENOMEM", () => map(rw, 2 ** 47 - 4095));
    expectRefusal(system, "ENOMEM", () => process.mmap(-1n, RW, uapi.MAP_SHARED, rw));
    expectRefusal(system, "EINVAL", () => process.mmap(1n, RW, 1, rw, 2n ** 63n - 1n));
    expectRefusal(system, "EINVAL", () => process.mmap(1n, RW, 1, rw, -8192n));
    expectRefusal(system, "EOVERFLOW", () => process.mmap(1n, RW, 1, rw, -4096n));
    expectRefusal(system, "EOVERFLOW", () => map(ro, 4096, RW, 0, 2 ** 64 - 4096));
    expectRefusal(system, "EINVAL", () => map(rw, 4096, RW, 0));
    expectRefusal(system, "EACCES", () => map(ro, 4096));
    expectRefusal(system, "EACCES", () => map(wo, 4096, uapi.PROT_WRITE));
    expectRefusal(system, "EINVAL", () => map(rw, 8193));
    expectRefusal(system, "EINVAL", () => map(rw, 8192, RW, uapi.MAP_SHARED, 4096));
    expectRefusal(system, "ENODEV", () => map(process.open("/dev/udmabuf"), 4096));
    expect(process.mmap(4097n, RW, uapi.MAP_SHARED, rw, 0n).lengthBytes).toBe(4097);
    map(ro, 4096, uapi.PROT_READ).unmap();
    map(ro, 4096, RW, uapi.MAP_PRIVATE).unmap();
  });

  test("a shared mapping outlives its descriptor, a private one is a copy", () => {
    const [system, process] = open();
    const fd = allocBuffer(process, 8192);
    const whole = process.mmap(5000, RW, uapi.MAP_SHARED, fd);
    const second = process.mmap(4096, RW, uapi.MAP_SHARED, fd, 4096);
    const before = system.stats().bytesCopied;
    const own = process.mmap(1, RW, uapi.MAP_PRIVATE, fd);
    expect(system.stats().bytesCopied - before).toBe(4096);
    expectRefusal(system, "EINVAL", () => process.mmap(4097, RW, uapi.MAP_PRIVATE, fd));
    process.close(fd);
    second.set(1, 42);
    own.set(0, 7);
    expect([whole.at(4097), whole.at(0), own.at(0)]).toEqual([42, 0, 7]);
    expectError("EINVAL", () => own.at(4096));
    expect(system.stats().bufferCount).toBe(1);
    for (const mapping of [whole, second, own]) mapping.unmap();
    expectError("EINVAL", () => whole.unmap());
    expectError("EINVAL", () => whole.views);
    expect(system.stats().bufferCount).toBe(0);
  });

  test("poll tells what each descriptor is ready for", async () => {
    const [, process] = open();
    const buf = allocBuffer(process);
    const timeline = process.open("sw_sync");
    const file = createFence(process, timeline, 1);
    importFence(process, buf, uapi.DMA_BUF_SYNC_READ, file);
    const both = POLLIN + POLLOUT;
    const requests = [
      { fd: buf, events: POLLOUT },
      { fd: -1, events: both },
      { fd: file, events: both },
    ];
    expect(process.poll(requests)).toEqual([0, 0, 0]);
    expect(
      process.poll([
        { fd: buf, events: both },
        { fd: timeline, events: both },
      ]),
    ).toEqual([POLLIN, both]);
    const controller = new AbortController();
    const [woken, aborted] = [
      process.pollAsync(requests),
      process.pollAsync(requests, { signal: controller.signal }),
    ];
    expect(await process.pollAsync(requests, { timeoutMs: 1 })).toEqual([0, 0, 0]);
    const withBad = [...requests, { fd: 77, events: POLLIN }];
    expect(await process.pollAsync(withBad)).toEqual([0, 0, 0, POLLNVAL]);
    controller.abort();
    await expectRejection("EINTR", aborted);
    inc(process, timeline);
    const ready = await woken;
    expect(ready.some((events) => events !== 0)).toBe(true);
    expect(process.poll(requests)).toEqual([POLLOUT, 0, POLLIN]);
  });

  test("a sync ioctl that must wait is EAGAIN, EINTR with an interrupt, and waits if it may", async () => {
    const [system, process] = open();
    const buf = allocBuffer(process);
    const timeline = process.open("sw_sync");
    importFence(process, buf, uapi.DMA_BUF_SYNC_READ, createFence(process, timeline, 1));
    const [read, write, end] = [1, 2, 6].map(sync) as [Uint8Array, Uint8Array, Uint8Array];
    process.ioctl(buf, uapi.DMA_BUF_IOCTL_SYNC, read);
    expectRefusal(system, "EAGAIN", () => process.ioctl(buf, uapi.DMA_BUF_IOCTL_SYNC, write));
    const aborted = { signal: AbortSignal.abort() };
    expectError("EINTR", () => process.ioctl(buf, uapi.DMA_BUF_IOCTL_SYNC, write, aborted));
    process.ioctl(buf, uapi.DMA_BUF_IOCTL_SYNC, end, aborted);
    const controller = new AbortController();
    const interrupted = process.ioctlAsync(buf, uapi.DMA_BUF_IOCTL_SYNC, write, controller);
    const waiting = process.ioctlAsync(buf, uapi.DMA_BUF_IOCTL_SYNC, write);
    controller.abort();
    await expectRejection("EINTR", interrupted);
    inc(process, timeline);
    expect(await waiting).toBe(0);
    expect(await process.ioctlAsync(buf, uapi.DMA_BUF_IOCTL_SYNC, end)).toBe(0);
    await expectRejection("EINVAL", process.ioctlAsync(buf, uapi.DMA_BUF_IOCTL_SYNC, sync(8)));
    await expectRejection("EFAULT", process.ioctlAsync(buf, uapi.DMA_BUF_IOCTL_SYNC, null));
  });

  test("dma-bufs and sync files cannot be opened again, memfds and devices can", () => {
    const [, process] = open();
    const buf = allocBuffer(process);
    const timeline = process.open("sw_sync");
    const file = createFence(process, timeline, 1);
    const memfd = process.memfdCreate("m", uapi.MFD_CLOEXEC + uapi.MFD_ALLOW_SEALING);
    process.ftruncate(memfd, 100);
    const again = (fd: number, flags = O_RDONLY) => process.open(`/proc/self/fd/${fd}`, flags);
    for (const fd of [buf, file]) expectError("ENXIO", () => again(fd));
    const readOnly = again(memfd);
    expect(process.lseek(readOnly, 0, uapi.SEEK_END)).toBe(100);
    expectError("EPERM", () => process.fcntl(readOnly, uapi.F_ADD_SEALS, F_SEAL_SHRINK));
    process.fcntl(memfd, uapi.F_ADD_SEALS, F_SEAL_SHRINK);
    expect(process.fcntl(readOnly, uapi.F_GET_SEALS)).toBe(F_SEAL_SHRINK);
    expect(process.readlink(`/proc/self/fd/${memfd}`)).toBe("/memfd:m (deleted)");
    createFence(process, again(timeline), 1);
    expectError("EINVAL", () => process.memfdCreate("m", 4));
  });
});
