/**
 * BufferPoll: whether a buffer may be read (nobody writes) or written (nobody reads or writes).
 *
 *     POLLIN    the kernel and write fences have signaled
 *     POLLOUT   the read fences too
 *
 * - BP1  Each direction has at most one callback armed, on the first fence that takes it. While it
 *        is armed, the direction is not ready, and the buffer has one reference more.
 * - BP2  A reference that cannot be given back, because it is the last one and a device is still
 *        attached, stays: put() it after the detach.
 * - BP3  Bookkeeping fences do not count, and nothing is made coherent: bracket the access.
 *
 * Compare dma_buf_poll() in the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import { POLLIN, POLLOUT, WaitQueue } from "../files/poll.ts";
import { getForWait, type TrackedFile } from "../stacks.ts";
import { type Resv, usageFor } from "./resv.ts";

/** The buffer that is polled: it lives while a callback is armed (BP1). */
interface PolledBuffer extends TrackedFile {
  readonly resv: Resv;
  readonly refCount: number;
  /** Whether a device or a kernel mapping needs the last reference. */
  readonly isUsed: boolean;
}

/** The polling state of one buffer. */
export class BufferPoll {
  readonly queue: WaitQueue = new WaitQueue();
  readonly #buf: PolledBuffer;
  /** The directions whose callback is armed. */
  #armed = 0;

  /** @internal */
  constructor(buf: PolledBuffer) {
    this.#buf = buf;
  }

  /** Which of POLLIN and POLLOUT in `events` are ready; arms the callbacks of the others. */
  poll(events: number): number {
    let ready = 0;
    for (const event of [POLLOUT, POLLIN]) {
      if ((events & event) !== 0 && this.#isReady(event)) ready |= event;
    }
    return ready;
  }

  #isReady(event: number): boolean {
    if ((this.#armed & event) !== 0) return false; // BP1
    let put = (): void => {};
    const onSignaled = (): void => {
      this.#armed &= ~event;
      this.queue.wakeAll();
      if (this.#buf.refCount > 1 || !this.#buf.isUsed) put(); // BP2
    };
    const usage = usageFor(event === POLLOUT);
    if (!this.#buf.resv.fences(usage).some((fence) => fence.addCallback(onSignaled))) return true;
    this.#armed |= event;
    put = getForWait(this.#buf);
    return false;
  }
}
