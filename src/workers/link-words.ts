/**
 * What a link says: questions about a buffer, and their answers, in words of shared memory and in
 * text where words do not do.
 *
 *     attach   a: text, the device      ─►
 *     map      a: direction             ─► value: the table's number, more: the mapping's
 *     unmap    a: mapping, b: direction ─►
 *     begin, end    a: direction        ─► value: what the exporter returned
 *     vmap                              ─► value: the table's number
 *     an error: the result is its errno, the text says more
 *
 * Layout as in assembly/link.ts. What another thread wrote is read once, and looked at then.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { type Direction, directions } from "../direction.ts";
import { type Conflict, ConflictError, describeConflicts } from "../dma-buf/conflict.ts";
import { codeOf, DmaBufError, type ErrnoCode, errno, textOf } from "../errors.ts";
import { readText } from "../mm/text-table.ts";

/** What one thread asks of another. */
export const linkOps = [
  "attach",
  "detach",
  "map",
  "unmap",
  "begin",
  "end",
  "vmap",
  "vunmap",
] as const;

/** A question's kind. */
export type LinkOp = (typeof linkOps)[number];

/** Where the words of a link lie, from its first. */
export const linkWords = {
  state: 0,
  op: 2,
  a: 3,
  b: 4,
  isCancelled: 5,
  result: 6,
  value: 7,
  more: 8,
  reply: 9,
} as const;

/** The states of a link in which nothing is under way (assembly/link.ts). */
export const IDLE = 0;
/** It has an answer. */
export const ANSWERED = 3;

/** The number of a direction in a question. */
export function directionWord(direction: Direction): number {
  return directions.indexOf(direction);
}

/** An error as text. */
interface ErrorText {
  readonly code: ErrnoCode;
  readonly reason: string;
  readonly conflicts?: readonly Conflict[] | undefined;
}

function thrownText(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : textOf(error);
}

/** What is told of an error, whoever threw it. */
export function describeError(error: unknown): ErrorText {
  if (!(error instanceof DmaBufError))
    return { code: "EIO", reason: `its exporter failed: ${thrownText(error)}` };
  const prefix = `Cannot ${error.operation}: `;
  const { code, message } = error;
  const reason = message.startsWith(prefix) ? message.slice(prefix.length) : message;
  return { code, reason, ...(error instanceof ConflictError && { conflicts: error.conflicts }) };
}

/** The error that an answer tells of. */
export function answeredError(
  core: Core,
  result: number,
  reply: number,
  operation: string,
  sizeBytes: number,
): DmaBufError {
  const text = reply === 0 ? null : readText(core, reply);
  const { code, reason, conflicts } = (text ?? {}) as Partial<ErrorText>;
  const known = code !== undefined && Object.hasOwn(errno, code) ? code : codeOf(result);
  const why = typeof reason === "string" ? reason : reasonOf(known);
  if (!Array.isArray(conflicts)) return new DmaBufError(known, operation, why);
  const list = `: ${describeConflicts(conflicts, sizeBytes)}`;
  const short = why.endsWith(list) ? why.slice(0, -list.length) : why;
  return new ConflictError(known, operation, short, conflicts, sizeBytes);
}

/** Why nobody answers. */
export function reasonOf(code: ErrnoCode): string {
  if (code === "EOWNERDEAD") return "the thread that exported it is gone";
  if (code === "ENODEV") return "the thread that exported it has left the system";
  if (code === "ESTALE") return "it was given up";
  return code === "ENOMEM" ? "no memory is left" : "the thread that exported it refuses";
}
