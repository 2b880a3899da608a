/**
 * Sockets: receive straight into the views of a frame, and send them with one gathering write.
 *
 *     net.connect({ port, onread: reader.onread }) ─► views[0] ─► views[1] ─► … full ─► next views
 *
 * Nothing is copied by the library: the host receives and sends in place.
 *
 * - SK1  Bytes fill the views in order and without gaps. When all are full, `onFull` says where to
 *        go on, at once: the host asks for its next buffer right then. With null the socket is
 *        paused for good, and what was sent after that stays in the host.
 *
 * The types describe Node's `net.Socket` by what is used of it.
 *
 * @module
 */

import { requireMethods, requireViews } from "../arguments.ts";
import { fail } from "../errors.ts";

type Views = readonly Uint8Array<ArrayBufferLike>[];

/** What Node's `net.connect()` takes as `onread`. */
export interface OnRead {
  readonly buffer: () => Uint8Array<ArrayBufferLike>;
  readonly callback: (bytes: number) => boolean;
}

/** Fills views with what a socket receives, in place (SK1). */
export class SocketReader {
  /** The `onread` option of the socket. */
  readonly onread: OnRead;
  #views: Views = [];
  #view = 0;
  #filled = 0;
  #received = 0;
  /** What the host gets to hold when there is nothing to fill. */
  readonly #spare: Uint8Array<ArrayBufferLike> = new Uint8Array(1);

  /**
   * `onFull` is called when all views are full, and returns those to go on with, or null (SK1).
   * EINVAL: there is no room in the views.
   */
  constructor(views: Views, onFull: () => Views | null) {
    this.#start(views);
    this.onread = {
      buffer: () => this.#room(),
      callback: (bytes) => {
        this.#take(bytes);
        if (this.#view < this.#views.length) return true;
        const next = onFull();
        if (next !== null) this.#start(next);
        return next !== null;
      },
    };
  }

  /** Bytes received into the present views. */
  get received(): number {
    return this.#received;
  }

  #start(views: Views): void {
    requireViews(views, "receive into a frame");
    this.#views = views.filter((view) => view.length > 0);
    if (this.#views.length === 0) fail("EINVAL", "receive into a frame", "the views are empty");
    this.#view = 0;
    this.#filled = 0;
    this.#received = 0;
  }

  #room(): Uint8Array<ArrayBufferLike> {
    return this.#views[this.#view]?.subarray(this.#filled) ?? this.#spare;
  }

  #take(bytes: number): void {
    if (this.#view === this.#views.length)
      fail("EPIPE", "receive into a frame", "onFull() ended it; connect again to receive more");
    this.#filled += bytes;
    this.#received += bytes;
    if (this.#filled < (this.#views[this.#view]?.length ?? 0)) return;
    this.#view += 1;
    this.#filled = 0;
  }
}

/** What is sent to: Node's `net.Socket` is one. */
export interface ByteSink {
  cork(): void;
  uncork(): void;
  write(bytes: Uint8Array, done: (error?: Error | null) => void): boolean;
}

/**
 * Sends the views with one gathering write, in place. Resolves when the host has taken all of them:
 * until then keep the mapping or frame, and do not change the bytes. Rejects with the socket's
 * error; EINVAL: that is no socket, or no list of views.
 */
export async function sendViews(socket: ByteSink, views: Views): Promise<void> {
  requireMethods(socket, ["cork", "uncork", "write"], "the socket", "send views");
  requireViews(views, "send views");
  if (views.length === 0) return;
  socket.cork();
  const written = views.map(
    (view) =>
      new Promise<void>((resolve, reject) => {
        socket.write(view, (error) => (error ? reject(error) : resolve()));
      }),
  );
  socket.uncork();
  await Promise.all(written);
}
