/**
 * ServedLink: what this thread does with a buffer of its own for one link of another thread.
 *
 *     question ─► the call that it stands for, on this thread's buffer ─► answer
 *     link gone ─► what the link still has is given back
 *
 * - SL1  A question is one call of the buffer's own API: lock, fences, order and errors are those
 *        that every importer of this thread gets.
 * - SL2  Who asks and dies leaves nothing: mappings and attachment end with the link.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { Device, type DeviceLimits, type DevicePool } from "../device/device.ts";
import type { DeviceMapping } from "../device/device-mapping.ts";
import { type Direction, directions } from "../direction.ts";
import type { Attachment } from "../dma-buf/attachment.ts";
import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import type { Vmapping } from "../dma-buf/vmap.ts";
import { errno, fail, throwLater } from "../errors.ts";
import { freeText, makeText, readText } from "../mm/text-table.ts";
import { describeError, linkOps, linkWords } from "./link-words.ts";

/** What is answered: two numbers. */
type Numbers = readonly [value: number, more: number];

interface Asked {
  readonly op: number;
  readonly a: number;
  readonly b: number;
}

interface LentMapping {
  readonly mapping: DeviceMapping;
  uses: number;
}

const NOTHING: Numbers = [0, 0];

/** @internal One link, served. */
export class ServedLink {
  readonly buf: DmaBuf;
  readonly #core: Core;
  readonly #handle: number;
  readonly #at: number;
  readonly #pool: DevicePool;
  /** Which thread asks, for people. */
  readonly #asker: number;
  #attachment: Attachment | null = null;
  /** By the core's number. */
  readonly #mappings: Map<number, LentMapping> = new Map();
  #vmapping: Vmapping | null = null;
  /** The text of the last answer. */
  #reply = 0;
  /** What is being answered, and how it is interrupted. */
  #asked: Promise<void> = Promise.resolve();
  #interrupt = new AbortController();

  constructor(core: Core, handle: number, buf: DmaBuf, pool: DevicePool, asker: number) {
    this.buf = buf;
    this.#core = core;
    this.#handle = handle;
    this.#pool = pool;
    this.#asker = asker;
    this.#at = core.exports.linkAt(handle) >>> 0;
  }

  #word(name: keyof typeof linkWords): number {
    return this.#core.word(this.#at, linkWords[name]);
  }

  /** Whether the other side still has the link. */
  get isThere(): boolean {
    return this.#core.exports.linkAt(this.#handle) >>> 0 === this.#at;
  }

  /** Answers the question that was taken. */
  serve(): void {
    const asked = { op: this.#word("op"), a: this.#word("a"), b: this.#word("b") };
    this.#interrupt = new AbortController();
    this.#asked = this.#serve(asked);
  }

  async #serve(asked: Asked): Promise<void> {
    freeText(this.#core, this.#reply);
    this.#reply = 0;
    try {
      const [value, more] = await this.#run(asked);
      this.#core.exports.linkAnswer(this.#handle, 0, value, more, 0);
    } catch (error) {
      const text = describeError(error);
      try {
        this.#reply = makeText(this.#core, text, "answer");
      } catch {
        // no memory for the words: the number has to do
      }
      this.#core.exports.linkAnswer(this.#handle, -errno[text.code], 0, 0, this.#reply);
    }
  }

  /** Interrupts what is under way, if its asker wants no answer any more. */
  interruptIfCancelled(): void {
    if (!this.isThere || this.#word("isCancelled") !== 0) this.#interrupt.abort();
  }

  async #run({ op, a, b }: Asked): Promise<Numbers> {
    const { signal } = this.#interrupt;
    const { buf } = this;
    switch (linkOps[op]) {
      case "attach":
        return this.#attach(a, signal);
      case "detach":
        return this.#detach();
      case "map":
        return this.#map(directionOf(a), signal);
      case "unmap":
        return this.#unmap(a, directionOf(b));
      case "begin":
        return [await buf.beginCpuAccessAsync(directionOf(a), { signal }), 0];
      case "end":
        return [await buf.endCpuAccessAsync(directionOf(a), { signal }), 0];
      case "vmap":
        return this.#vmap(signal);
      case "vunmap":
        return this.#vunmap();
      default:
        return fail("EINVAL", `answer for ${buf.name}`, `there is no question ${op}`);
    }
  }

  async #attach(text: number, signal: AbortSignal): Promise<Numbers> {
    const operation = `attach a device of thread ${this.#asker} to ${this.buf.name}`;
    if (this.#attachment !== null) fail("EINVAL", operation, "the link has an attachment");
    const said = readText(this.#core, text) as { name?: unknown; limits?: DeviceLimits } | null;
    if (typeof said?.name !== "string" || typeof said.limits !== "object" || said.limits === null)
      return fail("EBADF", operation, "its description did not arrive");
    const name = `${said.name} (thread ${this.#asker})`;
    const device = Device.standIn(this.#core, name, said.limits, this.#pool);
    try {
      this.#attachment = await this.buf.attachAsync(device, { signal });
    } catch (error) {
      device.remove();
      throw error;
    }
    return NOTHING;
  }

  #requireAttachment(): Attachment {
    return this.#attachment ?? fail("EINVAL", `use ${this.buf.name}`, "the link has no attachment");
  }

  async #map(direction: Direction, signal: AbortSignal): Promise<Numbers> {
    const mapping = await this.#requireAttachment().mapAsync(direction, { signal });
    const known = this.#mappings.get(mapping.handle);
    if (known === undefined) this.#mappings.set(mapping.handle, { mapping, uses: 1 });
    else known.uses += 1; // the one that the attachment keeps
    return [mapping.tableHandle, mapping.handle];
  }

  async #unmap(handle: number, direction: Direction): Promise<Numbers> {
    const attachment = this.#requireAttachment();
    const lent = this.#mappings.get(handle);
    if (lent === undefined)
      return fail("ESTALE", `unmap ${this.buf.name}`, "the mapping is not alive on this link");
    await attachment.unmapAsync(lent.mapping, { direction });
    lent.uses -= 1;
    if (lent.uses === 0) this.#mappings.delete(handle);
    return NOTHING;
  }

  async #detach(): Promise<Numbers> {
    const attachment = this.#requireAttachment();
    await attachment.detachAsync();
    this.#attachment = null;
    attachment.device.remove();
    return NOTHING;
  }

  async #vmap(signal: AbortSignal): Promise<Numbers> {
    if (this.#vmapping !== null) fail("EINVAL", `vmap ${this.buf.name}`, "the link has a mapping");
    this.#vmapping = await this.buf.vmapAsync({ signal });
    return [this.#vmapping.table.handle, 0];
  }

  async #vunmap(): Promise<Numbers> {
    if (this.#vmapping !== null) await this.buf.vunmapAsync(this.#vmapping);
    this.#vmapping = null;
    return NOTHING;
  }

  /** Gives back all that the link has; what an exporter throws meanwhile is reported (SL2). */
  async end(): Promise<void> {
    this.#interrupt.abort();
    await this.#asked;
    for (const [handle, { mapping, uses }] of [...this.#mappings])
      for (let i = 0; i < uses; i++) await reported(this.#unmap(handle, mapping.direction));
    await reported(this.#vunmap());
    if (this.#attachment !== null) await reported(this.#detach());
    freeText(this.#core, this.#reply);
    this.#reply = 0;
  }
}

async function reported(call: Promise<unknown>): Promise<void> {
  await call.catch(throwLater);
}

/** EINVAL: the number is no direction's. */
function directionOf(number: number): Direction {
  return directions[number] ?? fail("EINVAL", "answer", `${number} is no direction`);
}
