import { execFileSync } from "node:child_process";
import { describe, expect, test } from "vitest";

const program = new URL("../../../build/bench/heap-growth.js", import.meta.url).pathname;
/** What the host allocates for itself meanwhile. */
const NOISE_BYTES = 256 * 1024;

describe("garbage", () => {
  test("heap growth over 10 million map + unmap cycles, and a million with attach and detach, is none", () => {
    const output = execFileSync(process.execPath, ["--expose-gc", program], { encoding: "utf8" });
    const { standingBytes, wholeBytes } = JSON.parse(output) as Record<string, number>;
    expect(standingBytes).toBeLessThan(NOISE_BYTES);
    expect(wholeBytes).toBeLessThan(NOISE_BYTES);
  }, 120_000);
});
