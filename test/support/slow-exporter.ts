/**
 * An exporter for tests that answers when it is told to.
 *
 * @module
 */

import type { DmaBuf, DmaBufOps, System } from "../../src/index.ts";
import { type WatchedOptions, watched } from "./exporter.ts";

/** A gate: what waits for it goes on when it is opened, or fails. */
export interface Gate {
  readonly passed: Promise<void>;
  open(): void;
  fail(error: Error): void;
}

/** A gate that is closed. */
export function gate(): Gate {
  let [open, fail]: [() => void, (error: Error) => void] = [() => {}, () => {}];
  const passed = new Promise<void>((resolve, reject) => {
    open = resolve;
    fail = reject;
  });
  passed.catch(() => {});
  return { passed, open: () => open(), fail: (error) => fail(error) };
}

/** Lets everything run that waits for nothing but its turn. */
export const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

/** A buffer whose exporter answers `which` when the gate is open; it writes all calls down. */
export function slow(
  system: System,
  which: keyof DmaBufOps,
  options: WatchedOptions = {},
): { buf: DmaBuf; calls: string[]; gate: Gate } {
  const calls: string[] = [];
  const one = gate();
  const buf = watched(system, calls, options);
  const ops = buf.priv as Record<string, (...args: unknown[]) => unknown>;
  const op = ops[which];
  if (op === undefined) throw new Error(`the exporter has no ${which}()`);
  ops[which] = async (...args) => {
    await one.passed;
    return op(...args);
  };
  return { buf, calls, gate: one };
}
