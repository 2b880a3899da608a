import { execFileSync } from "node:child_process";
import { describe, expect, test } from "vitest";

const program = new URL("../../../build/bench/heap-growth.js", import.meta.url).pathname;
/** What the host allocates for itself meanwhile. */
const NOISE_BYTES = 256 * 1024;

describe("garbage", () => {
  test("heap growth over 10 million cycles of map, of attach and map, and of fences is none", () => {
    const output = execFileSync(process.execPath, ["--expose-gc", program], { encoding: "utf8" });
    const { standingBytes, wholeBytes, fenceBytes } = JSON.parse(output) as Record<string, number>;
    expect(standingBytes).toBeLessThan(NOISE_BYTES);
    expect(wholeBytes).toBeLessThan(NOISE_BYTES);
    expect(fenceBytes).toBeLessThan(NOISE_BYTES);
  }, 300_000);
});
