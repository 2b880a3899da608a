/**
 * HeapRegistry: the heaps of a system, one for each name.
 *
 * - HR1  A heap stays as long as its system: buffers may come from it at any time.
 *
 * Compare dma_heap_add() in the kernel's drivers/dma-buf/dma-heap.c.
 *
 * @module
 */

import { fail, textOf } from "../errors.ts";
import type { Accounts } from "./accounts.ts";
import { Heap, type HeapInfo } from "./heap.ts";

/** Linux's NUM_HEAP_MINORS. */
const MAX_HEAPS = 128;

/** The heaps of a system. */
export class HeapRegistry {
  readonly #accounts: Accounts;
  readonly #heaps: Map<string, Heap> = new Map();

  constructor(accounts: Accounts) {
    this.#accounts = accounts;
  }

  /**
   * Adds a heap. EINVAL: no name, no alloc, or there is a heap of this name; EBUSY: there are 128
   * heaps.
   */
  add(info: HeapInfo): Heap {
    if (typeof info?.name !== "string" || info.name === "")
      fail("EINVAL", "add a heap", "it needs a name");
    const operation = `add heap ${info.name}`;
    if (typeof info.alloc !== "function") fail("EINVAL", operation, "it has no alloc()");
    if (this.#heaps.size === MAX_HEAPS)
      fail("EBUSY", operation, `a system has at most ${MAX_HEAPS} heaps`);
    if (this.#heaps.has(info.name)) fail("EINVAL", operation, "there is a heap of this name");
    const heap = new Heap(info, this.#accounts);
    this.#heaps.set(heap.name, heap);
    return heap;
  }

  /** The heap of a name. ENOENT: the message lists the names. */
  find(name: string): Heap {
    const names = [...this.#heaps.keys()].join(", ");
    return (
      this.#heaps.get(name) ?? fail("ENOENT", `find heap ${textOf(name)}`, `the heaps are ${names}`)
    );
  }

  /** All heaps, in the order they were added. */
  get all(): readonly Heap[] {
    return [...this.#heaps.values()];
  }
}
