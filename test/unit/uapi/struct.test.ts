import { describe, expect, test } from "vitest";
import * as uapi from "../../../src/uapi/index.ts";
import { UserPointer } from "../../../src/uapi/user-pointer.ts";
import { expectError } from "../../support/errors.ts";

describe("struct layouts", () => {
  test.each([
    [
      "dma_heap_allocation_data",
      uapi.dmaHeapAllocationData,
      24,
      { len: 0, fd: 8, fdFlags: 12, heapFlags: 16 },
    ],
    ["dma_buf_sync", uapi.dmaBufSync, 8, { flags: 0 }],
    ["dma_buf_export_sync_file", uapi.dmaBufSyncFile, 8, { flags: 0, fd: 4 }],
    ["udmabuf_create", uapi.udmabufCreate, 24, { memfd: 0, flags: 4, offset: 8, size: 16 }],
    ["udmabuf_create_list", uapi.udmabufCreateList, 8, { flags: 0, count: 4 }],
    ["udmabuf_create_item", uapi.udmabufCreateItem, 24, { memfd: 0, pad: 4, offset: 8, size: 16 }],
    [
      "sync_merge_data",
      uapi.syncMergeData,
      48,
      { name: 0, fd2: 32, fence: 36, flags: 40, pad: 44 },
    ],
    [
      "sync_fence_info",
      uapi.syncFenceInfo,
      80,
      { objName: 0, driverName: 32, status: 64, flags: 68, timestampNs: 72 },
    ],
    [
      "sync_file_info",
      uapi.syncFileInfo,
      56,
      { name: 0, status: 32, flags: 36, numFences: 40, pad: 44, syncFenceInfo: 48 },
    ],
    ["sw_sync_create_fence_data", uapi.swSyncCreateFenceData, 40, { value: 0, name: 4, fence: 36 }],
  ] as const)("struct %s is laid out as in the kernel's headers", (name, struct, size, offsets) => {
    expect([struct.name, struct.sizeBytes, struct.offsets]).toEqual([name, size, offsets]);
  });

  test.each([
    ["DMA_HEAP_IOCTL_ALLOC", uapi.DMA_HEAP_IOCTL_ALLOC, 0xc0184800],
    ["DMA_BUF_IOCTL_SYNC", uapi.DMA_BUF_IOCTL_SYNC, 0x40086200],
    ["DMA_BUF_SET_NAME_A", uapi.DMA_BUF_SET_NAME_A, 0x40046201],
    ["DMA_BUF_SET_NAME_B", uapi.DMA_BUF_SET_NAME_B, 0x40086201],
    ["DMA_BUF_IOCTL_EXPORT_SYNC_FILE", uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, 0xc0086202],
    ["DMA_BUF_IOCTL_IMPORT_SYNC_FILE", uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE, 0x40086203],
    ["UDMABUF_CREATE", uapi.UDMABUF_CREATE, 0x40187542],
    ["UDMABUF_CREATE_LIST", uapi.UDMABUF_CREATE_LIST, 0x40087543],
    ["SYNC_IOC_MERGE", uapi.SYNC_IOC_MERGE, 0xc0303e03],
    ["SYNC_IOC_FILE_INFO", uapi.SYNC_IOC_FILE_INFO, 0xc0383e04],
    ["SW_SYNC_IOC_CREATE_FENCE", uapi.SW_SYNC_IOC_CREATE_FENCE, 0xc0285700],
    ["SW_SYNC_IOC_INC", uapi.SW_SYNC_IOC_INC, 0x40045701],
  ])("ioctl number %s is the kernel's", (_, number, expected) => {
    expect(number.toString(16)).toBe(expected.toString(16));
    const { direction, type, number: low, sizeBytes } = uapi.ioctlParts(number);
    expect(uapi.ioctlNumber(direction, String.fromCharCode(type), low, sizeBytes)).toBe(number);
  });

  test("a struct's values survive encode and decode, at any place in memory", () => {
    const values = { name: "m", fd2: -1, fence: 2 ** 31 - 1, flags: 2 ** 32 - 1, pad: 0 };
    const memory = new Uint8Array(100);
    memory.set(uapi.syncMergeData.encode(values), 7);
    expect(uapi.syncMergeData.decode(memory, 7)).toEqual(values);
    const wide = { len: 2n ** 64n - 1n, fd: 1, fdFlags: 2, heapFlags: 2n ** 63n };
    expect(uapi.dmaHeapAllocationData.decode(uapi.dmaHeapAllocationData.encode(wide))).toEqual(
      wide,
    );
    expect([...uapi.dmaBufSyncFile.encode({ fd: -2, flags: 258 })]).toEqual([
      2, 1, 0, 0, 254, 255, 255, 255,
    ]);
  });

  test("32 characters of a struct hold at most 31 and a NUL, and are read without one", () => {
    const bytes = uapi.syncMergeData.encode({ name: "x".repeat(40) });
    expect(uapi.syncMergeData.decode(bytes).name).toBe("x".repeat(31));
    bytes.fill("q".charCodeAt(0), 0, 32);
    expect(uapi.syncMergeData.decode(bytes).name).toBe("q".repeat(32));
  });

  test("a field that is not aligned is EINVAL", () => {
    expectError("EINVAL", () => new uapi.Struct("bad", { a: "u32", b: "u64" }));
  });
});

describe("user pointers", () => {
  const memory = new Uint8Array(8192).map((_, i) => i % 251);

  test("read and write bytes, and memory by address", () => {
    const bytes = Uint8Array.of(1, 2, 3, 4);
    const inline = new UserPointer(bytes, memory);
    expect([...inline.read(2, 1)]).toEqual([2, 3]);
    inline.write(Uint8Array.of(9), 3);
    expect(bytes[3]).toBe(9);
    const pointer = new UserPointer(5000n, memory);
    expect([...pointer.read(2)]).toEqual([5000 % 251, 5001 % 251]);
    pointer.write(Uint8Array.of(7, 7), 10);
    expect([...memory.subarray(5010, 5012)]).toEqual([7, 7]);
  });

  test.each([
    ["null", null],
    ["NULL", 0],
    ["an address in the first page", 4095],
    ["an address that ends outside", 8191],
    ["an address far away", 2n ** 63n],
    ["too few bytes", Uint8Array.of(1)],
  ])("%s is EFAULT", (_, argument) => {
    const pointer = new UserPointer(argument, memory);
    expectError("EFAULT", () => pointer.read(2));
    expectError("EFAULT", () => pointer.write(Uint8Array.of(1, 2)));
    expect(pointer.read(0)).toHaveLength(0);
  });

  test("a string ends with a NUL within its limit, else EINVAL, or EFAULT where memory ends", () => {
    const text = (value: string) => new UserPointer(new TextEncoder().encode(value), memory);
    expect(text("abc\0d").text(4)).toBe("abc");
    expect(text("\0").text(4)).toBe("");
    expectError("EINVAL", () => text("abcd\0").text(4));
    expectError("EFAULT", () => text("abc").text(4));
    expectError("EFAULT", () => new UserPointer(null, memory).text(4));
  });
});
