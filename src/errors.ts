/**
 * Errors: one class, the kernel's errno names as codes.
 *
 * - E1  A call that throws has changed nothing.
 * - E2  The message reads "Cannot <what was tried>: <why, and what would be right>".
 *
 * Numbers as in the kernel's include/uapi/asm-generic/errno.h.
 *
 * @module
 */

/** The errno numbers that this library uses, by name. */
export const errno = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  ENOEXEC: 8,
  EBADF: 9,
  ECHILD: 10,
  EAGAIN: 11,
  EWOULDBLOCK: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  ENOTBLK: 15,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ETXTBSY: 26,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  EMLINK: 31,
  EPIPE: 32,
  EDOM: 33,
  ERANGE: 34,
  EDEADLK: 35,
  ENODATA: 61,
  ETIME: 62,
  EOVERFLOW: 75,
  EBADFD: 77,
  EOPNOTSUPP: 95,
  EALREADY: 114,
  ESTALE: 116,
  EDQUOT: 122,
  ECANCELED: 125,
  EOWNERDEAD: 130,
} as const;

/** The name of an errno. */
export type ErrnoCode = keyof typeof errno;

/**
 * What every function of a core returns that has left its memory: no errno of the kernel, because
 * the core has an ENODEV of its own. Its code is ENODEV all the same.
 */
export const LEFT = -4095;

const codeByNumber = new Map<number, ErrnoCode>([[-LEFT, "ENODEV"]]);
for (const [code, number] of Object.entries(errno)) {
  if (!codeByNumber.has(number)) codeByNumber.set(number, code as ErrnoCode);
}

/** Thrown by every call of this library that fails. */
export class DmaBufError extends Error {
  override readonly name = "DmaBufError";
  /** The errno's name: what to compare. */
  readonly code: ErrnoCode;
  /** The errno's number, positive. */
  readonly errno: number;
  /** What was tried, in the imperative: "attach camera". */
  readonly operation: string;

  constructor(code: ErrnoCode, operation: string, reason: string) {
    super(`Cannot ${operation}: ${reason}`);
    this.code = code;
    this.errno = errno[code];
    this.operation = operation;
  }
}

/** Throws a {@link DmaBufError}. */
export function fail(code: ErrnoCode, operation: string, reason: string): never {
  throw new DmaBufError(code, operation, reason);
}

/** The name of a number that the core returned, negative. */
export function codeOf(result: number): ErrnoCode {
  return codeByNumber.get(-result) ?? "EIO";
}

/**
 * Whether a result of the core is an errno: large unsigned numbers come back negative too, but
 * never this close to 0.
 */
export function isErrno(result: number): boolean {
  return result < 0 && result > -4096;
}

const HELD = "another thread holds the allocator; try again";
const CLOSED = "the system is closed";

/**
 * The result of a core call as an unsigned number; throws when it is an errno. `reason` explains it
 * for a person.
 */
export function checked(
  result: number,
  operation: string,
  reason: (code: ErrnoCode) => string,
): number {
  if (!isErrno(result)) return result >>> 0;
  requireJoined(result, operation);
  const code = codeOf(result);
  return fail(code, operation, code === "EAGAIN" ? HELD : reason(code));
}

/** Throws ENODEV when the core that returned `result` has left its memory. */
export function requireJoined(result: number, operation: string): void {
  if (result === LEFT) failClosed(operation);
}

/** Throws what every call of a closed system does. */
export function failClosed(operation: string): never {
  return fail("ENODEV", operation, CLOSED);
}

/** Throws EINVAL unless `value` is an integer of [min, max]. */
export function requireInteger(
  value: number,
  name: string,
  min: number,
  max: number,
  operation: string,
): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  fail(
    "EINVAL",
    operation,
    `${name} must be an integer from ${min} to ${max}, and is ${nameOf(value)}`,
  );
}

/** For a message: a text as it is, anything else as nameOf() calls it. */
export function textOf(value: unknown): string {
  return typeof value === "string" ? value : nameOf(value);
}

/** What something is, for people; what no template takes, as a symbol, has a name too. */
export function nameOf(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value !== "object" || value === null) return String(value);
  const name: unknown = value.constructor?.name;
  return typeof name === "string" && name !== "" ? name : "an object";
}

/**
 * Throws `error` as a task of its own: a callback's error is its owner's, and reaches the host's
 * handler instead of whoever happened to call back.
 */
export function throwLater(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}

/** Runs what cannot fail, or whose failing comes second; what it throws is thrown later. */
export function reportError(callback: () => void): void {
  try {
    callback();
  } catch (error) {
    throwLater(error);
  }
}
