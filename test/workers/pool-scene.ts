/**
 * Pool scene: a system with a pool and a consumer, and the end of it, for tests.
 *
 * @module
 */

import { expect } from "vitest";
import type { System } from "../../src/system.ts";
import type { FrameConsumer } from "../../src/workers/consumer.ts";
import type { Pool } from "../../src/workers/pool.ts";
import { closeClean } from "./crew.ts";

/** A pool of one thread. */
export interface Scene {
  readonly system: System;
  readonly pool: Pool;
  readonly consumer: FrameConsumer;
}

/** A pool of this many frames, and a consumer of them. */
export function sceneOf(system: System, count = 1): Scene {
  const pool = system.pool({ name: "video", count, bytes: 4096 });
  return { system, pool, consumer: pool.consumer({ name: "encoder" }) };
}

/** Releases the pool; nothing must be left of it. */
export function closeScene({ system, pool }: Scene): void {
  pool.release();
  expect(system.core.tokens.size).toBe(0);
  closeClean(system);
}
