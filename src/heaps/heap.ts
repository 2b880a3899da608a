/**
 * Heap: a named source of buffers, and the arguments that every heap checks alike.
 *
 *     alloc(sizeBytes) ─► arguments ─► the owner is charged ─► info.alloc(request) ─► DmaBuf
 *
 * - HP1  Sizes are rounded up to whole frames; the buffer keeps the rounded size, as Linux has it.
 * - HP2  A heap that cannot serve throws ENOMEM and holds nothing; its owner is not charged.
 *
 * Compare dma_heap_buffer_alloc() in the kernel's drivers/dma-buf/dma-heap.c.
 *
 * @module
 */

import { requireInstance, requireObject } from "../arguments.ts";
import { DmaBuf } from "../dma-buf/dma-buf.ts";
import type { PixelLayout } from "../dma-buf/formats.ts";
import { layoutProblem } from "../dma-buf/layout-check.ts";
import type { PixelRequest } from "../dma-buf/negotiate-pixels.ts";
import { fail, nameOf, textOf } from "../errors.ts";
import { O_ACCMODE, O_CLOEXEC, O_RDWR } from "../files/open-file.ts";
import { FRAME_BYTES, formatBytes, framesOf, GiB } from "../units.ts";
import type { Accounts } from "./accounts.ts";
import { Owner } from "./owner.ts";

/** What a buffer is allocated with. */
export interface AllocOptions {
  /** A label for people, at most 31 bytes. */
  readonly name?: string | undefined;
  /** Who is charged for it, until it is released. Default: nobody. */
  readonly owner?: Owner | undefined;
  /**
   * The open flags, as `DMA_HEAP_IOCTL_ALLOC` takes them: the access mode of the buffer's file, and
   * O_CLOEXEC, which is checked here and is the descriptor's. Default O_RDWR.
   */
  readonly fdFlags?: number | undefined;
  /**
   * A picture, for heap `auto`: the devices attached at the first use decide its format, modifier
   * and planes, found as `buf.layout`.
   */
  readonly pixels?: PixelRequest | undefined;
  /**
   * A picture that is laid out already, as `negotiate()` gives it (`layout.pixels`): devices that
   * cannot use it are refused. Not together with `pixels`.
   */
  readonly layout?: PixelLayout | undefined;
  /** Linux knows none: 0, or EINVAL. */
  readonly heapFlags?: number | undefined;
}

/** What a heap is asked for, with everything checked. */
export interface HeapRequest {
  /** The heap's name: what its buffers are exported under. */
  readonly heapName: string;
  /** Bytes, in whole frames, less than 4 GiB. */
  readonly sizeBytes: number;
  /** The label for the buffer; undefined: it gets one of its own. */
  readonly name: string | undefined;
  /** The access mode of the buffer's file. */
  readonly flags: number;
  /** The picture that it will hold; undefined: bytes. */
  readonly pixels: PixelRequest | undefined;
  /** The picture, if it is laid out: what `buf.layout` is to be. */
  readonly layout?: PixelLayout | undefined;
}

/** A heap as its maker describes it. */
export interface HeapInfo {
  /** Unique among the heaps of a system. */
  readonly name: string;
  /**
   * Makes a buffer, all zero, of at least `request.sizeBytes` bytes, by `system.export()`. Throws
   * ENOMEM and holds nothing when it cannot.
   */
  alloc(request: HeapRequest): DmaBuf;
}

const MAX_BYTES: number = 4 * GiB - FRAME_BYTES;
/** Flags that a descriptor may be asked for with: none, each access mode, and the same on exec. */
const FD_FLAGS: ReadonlySet<number> = new Set(
  [0, O_CLOEXEC].flatMap((cloexec) =>
    Array.from({ length: O_ACCMODE + 1 }, (_, mode) => cloexec + mode),
  ),
);

/** A heap of a system. Found by `system.heap(name)`. */
export class Heap {
  readonly name: string;
  readonly #info: HeapInfo;
  readonly #accounts: Accounts;

  /** @internal */
  constructor(info: HeapInfo, accounts: Accounts) {
    this.name = info.name;
    this.#info = info;
    this.#accounts = accounts;
  }

  /**
   * A buffer of `sizeBytes` bytes, rounded up to whole frames (HP1), all zero. A bigint is a size
   * of 64 bits, which wraps when it is rounded up. EINVAL: the size is 0 or no whole number, a flag
   * that Linux does not know, an owner of another system; EDQUOT: the owner's quota; ENOMEM (HP2).
   */
  alloc(sizeBytes: number | bigint, options: AllocOptions = {}): DmaBuf {
    const operation = `allocate ${textOf(sizeBytes)} bytes from heap ${this.name}`;
    requireObject(options, "the options", operation);
    const { name, owner, fdFlags = O_RDWR, heapFlags = 0, pixels, layout } = options;
    if (owner !== undefined) requireInstance(owner, Owner, "the owner", operation);
    if (!FD_FLAGS.has(fdFlags))
      fail("EINVAL", operation, `fdFlags ${textOf(fdFlags)} are not an access mode and O_CLOEXEC`);
    if (heapFlags !== 0)
      fail("EINVAL", operation, `heapFlags must be 0, and are ${textOf(heapFlags)}`);
    const rounded = roundedSize(sizeBytes, operation);
    if (rounded > MAX_BYTES)
      fail("ENOMEM", operation, `a buffer holds at most ${formatBytes(MAX_BYTES)}`);

    requireLayout(options, rounded, operation);
    const flags = fdFlags & O_ACCMODE;
    const heapName = this.name;
    const request = { heapName, sizeBytes: rounded, name, flags, pixels, layout };
    if (owner === undefined) return this.#make(request, operation);
    if (!this.#accounts.has(owner) && !owner.isRemoved)
      fail("EINVAL", operation, `owner ${owner.name} is of another system`);
    owner.charge(rounded, operation);
    try {
      const buf = this.#make(request, operation);
      this.#accounts.settle(buf, owner, rounded);
      return buf;
    } catch (error) {
      owner.uncharge(rounded);
      throw error;
    }
  }

  #make(request: HeapRequest, operation: string): DmaBuf {
    const buf = this.#info.alloc(request);
    if (!(buf instanceof DmaBuf)) fail("ENOMEM", operation, "the heap gave no buffer");
    if (this.#accounts.ownerOf(buf) !== null)
      fail("EINVAL", operation, "the heap gave a buffer that it gave before");
    buf.stacks?.madeBy(buf, "alloc()");
    return buf;
  }
}

/** EINVAL: the picture's layout is none, does not fit, or is asked for twice. */
function requireLayout(
  { layout, pixels }: AllocOptions,
  sizeBytes: number,
  operation: string,
): void {
  if (layout === undefined) return;
  if (pixels !== undefined) fail("EINVAL", operation, "pixels and layout are both given");
  const problem = layoutProblem(layout, sizeBytes);
  if (problem !== null) fail("EINVAL", operation, problem);
}

/** Bytes of the frames that hold `sizeBytes` bytes (HP1). EINVAL: 0, or no whole number. */
function roundedSize(sizeBytes: number | bigint, operation: string): number {
  if (typeof sizeBytes !== "number" && typeof sizeBytes !== "bigint")
    fail("EINVAL", operation, `the size must be a number, and is ${nameOf(sizeBytes)}`);
  const rounded =
    typeof sizeBytes === "bigint"
      ? Number(BigInt.asUintN(64, ((sizeBytes + 4095n) / 4096n) * 4096n))
      : framesOf(sizeBytes) * FRAME_BYTES;
  if (sizeBytes >= 0 && rounded > 0 && (rounded > MAX_BYTES || Number.isInteger(Number(sizeBytes))))
    return rounded;
  return fail("EINVAL", operation, "the size must be a whole number of bytes, 1 or more");
}
