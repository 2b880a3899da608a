/**
 * RemoteBuffer: a buffer whose exporter is JavaScript of another thread, as this one sees it.
 *
 *     attachAsync ─► link ─► "attach"  ─► the exporter consents, for a device that stands for ours
 *     mapAsync    ─► "map" ─► a table  ─► borrowed: its frames are pinned ─► mapped for our device
 *     unmap, detach ─► our mapping ends now ─► "unmap", "detach"
 *
 * - RB1  What the exporter does is decided on its thread, under its locks and after its fences;
 *        what concerns a device of this thread is done here: nobody else changes its addresses.
 * - RB2  Our mapping ends before the exporter hears of it, and frames stay while they are mapped or
 *        seen here, whatever becomes of the exporter's thread.
 * - RB3  To take something needs an answer: the synchronous call is EWOULDBLOCK, and asks nothing.
 *        To give something back does not: it takes place here at once, and is told there.
 * - RB4  An attachment from another thread is a static one: a dynamic exporter's buffer is pinned
 *        from attach to detach, and does not move meanwhile.
 *
 * @module
 */

import type { WaitOptions } from "../clock.ts";
import type { Core } from "../core/core.ts";
import type { DeviceMapping } from "../device/device-mapping.ts";
import type { Direction } from "../direction.ts";
import type { Attachment } from "../dma-buf/attachment.ts";
import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import type { PixelLayout } from "../dma-buf/formats.ts";
import type { DmaBufOps, ExportInfo, MaybePromise } from "../dma-buf/ops.ts";
import { checked, codeOf, type ErrnoCode, errno, fail, isErrno } from "../errors.ts";
import { readRecord } from "../heaps/buffer-record.ts";
import { SgTable } from "../mm/sg-table.ts";
import { type Answer, isNobodyThere, Link, type Question } from "./link.ts";
import { directionWord, reasonOf } from "./link-words.ts";

/** What one attachment has of the exporter's thread. */
interface Remote {
  readonly link: Link;
  /** By our mapping. */
  readonly mappings: Map<DeviceMapping, Borrowed>;
}

interface Borrowed {
  readonly table: SgTable;
  /** The number of the exporter's mapping. */
  readonly theirs: number;
}

/** What to export of a buffer that another thread serves and this one holds; null: none does. */
export function importServed(core: Core, token: number): ExportInfo | null {
  const server = core.exports.bufferServer(token);
  if (server === -errno.EINVAL) return null;
  try {
    checked(server, `import buffer ${token}`, reasonOf);
    const { sizeBytes, name, exporterName, layout } = readRecord(core, token);
    const ops = new RemoteBuffer(core, token, name, sizeBytes, layout);
    return { ops, sizeBytes, exporterName: exporterName ?? "import", name };
  } catch (error) {
    core.exports.bufferFree(token);
    throw error;
  }
}

/** The ops of a buffer of another thread's exporter. */
class RemoteBuffer implements DmaBufOps {
  readonly #core: Core;
  readonly #token: number;
  readonly #sizeBytes: number;
  readonly #layout: PixelLayout | null;
  /** For what concerns no attachment. */
  readonly #session: Link;
  readonly #remotes: Map<Attachment, Remote> = new Map();

  constructor(
    core: Core,
    token: number,
    name: string,
    sizeBytes: number,
    layout: PixelLayout | null,
  ) {
    this.#core = core;
    this.#token = token;
    this.#sizeBytes = sizeBytes;
    this.#layout = layout;
    this.#session = new Link(core, token, name, sizeBytes);
  }

  token(): number {
    return this.#token;
  }

  layout(): PixelLayout | null {
    return this.#layout;
  }

  /** RB3. */
  #requireWait(wait: WaitOptions | undefined, operation: string): WaitOptions {
    return wait ?? fail("EWOULDBLOCK", operation, "its exporter is another thread's; use …Async()");
  }

  // ---- attachments

  async #attach(attachment: Attachment, operation: string, wait: WaitOptions): Promise<void> {
    const { buf, device } = attachment;
    const link = new Link(this.#core, this.#token, buf.name, this.#sizeBytes);
    const text = { name: device.name, limits: device.limits };
    try {
      await link.ask({ op: "attach", operation, text }, wait);
    } catch (error) {
      link.close(); // LK2: what may have been done for it is undone
      throw error;
    }
    this.#remotes.set(attachment, { link, mappings: new Map() });
  }

  attach(buf: DmaBuf, attachment: Attachment, wait?: WaitOptions): Promise<void> {
    const operation = `attach ${attachment.device.name} to ${buf.name}`;
    return this.#attach(attachment, operation, this.#requireWait(wait, operation));
  }

  detach(buf: DmaBuf, attachment: Attachment, wait?: WaitOptions): MaybePromise<void> {
    const { link } = this.#remote(attachment);
    this.#remotes.delete(attachment);
    const operation = `detach ${attachment.device.name} from ${buf.name}`;
    const done = this.#giveBack(link, { op: "detach", operation }, wait);
    link.close();
    return done;
  }

  #remote(attachment: Attachment): Remote {
    return (
      this.#remotes.get(attachment) ??
      fail("ESTALE", `use ${attachment.buf.name}`, "the attachment has ended")
    );
  }

  /** Tells the other side, and waits for its answer if the caller does. */
  #giveBack(link: Link, question: Question, wait: WaitOptions | undefined): MaybePromise<void> {
    if (wait === undefined) return link.tell(question);
    return link.ask(question, {}).then(
      () => {},
      (error) => {
        if (!isNobodyThere(error)) throw error;
      },
    );
  }

  // ---- mappings

  map(attachment: Attachment, direction: Direction, wait?: WaitOptions): Promise<DeviceMapping> {
    const operation = `map ${attachment.buf.name} for ${attachment.device.name}`;
    return this.#map(attachment, direction, operation, this.#requireWait(wait, operation));
  }

  async #map(
    attachment: Attachment,
    direction: Direction,
    operation: string,
    wait: WaitOptions,
  ): Promise<DeviceMapping> {
    const { link, mappings } = this.#remote(attachment);
    const b = directionWord(direction);
    const undo = ({ more }: Answer): Question => ({ op: "unmap", operation, a: more, b });
    const question: Question = { op: "map", operation, a: b, undo };
    const answer = await link.ask(question, wait);
    try {
      const table = this.#borrow(answer.value, operation);
      const mapping = this.#mapHere(attachment, table, direction, operation);
      mappings.set(mapping, { table, theirs: answer.more });
      return mapping;
    } catch (error) {
      link.tell(undo(answer));
      throw error;
    }
  }

  /** A copy of a table of the exporter's, with its frames pinned (RB2). */
  #borrow(theirs: number, operation: string): SgTable {
    const result = this.#core.exports.tableBorrow(theirs);
    if (isErrno(result)) this.#refuse(codeOf(result), operation);
    return new SgTable(this.#core, result >>> 0, "borrowed");
  }

  #refuse(code: ErrnoCode, operation: string): never {
    const server = this.#core.exports.bufferServer(this.#token);
    if (code === "ESTALE" && isErrno(server))
      fail(codeOf(server), operation, reasonOf("EOWNERDEAD"));
    if (code === "EOPNOTSUPP" || code === "EINVAL")
      fail("EOPNOTSUPP", operation, "its storage is no memory, or may move: it cannot be lent");
    return fail(code, operation, code === "ESTALE" ? "its storage has changed" : reasonOf(code));
  }

  #mapHere(
    { device }: Attachment,
    table: SgTable,
    direction: Direction,
    operation: string,
  ): DeviceMapping {
    try {
      const mapping = device.dma.mapSgtable(table, direction);
      if (!device.dma.needSync(mapping)) return mapping;
      device.dma.unmapSgtable(mapping, { skipCpuSync: true });
    } catch (error) {
      table.free();
      throw error;
    }
    table.free();
    return fail(
      "EOPNOTSUPP",
      operation,
      `${device.name} does not see the memory itself, and the exporter cannot sync for it`,
    );
  }

  unmap(
    attachment: Attachment,
    mapping: DeviceMapping,
    direction: Direction,
    wait?: WaitOptions,
  ): MaybePromise<void> {
    const { buf, device } = attachment;
    const operation = `unmap ${buf.name} for ${device.name}`;
    const { link, mappings } = this.#remote(attachment);
    const borrowed = mappings.get(mapping);
    if (borrowed === undefined) return; // it ended here, and the exporter's unmap failed
    device.dma.unmapSgtable(mapping);
    mappings.delete(mapping);
    borrowed.table.free();
    const b = directionWord(direction);
    return this.#giveBack(link, { op: "unmap", operation, a: borrowed.theirs, b }, wait);
  }

  // ---- the CPU

  beginCpuAccess(buf: DmaBuf, direction: Direction, wait?: WaitOptions): Promise<number> {
    const operation = `begin CPU access to ${buf.name}`;
    const a = directionWord(direction);
    const undo = (): Question => ({ op: "end", operation, a });
    const question: Question = { op: "begin", operation, a, undo };
    return this.#ask(question, this.#requireWait(wait, operation));
  }

  endCpuAccess(buf: DmaBuf, direction: Direction, wait?: WaitOptions): Promise<number> {
    const operation = `end CPU access to ${buf.name}`;
    const question: Question = { op: "end", operation, a: directionWord(direction) };
    return this.#ask(question, this.#requireWait(wait, operation));
  }

  async #ask(question: Question, wait: WaitOptions): Promise<number> {
    return (await this.#session.ask(question, wait)).value;
  }

  mmap(buf: DmaBuf): never {
    const operation = `map ${buf.name} for the CPU`;
    return fail("EWOULDBLOCK", operation, "its exporter is another thread's; use vmapAsync()");
  }

  vmap(buf: DmaBuf, wait?: WaitOptions): Promise<SgTable> {
    const operation = `vmap ${buf.name}`;
    return this.#vmap(operation, this.#requireWait(wait, operation));
  }

  async #vmap(operation: string, wait: WaitOptions): Promise<SgTable> {
    const undo = (): Question => ({ op: "vunmap", operation });
    const answer = await this.#session.ask({ op: "vmap", operation, undo }, wait);
    try {
      return this.#borrow(answer.value, operation);
    } catch (error) {
      this.#session.tell(undo());
      throw error;
    }
  }

  vunmap(buf: DmaBuf, table: SgTable, wait?: WaitOptions): MaybePromise<void> {
    const question: Question = { op: "vunmap", operation: `vunmap ${buf.name}` };
    const told = this.#giveBack(this.#session, question, wait);
    if (wait !== undefined) return Promise.resolve(told).then(() => table.free()); // OP3
    table.free();
  }

  release(): void {
    this.#session.close();
    this.#core.exports.bufferFree(this.#token);
    this.#core.tokens.delete(this.#token);
  }
}
