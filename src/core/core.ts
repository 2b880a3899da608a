/**
 * Core: one WebAssembly instance on one memory, its views, and the results of its calls as numbers
 * or errors.
 *
 *     memory ──┬── instance, thread 0   openCore()
 *              └── instance, thread 1   joinCore()    the same memory, another index
 *
 * - W1  The memory is made whole and never grows, so views stay valid as long as the memory.
 * - W2  Only `instance.exports` is called: the functions themselves, without the loader's wrappers;
 *       with `onMisuse`, each behind one that looks for misuses. Who keeps a function beyond a
 *       call may use it after leave(), against W3 (closed-exports.ts).
 *
 * @module
 */

import { requireFunction, requireObject } from "../arguments.ts";
import { checked, type ErrnoCode, fail, failClosed, nameOf, requireInteger } from "../errors.ts";
import type { Stacks } from "../stacks.ts";
import { FRAME_BYTES, formatBytes, GiB, KiB, MiB, PAGEBLOCK_BYTES, pfnOf } from "../units.ts";
import { closedExports } from "./closed-exports.ts";
import type { CoreExports } from "./exports.ts";
import { instantiate, invariantName } from "./instantiate.ts";
import { type OnMisuse, watchMisuse } from "./misuse.ts";
import { type CoreSource, loadModule, readyModule } from "./module.ts";
import { requireShare } from "./require-share.ts";

const WASM_PAGE_BYTES: number = 64 * KiB;
/** Words of the header (assembly/layout.ts). */
const THREAD_COUNT = 5;
const THREADS_AT = 6;

/**
 * How much memory: exactly so many bytes, or as much of `preferred` as the host grants, halved down
 * to `min`.
 */
export type MemoryBytes = number | { readonly min: number; readonly preferred: number };

/** What a core is opened with. */
export interface CoreOptions {
  /** Size of the memory, a multiple of 64 KiB from 1 MiB to 4 GiB. Default 64 MiB. */
  readonly memoryBytes?: MemoryBytes | undefined;
  /**
   * Memory that several threads can use. Browsers need a cross-origin isolated page for it. Default
   * false.
   */
  readonly shared?: boolean | undefined;
  /** How many threads may be joined at once, 1 to 64. Default 8. */
  readonly threads?: number | undefined;
  /** What a device sees as the address of byte 0: a multiple of 4 MiB below 2^44. Default 0. */
  readonly physicalBase?: number | undefined;
  /** Frames that have a descriptor but no bytes, for maps larger than any memory. Default 0. */
  readonly unbackedFrames?: number | undefined;
  /**
   * Size of the bounce pool, rounded up to 256 KiB: memory at the lowest addresses, into which
   * bytes are copied that a device cannot reach. Default 0: none, such a mapping is refused.
   */
  readonly bounceBytes?: number | undefined;
  /** Whether this thread may sleep. Default: found out. */
  readonly canBlock?: boolean | undefined;
  /** Fill freed frames with a pattern; their next owner sees zeros all the same. Default false. */
  readonly poison?: boolean | undefined;
  /** Touch all memory at once, so that no first use waits for the host. Default false. */
  readonly prefault?: boolean | undefined;
  /**
   * Find writes into freed memory: `poison`, and freed frames wait before they are used again;
   * those that were written to meanwhile are counted, and told to `onMisuse`. Slow. Default false.
   */
  readonly strict?: boolean | undefined;
  /** Told of each misuse that `strict` or `system.checkPoison()` finds. */
  readonly onMisuse?: OnMisuse | undefined;
  /** A core to use instead of the one inside the package. */
  readonly wasm?: CoreSource | undefined;
}

/** What a thread needs to join: it can be posted to a Worker when the memory is shared. */
export interface CoreShare {
  readonly memory: WebAssembly.Memory;
  readonly module: WebAssembly.Module;
}

/** Where the thread slots lie: what a thread that has not joined needs to find a free one. */
export interface ThreadSlots {
  readonly at: number;
  readonly bytes: number;
  readonly count: number;
}

/** An instance of the core that has joined a memory. */
export class Core implements CoreShare {
  /** The functions; once this core has left, such that refuse (W3). */
  readonly exports: CoreExports;
  readonly memory: WebAssembly.Memory;
  readonly module: WebAssembly.Module;
  /** The index of this instance's thread slot. */
  readonly thread: number;
  /** All bytes (W1). */
  readonly u8: Uint8Array<ArrayBufferLike>;
  /** The same bytes as words: word i lies at byte 4 * i. */
  readonly u32: Uint32Array<ArrayBufferLike>;
  /** The same words, signed: what `Atomics.wait` takes. */
  readonly i32: Int32Array<ArrayBufferLike>;
  /** The same bytes as doubles. */
  readonly f64: Float64Array<ArrayBufferLike>;
  /** Whether this thread may sleep in a call. */
  readonly mayBlock: boolean;
  /** The words that lists are passed in: of the thread's slot, until this core has left. */
  readonly scratch: Uint32Array<ArrayBufferLike>;
  /** Whether it has left its memory. */
  readonly hasLeft: boolean = false;
  /** @internal What this thread shares with others or has imported, by its number. */
  readonly tokens: Map<number, object> = new Map();
  /** @internal Where holders were made; null: nobody asked for that. */
  stacks: Stacks | null = null;
  /** Bytes that the library has moved for this instance, a device's own accesses aside. */
  bytesCopied = 0;

  /** @internal `exports` has opened or joined the memory already. */
  constructor(share: CoreShare, exports: CoreExports, thread: number, mayBlock: boolean) {
    this.exports = exports;
    this.mayBlock = mayBlock;
    this.memory = share.memory;
    this.module = share.module;
    this.thread = thread;
    this.u8 = new Uint8Array(share.memory.buffer);
    this.u32 = new Uint32Array(share.memory.buffer);
    this.i32 = new Int32Array(share.memory.buffer);
    this.f64 = new Float64Array(share.memory.buffer);
    this.scratch = new Uint32Array(
      share.memory.buffer,
      exports.scratchAt() >>> 0,
      exports.SCRATCH_WORDS.value,
    );
  }

  /** Whether other threads can be on this memory. */
  get isShared(): boolean {
    return !(this.memory.buffer instanceof ArrayBuffer);
  }

  /** Leaves the memory: for good, whoever has the slot next (W3). */
  leave(): void {
    if (this.hasLeft) return;
    this.exports.coreLeave();
    const exports = closedExports(this.exports);
    const scratch = new Uint32Array(this.scratch.length);
    Object.assign(this, { exports, scratch, hasLeft: true });
  }

  /** @internal Throws ENODEV once this core has left. */
  requireJoined(operation: string): void {
    if (this.hasLeft) failClosed(operation);
  }

  /** Where the thread slots lie. */
  get threadSlots(): ThreadSlots {
    const { HEADER_AT, THREAD_BYTES } = this.exports;
    const [count, at] = [THREAD_COUNT, THREADS_AT].map((i) => this.word(HEADER_AT.value, i));
    return { at: at ?? 0, bytes: THREAD_BYTES.value, count: count ?? 0 };
  }

  /** A view of `lengthBytes` bytes at byte `at`. ENODEV: this core has left. */
  view(at: number, lengthBytes: number): Uint8Array<ArrayBufferLike> {
    if (this.hasLeft) failClosed("view the memory");
    return new Uint8Array(this.memory.buffer, at, lengthBytes);
  }

  /** Where a view of this memory begins; null for a view of anything else. */
  byteOffsetOf(view: ArrayBufferView): number | null {
    return view.buffer === this.memory.buffer ? view.byteOffset : null;
  }

  /** Word `index` of what lies at byte `at`. */
  word(at: number, index: number): number {
    return this.u32[at / 4 + index] ?? 0;
  }

  /**
   * Null, or the id of the first invariant that the memory breaks, as "B3". `isDeep` also reads
   * free frames' bytes.
   */
  check(isDeep = false): string | null {
    const broken = checked(this.exports.check(isDeep ? 1 : 0), "check the memory", () => "");
    return broken === 0 ? null : invariantName(broken);
  }
}

function createMemory(bytes: number, shared: boolean): WebAssembly.Memory {
  const pages = bytes / WASM_PAGE_BYTES;
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared });
}

/** Tries the sizes that the options allow, largest first. */
function reserveMemory(size: MemoryBytes, shared: boolean): WebAssembly.Memory {
  if (typeof size !== "number" && (typeof size !== "object" || size === null)) {
    const reason = `memoryBytes must be a number or { min, preferred }, and is ${nameOf(size)}`;
    fail("EINVAL", "open a system", reason);
  }
  const { min, preferred } = typeof size === "number" ? { min: size, preferred: size } : size;
  for (const [name, value] of [
    [typeof size === "number" ? "memoryBytes" : "memoryBytes.preferred", preferred],
    ["memoryBytes.min", min],
  ] as const) {
    requireInteger(value, name, MiB, 4 * GiB, "open a system");
    if (value % WASM_PAGE_BYTES !== 0) {
      fail("EINVAL", "open a system", `${name} must be a multiple of 64 KiB, and is ${value}`);
    }
  }
  if (min > preferred)
    fail(
      "EINVAL",
      "open a system",
      `memoryBytes.min (${min}) is above memoryBytes.preferred (${preferred})`,
    );
  for (
    let bytes = preferred;
    ;
    bytes = Math.max(min, Math.floor(bytes / 2 / WASM_PAGE_BYTES) * WASM_PAGE_BYTES)
  ) {
    try {
      return createMemory(bytes, shared);
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
      if (bytes === min) {
        const kind = shared ? "shared" : "unshared";
        fail(
          "ENOMEM",
          "open a system",
          `the host refuses ${formatBytes(bytes)} of ${kind} memory; ask for less`,
        );
      }
    }
  }
}

/** Atomics.wait throws where a thread must not sleep, as on a page's main thread. */
function findCanBlock(): boolean {
  if (typeof SharedArrayBuffer === "undefined") return false;
  try {
    // The value differs from 1, so where waiting is allowed it returns at once.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1, 0);
    return true;
  } catch {
    return false;
  }
}

function checkOptions(options: CoreOptions): void {
  requireObject(options, "the options", "open the core");
  const { threads = 8, physicalBase = 0, unbackedFrames = 0, bounceBytes = 0 } = options;
  if (options.onMisuse !== undefined)
    requireFunction(options.onMisuse, "onMisuse", "open a system");
  requireInteger(bounceBytes, "bounceBytes", 0, GiB, "open a system");
  requireInteger(threads, "threads", 1, 64, "open a system");
  requireInteger(physicalBase, "physicalBase", 0, 2 ** 44 - 4 * GiB, "open a system");
  requireInteger(unbackedFrames, "unbackedFrames", 0, 2 ** 20 + 2 ** 19, "open a system");
  if (physicalBase % PAGEBLOCK_BYTES !== 0) {
    fail(
      "EINVAL",
      "open a system",
      `physicalBase must be a multiple of 4 MiB, and is ${physicalBase}`,
    );
  }
}

function start(module: WebAssembly.Module, options: CoreOptions): Core {
  checkOptions(options);
  const {
    memoryBytes = 64 * MiB,
    shared = false,
    threads = 8,
    physicalBase = 0,
    unbackedFrames = 0,
  } = options;
  const memory = reserveMemory(memoryBytes, shared);
  const exports = instantiate({ memory, module }, 0);
  const frames = memory.buffer.byteLength / FRAME_BYTES;
  const canBlock = options.canBlock ?? findCanBlock();
  // A number in the last frame of 4 GiB would look like an errno: nobody gets that frame.
  const backedFrames = Math.min(frames, pfnOf(4 * GiB) - 1);
  const opened = exports.coreOpen(
    frames + unbackedFrames,
    backedFrames,
    threads,
    pfnOf(physicalBase),
    shared ? 1 : 0,
    canBlock ? 1 : 0,
    flagsOf(options),
  );
  checked(opened, "open a system", (code) => openReason(code, memory.buffer.byteLength));
  const { onMisuse, bounceBytes = 0 } = options;
  if (bounceBytes > 0)
    checked(
      exports.bounceInit(bounceBytes),
      "open a system",
      () => `${formatBytes(memory.buffer.byteLength)} do not hold ${formatBytes(bounceBytes)} more`,
    );
  const watched = onMisuse === undefined ? exports : watchMisuse(exports, onMisuse);
  return new Core({ memory, module }, watched, 0, canBlock);
}

/** What to do with freed frames, and at the start, as the core's flags (assembly/layout.ts). */
function flagsOf({ poison = false, strict = false, prefault = false }: CoreOptions): number {
  return (poison || strict ? 1 : 0) + (strict ? 2 : 0) + (prefault ? 4 : 0);
}

function openReason(code: ErrnoCode, bytes: number): string {
  if (code === "ENOMEM") return `${formatBytes(bytes)} do not hold even the map of the memory`;
  return "the core refuses these options";
}

/** Opens a core on new memory. */
export async function openCore(options: CoreOptions = {}): Promise<Core> {
  requireObject(options, "the options", "open the core");
  return start(await loadModule(options.wasm, options.shared ?? false), options);
}

/** The same without waiting: `wasm` must be compiled or bytes. */
export function openCoreSync(options: CoreOptions = {}): Core {
  requireObject(options, "the options", "open the core");
  return start(readyModule(options.wasm, options.shared ?? false), options);
}

/**
 * Joins the memory of another core as thread `thread`: EBUSY when that index runs already, ENOSPC
 * when there is no slot.
 */
export function joinCore(
  share: CoreShare,
  thread: number,
  canBlock: boolean = findCanBlock(),
): Core {
  requireShare(share);
  requireInteger(thread, "thread", 0, 63, "join a system");
  const exports = instantiate(share, thread);
  checked(exports.coreJoin(canBlock ? 1 : 0), "join a system", (code) => joinReason(code, thread));
  return new Core(share, exports, thread, canBlock);
}

function joinReason(code: ErrnoCode, thread: number): string {
  if (code === "EBUSY") return `thread ${thread} has joined already; take another index`;
  if (code === "ENOSPC")
    return `there is no slot for thread ${thread}; open the system with more threads`;
  return "nobody opened a system on this memory";
}
