/**
 * Crew: Workers of a test, each with a job on one system.
 *
 *     hire(system, "job", args) ─► ready ─► tell() / heard() ─► result
 *
 * Also: how their tests wait for each other, and how a system is closed after them.
 *
 * @module
 */

import { Worker } from "node:worker_threads";
import { expect } from "vitest";
import type { System } from "../../src/system.ts";
import type { SystemShare } from "../../src/workers/share.ts";

/** What a Worker says when it ends. */
interface Ending {
  readonly result?: unknown;
  readonly code?: string;
  readonly message?: string;
}

/** A Worker with a job. */
export class Hand {
  readonly worker: Worker;
  /** Resolves with its thread when it has joined. */
  readonly ready: Promise<number>;
  /** Resolves with what the job returned. */
  readonly result: Promise<unknown>;
  readonly exit: Promise<void>;
  readonly #messages: unknown[] = [];
  readonly #readers: ((message: unknown) => void)[] = [];

  constructor(share: SystemShare, job: string, args: object) {
    this.worker = new Worker(new URL("./worker.mjs", import.meta.url), {
      workerData: { share, job, args },
    });
    const { promise: ready, resolve: isReady, reject: neverReady } = deferred<number>();
    const { promise: result, resolve: isDone, reject: fails } = deferred<unknown>();
    this.ready = ready;
    this.result = result;
    ready.catch(() => {});
    result.catch(() => {});
    const end = (error: Error): void => {
      neverReady(error);
      fails(error);
    };
    this.worker.on("message", (said: Ending & { ready?: number; message?: unknown }) => {
      if (said.ready !== undefined) isReady(said.ready);
      else if (said.code !== undefined) end(new Error(`${said.code}: ${String(said.message)}`));
      else if ("result" in said) isDone(said.result);
      else this.#hear(said.message);
    });
    this.worker.on("error", end);
    this.exit = new Promise((resolve) => {
      this.worker.once("exit", () => {
        end(new Error("the Worker is gone"));
        resolve();
      });
    });
  }

  #hear(message: unknown): void {
    const reader = this.#readers.shift();
    if (reader === undefined) this.#messages.push(message);
    else reader(message);
  }

  /** The next message of the job; rejects when the job fails. */
  heard(): Promise<unknown> {
    if (this.#messages.length > 0) return Promise.resolve(this.#messages.shift());
    const message = new Promise((resolve) => this.#readers.push(resolve));
    return Promise.race([message, this.result.then(() => message)]);
  }

  tell(message: unknown): void {
    this.worker.postMessage(message);
  }

  /** The result, once the Worker has gone home. */
  async done(): Promise<unknown> {
    const result = await this.result;
    await this.exit;
    return result;
  }
}

/** A Worker that has joined and begun its job. */
export async function hire(system: System, job: string, args: object = {}): Promise<Hand> {
  const hand = new Hand(system.share(), job, args);
  await hand.ready;
  return hand;
}

/** Lets the other side run. */
export const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until something is so; the other side is told by events. */
export async function until(isSo: () => boolean): Promise<void> {
  for (let i = 0; i < 5000 && !isSo(); i++) await pause(2);
  expect(isSo()).toBe(true);
}

/** Closes the systems, the first last, in which nothing may be left. */
export function closeClean(...systems: System[]): void {
  for (const system of systems) expect(system.stats().bufferCount).toBe(0);
  expect(systems[0]?.check(true)).toBeNull();
  expect(systems[0]?.stats()).toMatchObject({ pinnedFrames: 0 });
  for (const system of systems.reverse()) system.close();
}

function deferred<T>(): {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (error: Error) => void;
} {
  let resolve: (value: T) => void = () => {};
  let reject: (error: Error) => void = () => {};
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}
