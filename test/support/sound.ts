/**
 * The walker as an expectation.
 *
 * @module
 */

import { expect } from "vitest";
import { invariantName } from "../../src/core/instantiate.ts";
import type { TestCore } from "./cores.ts";

/** Expects that the core's walker finds nothing; a failure names the invariant. */
export function expectSound({ exports }: Pick<TestCore, "exports">, label = ""): void {
  const broken = exports.check(1) >>> 0;
  expect(broken === 0 ? "" : invariantName(broken), label).toBe("");
}

/** Frames that nobody holds, those in magazines included. */
export function freeCount({ exports }: Pick<TestCore, "exports">): number {
  return exports.frameCountIn(0) + exports.frameCountIn(1) + exports.frameCountIn(9);
}
