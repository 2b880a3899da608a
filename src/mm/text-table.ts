/**
 * Text tables: what one thread tells another in words, as JSON in frames of a table that owns them.
 *
 *     byte 0   4
 *          ├ n ┼ n bytes of UTF-8 ┤        in the bytes of the table's entries, in order
 *
 * - TX1  Who reads does not trust what is there: a table that is gone, or holds no text, is null.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { checked } from "../errors.ts";
import { addressOf, framesOf, NO_PFN } from "../units.ts";
import { SgTable } from "./sg-table.ts";

const HEAD_BYTES = 4;
/** Longer tables are not read. */
const MAX_BYTES = 2 ** 20;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The number of a new table with `value` in it, bigints included. ENOMEM, EAGAIN. */
export function makeText(core: Core, value: unknown, operation: string): number {
  const text = encoder.encode(JSON.stringify(value, withBigints));
  const bytes = new Uint8Array(HEAD_BYTES + text.length);
  for (let i = 0; i < HEAD_BYTES; i++) bytes[i] = Math.floor(text.length / 256 ** i);
  bytes.set(text, HEAD_BYTES);
  const result = core.exports.storageAllocBlocks(framesOf(bytes.length), NO_PFN, 0);
  const handle = checked(result, operation, () => "no memory is left");
  let done = 0;
  for (const run of runsOf(core, handle)) {
    run.set(bytes.subarray(done, done + run.length));
    done += run.length;
  }
  return handle;
}

/** Frees a table of text. */
export function freeText(core: Core, handle: number): void {
  if (handle !== 0) core.exports.storageFree(handle);
}

/** What another thread's table of text says; null (TX1). */
export function readText(core: Core, handle: number): unknown {
  try {
    if (new SgTable(core, handle, "others").lengthBytes > MAX_BYTES) return null;
    const parts = runsOf(core, handle).map((run) => run.slice()); // read once, before it is checked
    const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
    let done = 0;
    for (const part of parts) {
      bytes.set(part, done);
      done += part.length;
    }
    const length = bytes.subarray(0, HEAD_BYTES).reduce((sum, byte, i) => sum + byte * 256 ** i, 0);
    if (length > bytes.length - HEAD_BYTES) return null;
    const text = decoder.decode(bytes.subarray(HEAD_BYTES, HEAD_BYTES + length));
    return JSON.parse(text, toBigints);
  } catch {
    return null; // its maker has freed it meanwhile
  }
}

function runsOf(core: Core, handle: number): Uint8Array<ArrayBufferLike>[] {
  const entries = [...new SgTable(core, handle, "others").entries()];
  return entries.map(({ pfn, offset, lengthBytes }) =>
    core.view(addressOf(pfn, offset), lengthBytes),
  );
}

function withBigints(_: string, value: unknown): unknown {
  return typeof value === "bigint" ? { bigint: `${value}` } : value;
}

function toBigints(_: string, value: unknown): unknown {
  const digits = (value as { readonly bigint?: unknown } | null)?.bigint;
  return typeof digits === "string" && /^\d{1,20}$/.test(digits) ? BigInt(digits) : value;
}
