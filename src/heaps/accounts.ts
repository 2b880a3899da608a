/**
 * Accounts: what is held, by who pays for it and by who exported it. Every question is O(1).
 *
 * - AC1  An exporter's counts are those of its live buffers; a name without any has zeros.
 * - AC2  A charge ends when its buffer is released, and never before.
 *
 * @module
 */

import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import { fail } from "../errors.ts";
import { Owner, type OwnerOptions } from "./owner.ts";

/** What an exporter's live buffers amount to. */
export interface ExporterStats {
  readonly exporterName: string;
  readonly bufferCount: number;
  readonly sizeBytes: number;
}

interface Totals {
  bufferCount: number;
  sizeBytes: number;
}

interface Charge {
  readonly owner: Owner;
  readonly bytes: number;
}

/** The books of a system. */
export class Accounts {
  readonly #owners: Map<string, Owner> = new Map();
  readonly #exporters: Map<string, Totals> = new Map();
  readonly #charges: Map<DmaBuf, Charge> = new Map();

  /** A new owner. EINVAL: the name or the quota; EEXIST: there is one of this name. */
  addOwner(name: string, options: OwnerOptions): Owner {
    if (this.#owners.has(name)) fail("EEXIST", `make owner ${name}`, "there is one of this name");
    const owner = new Owner(name, options, () => this.#owners.delete(name));
    this.#owners.set(name, owner);
    return owner;
  }

  /** Whether `owner` was made here and is still there. */
  has(owner: Owner): boolean {
    return this.#owners.get(owner.name) === owner;
  }

  /** All owners, oldest first. */
  get owners(): readonly Owner[] {
    return [...this.#owners.values()];
  }

  /** What the live buffers of an exporter amount to (AC1). */
  exporter(exporterName: string): ExporterStats {
    const { bufferCount, sizeBytes } = this.#exporters.get(exporterName) ?? nothing;
    return { exporterName, bufferCount, sizeBytes };
  }

  /** All exporters that have buffers. */
  get exporters(): readonly ExporterStats[] {
    return [...this.#exporters.keys()].map((name) => this.exporter(name));
  }

  /** Who pays for a buffer; null: nobody does. */
  ownerOf(buf: DmaBuf): Owner | null {
    return this.#charges.get(buf)?.owner ?? null;
  }

  /** Counts a buffer that was exported. */
  exported({ exporterName, sizeBytes }: DmaBuf): void {
    const totals = this.#exporters.get(exporterName);
    if (totals === undefined) this.#exporters.set(exporterName, { bufferCount: 1, sizeBytes });
    else {
      totals.bufferCount += 1;
      totals.sizeBytes += sizeBytes;
    }
  }

  /** Ties a charge that `owner` took to the buffer it was for (AC2). */
  settle(buf: DmaBuf, owner: Owner, bytes: number): void {
    this.#charges.set(buf, { owner, bytes });
  }

  /** Uncounts a buffer that was released, and takes its charge back. */
  released(buf: DmaBuf): void {
    const totals = this.#exporters.get(buf.exporterName);
    if (totals !== undefined) {
      totals.bufferCount -= 1;
      totals.sizeBytes -= buf.sizeBytes;
      if (totals.bufferCount === 0) this.#exporters.delete(buf.exporterName);
    }
    const charge = this.#charges.get(buf);
    if (charge === undefined) return;
    this.#charges.delete(buf);
    charge.owner.uncharge(charge.bytes);
  }
}

const nothing: Totals = { bufferCount: 0, sizeBytes: 0 };
