/**
 * User pages: references on pages that somebody else mapped, counted as Linux counts them.
 *
 *     UserRange   [page][page][ hole ][page] …      a page is one frame of movable memory
 *        └─ pinUserPages(range, { first, pageCount }) ──► HeldPages: up to the first hole
 *                                                            └─ release({ dirty })
 *
 *     refs of a page = 1 while it is mapped + 1 for each get + 1024 for each pin
 *
 * - G1  A call takes pages up to the first hole and says how many; it throws when it took none.
 * - G2  A page with a reference is neither moved nor freed, whatever kind of reference it is.
 * - G3  A page that is unmapped goes back with its last reference; its refs are 0 from then on.
 * - G4  The held pages are the token: what a call took is given back by its own method, once.
 * - G5  A range owns its memory alone: nothing is in two ranges, or in one twice.
 *
 * Compare pin_user_pages(), get_user_pages() and __account_locked_vm() in the kernel's mm/gup.c and
 * mm/util.c.
 *
 * @module
 */

import { requireInstance, requireList, requireObject } from "../arguments.ts";
import { DmaBufError, type ErrnoCode, fail, nameOf, requireInteger } from "../errors.ts";
import { Movable, type PinnedMovable } from "./movable.ts";

/** What a pin adds to a page's references, as in Linux. */
export const GUP_PIN_COUNTING_BIAS = 1024;

const PAGES_MAX = 2 ** 32 - 1;

/** Which pages to take, and what for. */
export interface UserPagesOptions {
  /** The first page of the range. Default 0. */
  readonly first?: number | undefined;
  /** How many pages. Default: to the end of the range. */
  readonly pageCount?: number | undefined;
  /** The holder will write: EFAULT when the range is read-only. Default false. */
  readonly write?: boolean | undefined;
}

/** The same for a pin. */
export interface PinUserPagesOptions extends UserPagesOptions {
  /** Held for an unbounded time: the pages first leave the CMA regions. Default false. */
  readonly longterm?: boolean | undefined;
}

type Reference = "get" | "pin";

/** A page that is mapped, or that somebody still holds. Made by a {@link UserRange}. */
export class UserPage {
  readonly #movable: Movable;
  #getCount = 0;
  #pinCount = 0;
  #isMapped = true;
  #isDirty = false;

  /** @internal */
  constructor(movable: Movable) {
    this.#movable = movable;
  }

  /** References, as page_count() in Linux; 0 once the page went back (G3). */
  get refs(): number {
    return (this.#isMapped ? 1 : 0) + this.#getCount + GUP_PIN_COUNTING_BIAS * this.#pinCount;
  }

  /** Whether somebody may have pinned the page: never a wrong "no", a wrong "yes" at 1023 gets. */
  get maybeDmaPinned(): boolean {
    return this.refs >= GUP_PIN_COUNTING_BIAS;
  }

  /** Pins, exactly. */
  get pinCount(): number {
    return this.#pinCount;
  }

  /** Whether a release said that the page was written. */
  get isDirty(): boolean {
    return this.#isDirty && this.refs > 0;
  }

  /** @internal Takes a reference; both kinds keep the frame where it is (G2). */
  take(reference: Reference, longterm: boolean): PinnedMovable {
    const pinned = this.#movable.pin({ longterm });
    if (reference === "pin") this.#pinCount += 1;
    else this.#getCount += 1;
    return pinned;
  }

  /** @internal Gives a reference back; the caller unpins the frame after it. */
  drop(reference: Reference, isDirty: boolean): void {
    if (reference === "pin") this.#pinCount -= 1;
    else this.#getCount -= 1;
    this.#isDirty ||= isDirty;
  }

  /** @internal Takes the mapping's own reference off; nothing, if somebody else freed the frame. */
  unmap(): void {
    if (!this.#movable.isFreed) this.#movable.free();
    this.#isMapped = false;
  }
}

/** What ranges own (G5). */
const owned = new WeakSet<Movable>();

/** Throws unless a range can own the memory (G5). */
function requireOwnable(movable: Movable, operation: string): void {
  requireInstance(movable, Movable, "each of the pages", operation);
  const { frameCount, isFreed } = movable;
  if (frameCount !== 1)
    fail("EINVAL", operation, `each of the pages must have 1 frame, and one has ${frameCount}`);
  if (isFreed) fail("ESTALE", operation, "one of the pages was freed");
  if (owned.has(movable)) fail("EINVAL", operation, "one of the pages is of a range already");
}

/** Pages one after the other, with holes: what a process would have mapped. */
export class UserRange {
  readonly isWritable: boolean;
  readonly #pages: (UserPage | null)[];

  /**
   * The range owns the memory it is given, one frame each; null is a hole. EINVAL: one has more
   * than a frame, is listed twice or a range's already; ESTALE: one was freed.
   */
  constructor(
    pages: readonly (Movable | null)[],
    options: { readonly writable?: boolean | undefined } = {},
  ) {
    const operation = "make a user range";
    requireList(pages, "the pages", operation);
    requireObject(options, "the options", operation);
    const movables = pages.filter((movable) => movable !== null);
    for (const movable of movables) requireOwnable(movable, operation);
    if (new Set(movables).size < movables.length)
      fail("EINVAL", operation, "one of the pages is listed twice");
    for (const movable of movables) owned.add(movable);
    this.isWritable = options.writable ?? true;
    this.#pages = pages.map((movable) => (movable === null ? null : new UserPage(movable)));
  }

  get pageCount(): number {
    return this.#pages.length;
  }

  /** Page `i`, or null for a hole and for what lies outside. */
  page(i: number): UserPage | null {
    return Number.isInteger(i) ? (this.#pages[i] ?? null) : null;
  }

  /** Leaves holes behind; pages that nobody holds go back at once, the others later (G3). */
  unmap(first = 0, pageCount?: number): void {
    requireInteger(first, "first", 0, this.pageCount, "unmap pages");
    const count = pageCount ?? this.pageCount - first;
    requireInteger(count, "pageCount", 0, this.pageCount - first, "unmap pages");
    for (let i = first; i < first + count; i++) {
      this.#pages[i]?.unmap();
      this.#pages[i] = null;
    }
  }

  [Symbol.dispose](): void {
    this.unmap();
  }
}

interface Held {
  readonly page: UserPage;
  readonly pinned: PinnedMovable;
}

/** References that one call took (G4). */
export class HeldPages {
  readonly #reference: Reference;
  #held: readonly Held[] | null;

  /** @internal */
  constructor(reference: Reference, held: readonly Held[]) {
    this.#reference = reference;
    this.#held = held;
  }

  #requireHeld(operation: string): readonly Held[] {
    return this.#held ?? fail("ESTALE", operation, "they were released");
  }

  /** How many pages the call took: maybe fewer than asked for (G1). ESTALE once released. */
  get pageCount(): number {
    return this.#requireHeld("count user pages").length;
  }

  /** The pages, in order. ESTALE once released. */
  get pages(): readonly UserPage[] {
    return this.#requireHeld("list user pages").map(({ page }) => page);
  }

  /** The bytes of each page; not to be kept beyond release(). ESTALE once released. */
  get views(): Uint8Array<ArrayBufferLike>[] {
    return this.#requireHeld("read user pages").flatMap(({ pinned }) => pinned.views);
  }

  /** Gives the references back; `dirty`: the pages were written. ESTALE: released before. */
  release(options: { readonly dirty?: boolean | undefined } = {}): void {
    requireObject(options, "the options", "release user pages");
    const { dirty = false } = options;
    const held = this.#requireHeld("release user pages");
    this.#held = null;
    for (const { page, pinned } of held) {
      page.drop(this.#reference, dirty);
      pinned.unpin();
    }
  }

  [Symbol.dispose](): void {
    if (this.#held !== null) this.release();
  }
}

/**
 * Pins pages for a device, as pin_user_pages(): up to the first hole. EFAULT: not even the first is
 * there, or the range is read-only; ENOMEM: a long-term pin finds no frame outside the regions.
 */
export function pinUserPages(range: UserRange, options: PinUserPagesOptions = {}): HeldPages {
  return hold(range, "pin", options);
}

/** Takes plain references, as get_user_pages(). EFAULT as {@link pinUserPages}. */
export function getUserPages(range: UserRange, options: UserPagesOptions = {}): HeldPages {
  return hold(range, "get", options);
}

function hold(range: UserRange, reference: Reference, options: PinUserPagesOptions): HeldPages {
  const operation = `${reference} user pages`;
  requireInstance(range, UserRange, "the range", operation);
  requireObject(options, "the options", operation);
  const { first = 0, pageCount, write = false, longterm = false } = options;
  requireInteger(first, "first", 0, PAGES_MAX, operation);
  const count = pageCount ?? Math.max(0, range.pageCount - first);
  requireInteger(count, "pageCount", 0, PAGES_MAX, operation);
  const held: Held[] = [];
  if (count > 0 && write && !range.isWritable) fail("EFAULT", operation, "the range is read-only");
  while (held.length < count) {
    const page = range.page(first + held.length);
    if (page === null) break;
    try {
      held.push({ page, pinned: page.take(reference, longterm) });
    } catch (error) {
      if (held.length > 0 && !longterm && isShortage(error)) break; // G1
      new HeldPages(reference, held).release();
      throw error;
    }
  }
  if (count > 0 && held.length === 0) fail("EFAULT", operation, `page ${first} is not mapped`);
  return new HeldPages(reference, held);
}

function isShortage(error: unknown): boolean {
  const shortages: readonly ErrnoCode[] = ["ENOMEM", "EOVERFLOW", "EBUSY"];
  return error instanceof DmaBufError && shortages.includes(error.code);
}

/** Pages that somebody keeps locked, against a limit: mm->locked_vm and RLIMIT_MEMLOCK. */
export class LockedVm {
  readonly limitPages: number;
  #lockedPages = 0;

  constructor(limitPages: number) {
    requireInteger(limitPages, "limitPages", 0, Number.MAX_SAFE_INTEGER, "limit locked pages");
    this.limitPages = limitPages;
  }

  get lockedPages(): number {
    return this.#lockedPages;
  }

  /**
   * Counts pages as locked. ENOMEM: there would be more than the limit, also for 0 pages while
   * there are more already; `bypassLimit` does not ask.
   */
  account(pageCount: number, options: { readonly bypassLimit?: boolean | undefined } = {}): void {
    const operation = `lock ${nameOf(pageCount)} pages`;
    requireObject(options, "the options", operation);
    const { bypassLimit = false } = options;
    requireInteger(pageCount, "pageCount", 0, PAGES_MAX, operation);
    if (!bypassLimit && this.#lockedPages + pageCount > this.limitPages)
      fail("ENOMEM", operation, `${this.#lockedPages} of ${this.limitPages} are locked already`);
    this.#lockedPages += pageCount;
  }

  /** Counts pages as no longer locked. EINVAL: so many are not. */
  unaccount(pageCount: number): void {
    requireInteger(
      pageCount,
      "pageCount",
      0,
      this.#lockedPages,
      `unlock ${nameOf(pageCount)} pages`,
    );
    this.#lockedPages -= pageCount;
  }
}
