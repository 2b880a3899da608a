/**
 * PoolTable: a pool's words in shared memory, read.
 *
 * Layout as in assembly/pool.ts. What is read here is a report, or fixed when the pool is made: who
 * may do what is decided by the core alone.
 *
 * @module
 */

import { requireList, requireText } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { loadWord } from "../core/wait-word.ts";
import { checked, fail } from "../errors.ts";

const CONTROL_AT = 0;
const FRAME_COUNT = 1;
const FREE_EVENT_AT = 8;
const PUBLISH_EVENT_AT = 12;
const CONSUMERS_AT = 24;

const FRAME_SINCE_AT = 8;
const FRAME_BUFFER = 4;
const FRAME_SEQNO = 5;
const FRAME_FENCE = 6;
const RELEASE_AT = 32;
const HELD_SINCE_AT = 96;

const CONSUMER_FLAGS = 1;
const CONSUMER_TAKEN = 2;
const CONSUMER_DROPPED = 3;
const CONSUMER_NAME_AT = 16;

const NAME_BYTES = 32;
const POOL_NAME_BYTES = 64;
/** The bits of one kind in a frame's word. */
const MASK_RANGE = 2 ** 16;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Who has a frame, as bits for each consumer. */
interface FrameState {
  /** The thread that writes it; null: none. */
  readonly writer: number | null;
  readonly pending: number;
  readonly held: number;
}

/** A consumer as its entry says. */
export interface ConsumerEntry {
  readonly index: number;
  readonly name: string;
  readonly thread: number;
  readonly flags: number;
  readonly taken: number;
  readonly dropped: number;
}

/** A pool's words. */
export class PoolTable {
  readonly name: string;
  readonly count: number;
  /** How many consumers there can be. */
  readonly consumerMax: number;
  /** Counted up when a frame becomes free. */
  readonly freeEventAt: number;
  /** Counted up when a frame may have become takeable. */
  readonly publishEventAt: number;
  readonly core: Core;
  readonly #token: number;
  readonly #payloadAt: number;
  readonly #framesAt: readonly number[];

  /** The table of a pool that this thread holds. ESTALE. */
  constructor(core: Core, token: number) {
    const at = checked(core.exports.poolAt(token), "read a frame pool", () => "it is gone");
    this.core = core;
    this.#token = token;
    this.#payloadAt = at;
    this.count = core.word(at, FRAME_COUNT);
    this.#framesAt = Array.from(
      { length: this.count },
      (_, i) => core.exports.poolFrameAt(token, i) >>> 0,
    );
    this.name = readName(core, core.word(at, CONTROL_AT), POOL_NAME_BYTES);
    this.consumerMax = core.exports.POOL_CONSUMERS.value;
    this.freeEventAt = at + FREE_EVENT_AT;
    this.publishEventAt = at + PUBLISH_EVENT_AT;
  }

  /** Writes the name of a pool that nobody else knows yet. */
  static writeName(core: Core, token: number, name: string): void {
    const at = checked(core.exports.poolAt(token), "name a frame pool", () => "it is gone");
    writeName(core, core.word(at, CONTROL_AT), POOL_NAME_BYTES, name);
  }

  #frameAt(index: number): number {
    return (
      this.#framesAt[index] ?? fail("EINVAL", `use frame ${index}`, "the pool has no such one")
    );
  }

  #consumerAt(index: number): number {
    return this.core.exports.poolConsumerAt(this.#token, index) >>> 0;
  }

  /** The token of a frame's buffer. */
  bufferToken(index: number): number {
    return this.core.word(this.#frameAt(index), FRAME_BUFFER);
  }

  seqno(index: number): number {
    return this.core.word(this.#frameAt(index), FRAME_SEQNO);
  }

  /** The token of the fence that came with a frame; 0: none. */
  fence(index: number): number {
    return this.core.word(this.#frameAt(index), FRAME_FENCE);
  }

  /** The consumers that left a fence on a frame. */
  releasers(index: number): number[] {
    const first = (this.#frameAt(index) + RELEASE_AT) / 4;
    const found: number[] = [];
    for (let consumer = 0; consumer < this.consumerMax; consumer++)
      if (this.core.u32[first + consumer] !== 0) found.push(consumer);
    return found;
  }

  /** The token of the fence that a consumer left on a frame; 0: none. */
  releaseFence(index: number, consumer: number): number {
    return this.core.u32[(this.#frameAt(index) + RELEASE_AT) / 4 + consumer] ?? 0;
  }

  /** When a frame was acquired or published last, in milliseconds since 1970. */
  sinceMs(index: number): number {
    return this.core.f64[(this.#frameAt(index) + FRAME_SINCE_AT) / 8] ?? 0;
  }

  /** When a consumer took a frame. */
  heldSinceMs(index: number, consumer: number): number {
    return this.core.f64[(this.#frameAt(index) + HELD_SINCE_AT) / 8 + consumer] ?? 0;
  }

  /** Who has a frame. */
  state(index: number): FrameState {
    const at = this.#frameAt(index);
    const [uses, writer] = [loadWord(this.core, at) >>> 0, loadWord(this.core, at + 4)];
    return {
      writer: writer === 0 ? null : writer - 1,
      pending: uses % MASK_RANGE,
      held: Math.floor(uses / MASK_RANGE),
    };
  }

  /** The consumers that are there. */
  consumers(): ConsumerEntry[] {
    const mask = loadWord(this.core, this.#payloadAt + CONSUMERS_AT);
    const indexes = Array.from({ length: this.consumerMax }, (_, index) => index);
    return indexes.filter((index) => hasBit(mask, index)).map((index) => this.#consumer(index));
  }

  #consumer(index: number): ConsumerEntry {
    const at = this.#consumerAt(index);
    return {
      index,
      name: readName(this.core, at + CONSUMER_NAME_AT, NAME_BYTES),
      thread: loadWord(this.core, at) - 1,
      flags: this.core.word(at, CONSUMER_FLAGS),
      taken: this.core.word(at, CONSUMER_TAKEN),
      dropped: this.core.word(at, CONSUMER_DROPPED),
    };
  }

  /** Names a consumer of this thread. */
  nameConsumer(index: number, name: string): void {
    writeName(this.core, this.#consumerAt(index) + CONSUMER_NAME_AT, NAME_BYTES, name);
  }

  /** The bits of the consumers with these names; of all, if none are given. EINVAL, ENOENT. */
  maskOf(names: string | readonly string[] | undefined, operation: string): number {
    if (names === undefined) return MASK_RANGE - 1;
    const list = typeof names === "string" ? [names] : names;
    requireList(list, "the names", operation);
    const consumers = this.consumers();
    let mask = 0;
    for (const name of new Set(list)) {
      requireText(name, "each of the names", operation);
      const found = consumers.find((consumer) => consumer.name === cut(name));
      const known = consumers.map((consumer) => consumer.name).join(", ") || "none";
      if (found === undefined)
        fail("ENOENT", operation, `no consumer is called ${name}; there are: ${known}`);
      else mask += 2 ** found.index;
    }
    return mask;
  }
}

/** Whether bit `index` of a mask is set. */
export function hasBit(mask: number, index: number): boolean {
  return Math.floor((mask >>> 0) / 2 ** index) % 2 === 1;
}

/** A name as it is stored: as much of it as fits. */
function cut(name: string): string {
  const bytes = new Uint8Array(NAME_BYTES);
  const { written } = encoder.encodeInto(name, bytes);
  return decoder.decode(bytes.subarray(0, written));
}

function writeName(core: Core, at: number, room: number, name: string): void {
  const bytes = new Uint8Array(room); // encodeInto() refuses shared memory in browsers
  encoder.encodeInto(name, bytes);
  core.u8.set(bytes, at);
}

function readName(core: Core, at: number, room: number): string {
  const bytes = core.u8.slice(at, at + room);
  const end = bytes.indexOf(0);
  return decoder.decode(end < 0 ? bytes : bytes.subarray(0, end));
}
