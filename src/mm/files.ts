/**
 * Whole lists of views to and from files, in as many calls as that takes.
 *
 * - FS1  Every byte between `skip` and the end of the list is moved, or the file ended: a call that
 *        moved less than it was given is continued where it stopped.
 * - FS2  No call gets more than 1024 views: Linux takes no more (IOV_MAX), and Node's `readv`
 *        leaves the rest out without a word.
 *
 * The types describe Node's `FileHandle` by what is used of it, so that nothing here needs Node.
 *
 * @module
 */

import { requireMethods, requireObject, requireViews } from "../arguments.ts";
import { fail, requireInteger, textOf } from "../errors.ts";

/** What is read from: Node's `FileHandle` is one. */
export interface FileSource {
  readv(
    views: readonly Uint8Array<ArrayBufferLike>[],
    position?: number,
  ): Promise<{ readonly bytesRead: number }>;
}

/** What is written to: Node's `FileHandle` is one. */
export interface FileSink {
  writev(
    views: readonly Uint8Array<ArrayBufferLike>[],
    position?: number,
  ): Promise<{ readonly bytesWritten: number }>;
}

/** Which bytes move, and where in the file they lie. */
export interface TransferOptions {
  /** Where in the file to begin. Default: the file's own position, which moves on. */
  readonly position?: number | undefined;
  /** Bytes of the table to leave out at its front. Default 0. */
  readonly skip?: number | undefined;
  /** How many bytes to move at most. Default: all behind `skip`. */
  readonly lengthBytes?: number | undefined;
}

const VIEWS_A_CALL = 1024; // FS2

type Views = readonly Uint8Array<ArrayBufferLike>[];
type Move = (views: Views, position: number | undefined) => Promise<number>;

/** Fills the views from a file: how many bytes, fewer when the file ends before. */
export async function readAll(
  file: FileSource,
  views: Views,
  options: TransferOptions,
): Promise<number> {
  requireMethods(file, ["readv"], "the file", "read a file into an sg table");
  const move: Move = async (part, position) => (await file.readv(part, position))?.bytesRead;
  return await moveAll(move, views, options, "read a file into an sg table");
}

/** Writes the views to a file: how many bytes. EIO when the file takes none. */
export async function writeAll(
  file: FileSink,
  views: Views,
  options: TransferOptions,
): Promise<number> {
  const operation = "write an sg table to a file";
  requireMethods(file, ["writev"], "the file", operation);
  const move: Move = async (part, position) => {
    const { bytesWritten } = (await file.writev(part, position)) ?? {};
    if (bytesWritten === 0) fail("EIO", operation, "the file takes no more bytes");
    return bytesWritten;
  };
  return await moveAll(move, views, options, operation);
}

async function moveAll(
  move: Move,
  all: Views,
  options: TransferOptions,
  operation: string,
): Promise<number> {
  requireObject(options, "the options", operation);
  requireViews(all, operation);
  const { position, skip = 0, lengthBytes = Number.MAX_SAFE_INTEGER } = options;
  for (const [name, value] of Object.entries({ position: position ?? 0, skip, lengthBytes }))
    requireInteger(value, name, 0, Number.MAX_SAFE_INTEGER, operation);
  const views = between(all, skip, lengthBytes);
  let done = 0;
  let next = 0; // the first view with bytes left
  let into = 0; // bytes of it that are moved
  while (next < views.length) {
    const part = views.slice(next, next + VIEWS_A_CALL);
    part[0] = (part[0] as Uint8Array<ArrayBufferLike>).subarray(into);
    const moved = await move(part, position === undefined ? undefined : position + done);
    if (!(Number.isInteger(moved) && moved >= 0 && moved <= bytesOf(part)))
      fail("EIO", operation, `the file says that ${textOf(moved)} bytes were moved`); // FS1
    if (moved === 0) break; // the file ended
    done += moved;
    into += moved;
    for (let left = views[next]; left !== undefined && into >= left.length; left = views[next]) {
      into -= left.length;
      next += 1;
    }
  }
  return done;
}

function bytesOf(views: Views): number {
  return views.reduce((sum, view) => sum + view.length, 0);
}

/** Views of at most `lengthBytes` bytes from byte `skip` of all on; none is empty. */
function between(all: Views, skip: number, lengthBytes: number): Uint8Array<ArrayBufferLike>[] {
  const views: Uint8Array<ArrayBufferLike>[] = [];
  let begin = 0;
  for (const view of all) {
    const from = Math.max(0, skip - begin);
    const to = Math.min(view.length, skip + lengthBytes - begin);
    if (from < to) views.push(view.subarray(from, to));
    begin += view.length;
  }
  return views;
}
