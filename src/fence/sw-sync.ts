/**
 * SwSync: a timeline that its user moves, for tests and for programs that stand in for a device.
 *
 *     value 3 ─── fence 3 │ fence 5 ─ fence 9        inc(2) signals fence 5
 *               signaled  │ pending
 *
 * - SW1  A fence is signaled once the counter has reached its value; both have 32 bits and wrap: a
 *        value that is 2^31 or more ahead counts as passed.
 * - SW2  Pending fences signal in the order of their values.
 * - SW3  There is one pending fence for a value: who asks for it again gets the same one.
 * - SW4  The last reference ends the pending fences with ENOENT.
 *
 * Compare the kernel's drivers/dma-buf/sw_sync.c.
 *
 * @module
 */

import { requireText } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { requireInteger } from "../errors.ts";
import { O_RDWR, ReferencedFile } from "../files/open-file.ts";
import { Fence, type FenceOps } from "./fence.ts";
import { isSeqnoLater } from "./order.ts";

const VALUE_MAX = 2 ** 32 - 1;
/** The longest step that still compares as forward (SW1). */
const STEP_MAX = 2 ** 31 - 1;

/** A timeline that its user moves. Made by `system.swSync(name)`. */
export class SwSync extends ReferencedFile {
  readonly name: string;
  readonly context: number;
  readonly #core: Core;
  readonly #ops: FenceOps;
  /** Rising by value (SW2, SW3). */
  #pending: Fence[] = [];
  #value = 0;

  /** @internal */
  constructor(core: Core, name: string) {
    super(O_RDWR);
    requireText(name, "the name", "create a sw_sync timeline");
    this.#core = core;
    this.name = name;
    this.context = core.exports.fenceContextAlloc(1) >>> 0;
    this.#ops = {
      driverName: "sw_sync",
      timelineName: name,
      signaled: ({ seqno }) => !isSeqnoLater(seqno, this.#value), // SW1
    };
  }

  get description(): string {
    return `sw_sync timeline ${this.name}`;
  }

  /** How far it has come, modulo 2^32. */
  get value(): number {
    return this.#value;
  }

  /** The fence of a value, 0 to 2^32 - 1 (SW1, SW3). EINVAL; ESTALE. */
  createFence(value: number): Fence {
    this.requireLive("create a fence on");
    requireInteger(value, "value", 0, VALUE_MAX, `create a fence on ${this.description}`);
    const at = this.#pending.findIndex(({ seqno }) => !isSeqnoLater(value, seqno));
    const next = this.#pending[at];
    if (next?.seqno === value) return next;
    const fence = new Fence(this.#core, this.context, value, `${this.name}:${value}`, this.#ops);
    if (!fence.isSignaled) this.#pending.splice(at < 0 ? this.#pending.length : at, 0, fence);
    return fence;
  }

  /** Moves the counter on by 0 to 2^32 - 1 and signals what it passes (SW2). EINVAL; ESTALE. */
  inc(count = 1): void {
    this.requireLive("advance");
    requireInteger(count, "count", 0, VALUE_MAX, `advance ${this.description}`);
    for (let left = count; ; left -= STEP_MAX) {
      this.#advance(Math.min(left, STEP_MAX));
      if (left <= STEP_MAX) return;
    }
  }

  #advance(step: number): void {
    this.#value = (this.#value + step) % 2 ** 32;
    while (this.#pending[0] !== undefined && !isSeqnoLater(this.#pending[0].seqno, this.#value))
      this.#pending.shift()?.signal();
  }

  protected override release(): void {
    for (const fence of this.#pending.splice(0)) fence.signal("ENOENT"); // SW4
  }
}
