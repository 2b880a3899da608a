/**
 * A part of the long fuzz in every test run; `npm run fuzz` goes on.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { fuzzSeed } from "../support/prng.ts";
import { runFuzz } from "./run-fuzz.ts";

const seed = fuzzSeed(20_261_121);
const debug = readFileSync(new URL("../../build/core.debug.wasm", import.meta.url));

describe("domains and their devices agree with a naive page table", () => {
  test.each([
    ["2,000,000 events on the release core", 2_000_000, {}],
    ["10,000 events on the debug core", 10_000, { wasm: debug }],
    ["10,000 events on shared memory", 10_000, { shared: true }],
  ])(
    "over %s",
    (_, operations, options) => {
      const run = () => runFuzz({ operations, seed: seed + 2, subject: "iommu", ...options });
      expect(run).not.toThrow();
    },
    120_000,
  );
});

describe("scatterlists agree with naive lists", () => {
  test("over 200,000 events on the release core", () => {
    const counts = runFuzz({ operations: 200_000, seed, subject: "sg" });
    const kinds = ["from pages", "from list", "from range", "append", "split", "nents"];
    for (const kind of [...kinds, ...kinds.map((one) => `${one}: EINVAL`)])
      expect(counts[kind], kind).toBeGreaterThan(0);
    for (const kind of ["copy in", "copy out", "zero", "free"])
      expect(counts[kind], kind).toBeGreaterThan(0);
  });

  test.each([
    ["the debug core", { wasm: debug }],
    ["shared memory", { shared: true }],
    ["strict memory, where nobody is found to write", { strict: true }],
  ])("over 10,000 events on %s", (_, options) => {
    const run = () => runFuzz({ operations: 10_000, seed: seed + 1, subject: "sg", ...options });
    expect(run).not.toThrow();
  });
});

describe("drivers of domains in TypeScript give what the core's domains give", () => {
  test("over 20,000 events on the release core", () => {
    const counts = runFuzz({ operations: 20_000, seed, subject: "domain" });
    const calls = ["DMA map", "DMA unmap", "map", "unmap", "attach", "detach", "claim", "release"];
    const refusals = ["map: EEXIST", "map: EINVAL", "attach: EBUSY", "read: EFAULT"];
    const accesses = ["read", "write", "copy", "spans", "translate"];
    for (const kind of [...calls, ...refusals, ...accesses])
      expect(counts[kind], kind).toBeGreaterThan(0);
  });

  test.each([
    ["the debug core", { wasm: debug }],
    ["shared memory", { shared: true }],
    ["strict memory, where nobody is found to write", { strict: true }],
  ])("over 3,000 events on %s", (_, options) => {
    const run = () => runFuzz({ operations: 3_000, seed: seed + 3, subject: "domain", ...options });
    expect(run).not.toThrow();
  });
});

describe("frames, regions, movable memory and pins agree with a naive model", () => {
  test("over 100,000 events on the release core", () => {
    expect(() => runFuzz({ operations: 100_000, seed })).not.toThrow();
  });

  test.each([
    ["the debug core", { wasm: debug }],
    ["shared memory", { shared: true }],
    ["strict memory, where nobody is found to write", { strict: true }],
  ])("over 10,000 events on %s", (_, options) => {
    expect(() => runFuzz({ operations: 10_000, seed: seed + 1, ...options })).not.toThrow();
  });
});

describe("mappings of direct, bounced, IOMMU and uncached devices agree with a naive model", () => {
  test("over 4,000 events on the release core", () => {
    const counts = runFuzz({ operations: 4_000, seed, subject: "dma" });
    const kinds = ["map", "unmap", "read", "write", "fault", "refused", "CPU write", "sync"];
    for (const kind of kinds) expect(counts[kind], kind).toBeGreaterThan(0);
  });

  test.each([
    ["the debug core", { wasm: debug }],
    ["shared memory", { shared: true }],
    ["strict memory, where nobody is found to write", { strict: true }],
  ])("over 1,000 events on %s", (_, options) => {
    const run = () => runFuzz({ operations: 1_000, seed: seed + 1, subject: "dma", ...options });
    expect(run).not.toThrow();
  });
});
