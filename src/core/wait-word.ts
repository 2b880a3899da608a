/**
 * Waiting for a word of shared memory to change, in two ways: asleep in a call, where the thread
 * may sleep, and from a callback, everywhere.
 *
 *     read the word ─► look whether there is something to do ─► wait for the word to leave what was read
 *
 * - WA1  A wait for a value that the word has left already ends at once: no wake-up is lost.
 * - WA2  A wait may end early; the caller looks again.
 * - WA3  While a callback is due, the host's event loop is kept alive, unless the caller says that
 *        nobody would miss it.
 *
 * `Atomics.waitAsync` is used where the host has it. Elsewhere, and on memory that is not shared,
 * the word is looked at from a timer, the more rarely the longer it takes.
 *
 * @module
 */

import type { Core } from "./core.ts";

interface AsyncWait {
  readonly async: boolean;
  readonly value: PromiseLike<string> | string;
}

type WaitAsync = (words: Int32Array, index: number, value: number, timeout: number) => AsyncWait;

const { waitAsync } = Atomics as typeof Atomics & { readonly waitAsync?: WaitAsync };

/** An abandoned wait is forgotten after this time. */
const ROUND_MS = 1000;
const POLL_MAX_MS = 16;
/** Looks at the word before the thread goes to sleep; more of them keep the other one waiting. */
const SPINS = 40;

/** Lets the host end though the timer runs, where timers keep hosts alive. */
function unref(timer: unknown): void {
  (timer as { readonly unref?: () => void }).unref?.();
}

/** Word at byte `at`, as all threads see it. */
export function loadWord(core: Core, at: number): number {
  return Atomics.load(core.i32, at / 4);
}

/** Sleeps while the word at byte `at` is `seen`, but not beyond the timeout. */
export function sleepWhile(core: Core, at: number, seen: number, timeoutMs: number): void {
  for (let i = 0; i < SPINS; i++) if (Atomics.load(core.i32, at / 4) !== seen) return;
  Atomics.wait(core.i32, at / 4, seen, timeoutMs);
}

/**
 * Calls `run` once the word at byte `at` is no longer `seen`; never inside this call. What it
 * returns cancels that.
 */
export function onceChanged(
  core: Core,
  at: number,
  seen: number,
  run: () => void,
  keepsAlive = true,
): () => void {
  let isOver = false;
  const keepAlive = keepsAlive ? setInterval(() => {}, 2 ** 30) : undefined; // WA3
  const finish = (): void => {
    if (isOver) return;
    isOver = true;
    clearInterval(keepAlive);
    run();
  };
  const look = (delayMs: number): void => {
    if (isOver) return;
    if (loadWord(core, at) !== seen) finish();
    else if (waitAsync !== undefined && core.isShared) round(waitAsync);
    else {
      const timer = setTimeout(look, delayMs, Math.min(POLL_MAX_MS, delayMs * 2));
      if (!keepsAlive) unref(timer);
    }
  };
  const round = (wait: WaitAsync): void => {
    const { async, value } = wait(core.i32, at / 4, seen, ROUND_MS);
    if (async) (value as PromiseLike<string>).then(() => look(1));
    else queueMicrotask(() => look(1));
  };
  queueMicrotask(() => look(1));
  return () => {
    isOver = true;
    clearInterval(keepAlive);
  };
}
