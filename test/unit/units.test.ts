import { describe, expect, test } from "vitest";
import { codeOf, DmaBufError, errno, isErrno } from "../../src/errors.ts";
import {
  addressOf,
  formatBytes,
  framesOf,
  GiB,
  KiB,
  lastPfnOf,
  MiB,
  NO_PFN,
  offsetOf,
  orderOf,
  pfnOf,
} from "../../src/units.ts";

describe("units", () => {
  test.each([
    [0, 0],
    [1, 1],
    [4096, 1],
    [4097, 2],
    [4 * GiB, 2 ** 20],
  ])("framesOf(%i) is %i", (bytes, frames) => expect(framesOf(bytes)).toBe(frames));

  test.each([
    [1, 0],
    [2, 1],
    [3, 2],
    [2 ** 20, 20],
    [2 ** 31 + 1, 32],
    [2 ** 32, 32],
  ])("orderOf(%i) is %i", (count, order) => expect(orderOf(count)).toBe(order));

  test("an address above 2 GiB goes to page and offset and back", () => {
    for (const address of [0, 4095, 4096, 3 * GiB + 17, 2 ** 44 - 1]) {
      expect(addressOf(pfnOf(address), offsetOf(address))).toBe(address);
    }
  });

  test.each([
    [24, 4095],
    [32, 0xfffff],
    [40, 2 ** 28 - 1],
    [44, NO_PFN],
    [64, NO_PFN],
  ])("a device of %i bits reaches page %i", (bits, pfn) => expect(lastPfnOf(bits)).toBe(pfn));

  test.each([
    [12, "12 bytes"],
    [4 * KiB, "4 KiB"],
    [1536, "1.5 KiB"],
    [100 * MiB, "100 MiB"],
    [2 * GiB, "2 GiB"],
  ])("formatBytes(%i) is %s", (bytes, text) => expect(formatBytes(bytes)).toBe(text));
});

describe("errors", () => {
  test("a DmaBufError carries code, number, operation and a sentence", () => {
    const error = new DmaBufError("EBUSY", "detach gpu", "2 mappings are alive");
    expect(error).toMatchObject({
      code: "EBUSY",
      errno: 16,
      operation: "detach gpu",
      name: "DmaBufError",
    });
    expect(error.message).toBe("Cannot detach gpu: 2 mappings are alive");
  });

  test("every number has its name, and large unsigned results are no errors", () => {
    for (const [code, number] of Object.entries(errno)) {
      expect(errno[codeOf(-number)]).toBe(errno[code as keyof typeof errno]);
    }
    expect([-1, -4095].map(isErrno)).toEqual([true, true]);
    expect([0, 5, -4096, -2_000_000_000].map(isErrno)).toEqual([false, false, false, false]);
  });
});
