/**
 * Expecting errors by code, and nothing changed by them.
 *
 * @module
 */

import { expect } from "vitest";
import { DmaBufError, type ErrnoCode } from "../../src/errors.ts";
import type { System } from "../../src/system.ts";

/** Runs `call`, which must throw a DmaBufError with `code`; returns its message. */
export function expectError(code: ErrnoCode, call: () => unknown): string {
  try {
    call();
  } catch (error) {
    expect(error).toBeInstanceOf(DmaBufError);
    expect((error as DmaBufError).code).toBe(code);
    expect((error as DmaBufError).message).toMatch(/^Cannot .+: .+/);
    return (error as DmaBufError).message;
  }
  throw new Error(`expected ${code}, and nothing was thrown`);
}

/** The same for a promise. */
export async function expectRejection(code: ErrnoCode, promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => null,
    (reason: unknown) => reason,
  );
  return expectError(code, () => {
    if (error !== null) throw error;
  });
}

/** The code that a promise is rejected with, or "resolved". */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "resolved",
    (error: { code: string }) => error.code,
  );
}

/** Runs `call`, which must throw `code` and leave the system as it was. */
export function expectRefusal(system: System, code: ErrnoCode, call: () => unknown): string {
  const before = system.stats();
  const message = expectError(code, call);
  expect(system.stats()).toEqual(before);
  expect(system.check(true)).toBeNull();
  return message;
}
