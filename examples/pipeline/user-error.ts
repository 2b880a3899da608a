/**
 * Errors that the user can do something about: they are told in one line. A bug keeps its stack.
 *
 * @module
 */

import { DmaBufError } from "dmabuf";
import { ClipError } from "./clip.ts";
import { UsageError } from "./command-line.ts";
import { OrderError } from "./witness.ts";

/** An error of a stage's Worker, by its message. */
export class StageError extends Error {
  override readonly name = "StageError";
}

/** Whether the user can do something about it. */
export function isForUser(error: unknown): error is Error {
  const kinds = [ClipError, UsageError, OrderError, StageError, DmaBufError];
  return kinds.some((kind) => error instanceof kind) || isSystemError(error);
}

function isSystemError(error: unknown): boolean {
  return error instanceof Error && "syscall" in error;
}
