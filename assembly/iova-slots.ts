// One block: an aligned piece of the device's addresses, cut into slots of one size.
//
//   ├ slot 0 ┼ slot 1 ┼ … ┤ end - 1          a slot is 1, 2, 4 … 1024 pages
//   ├ range ·┼ range  ┤                      · = its tail: what a shorter range leaves unused
//
//   record, 256 bytes    ├ head: 40 ┼ free[16]: u64            ┤   slots of 1, 2, 4, 8 pages
//                        ├ head: 40 ┼ free[1] ┼ tail[64]: u16 ─┤   longer ones
//
// V6  Slot s is taken exactly if s < end and its bit is 0; `live` counts them; wordMask tells the
//     words that have a 1. A taken slot that is not the recent one of its class (V11) is a live
//     range of 1 << sizeShift pages, less its tail.
// V14 lastSingle is the last page of an OPEN block whose slots are single pages; else 0.

import { lowBits } from "./bits";
import { EXACT_CLASSES, IovaSpace } from "./iova-space";

const WORDS_OFFSET: usize = 40;
const TAILS_OFFSET: usize = 48; // only where there is one word
const BLOCK_PAGES_MIN: u32 = 1024;
const SLOTS_MIN: u32 = 16;
const TAILS: u32 = BLOCK_PAGES_MIN >> EXACT_CLASSES;

export const OPEN: u32 = 1;
const CLOSED: u32 = 2; // gives no slots any more

/** The pages that a block of a class covers, 1024 or 16 slots: a power of two. */
export function blockPages(sizeShift: u32): u32 {
  return max(BLOCK_PAGES_MIN, SLOTS_MIN << sizeShift);
}

@unmanaged
export class IovaBlock {
  state: u32; // OPEN or CLOSED; 0 = the record is free (slab.ts)
  base: u32; // first page, a multiple of blockPages(sizeShift)
  sizeShift: u32; // a slot is 1 << sizeShift pages: the class of its ranges
  end: u32; // slots that still belong to the block
  live: u32; // slots in use
  wordMask: u32; // bit w = free[w] is not 0
  nextAt: usize; // links of the list of its class (V7)
  prevAt: usize;
  lastSingle: u32; // V14
  private spare: u32;

  static at(address: usize): IovaBlock {
    return changetype<IovaBlock>(address);
  }

  get slotPages(): u32 {
    return 1 << this.sizeShift;
  }

  get isListed(): bool {
    return this.state == OPEN && this.wordMask != 0; // V7
  }

  /** The first page of slot `slot`. */
  slotPfn(slot: u32): u32 {
    return this.base + (slot << this.sizeShift);
  }

  /** The slot over `pfn`; not below `end` when the block does not cover it. */
  slotOver(pfn: u32): u32 {
    return (pfn - this.base) >> this.sizeShift;
  }

  /** Whether `pfn` is one of the block's slots, and those are single pages (V14). */
  hasSingle(pfn: u32): bool {
    return this.lastSingle == (pfn | (BLOCK_PAGES_MIN - 1));
  }

  /** Whether the slot of such a page is in use: found without the block's base, so in less time. */
  isTakenSingle(pfn: u32): bool {
    const word = (<usize>(pfn >> 5) & (BLOCK_PAGES_MIN / 32 - 1)) << 2;
    return ((load<u32>(changetype<usize>(this) + word, WORDS_OFFSET) >> pfn) & 1) == 0; // V6
  }

  /** Whether slot `slot` < end is in use. */
  isTaken(slot: u32): bool {
    return ((this.free(slot >> 6) >> <u64>(slot & 63)) & 1) == 0; // V6
  }

  /** The pages of the range in slot `slot`, which is taken. */
  pageCount(slot: u32): u32 {
    return this.slotPages - (this.sizeShift < EXACT_CLASSES ? 0 : <u32>this.tail(slot));
  }

  free(w: u32): u64 {
    return load<u64>(changetype<usize>(this) + ((<usize>w) << 3), WORDS_OFFSET);
  }

  setFree(w: u32, word: u64): void {
    store<u64>(changetype<usize>(this) + ((<usize>w) << 3), word, WORDS_OFFSET);
  }

  private tail(slot: u32): u16 {
    return load<u16>(changetype<usize>(this) + ((<usize>slot) << 1), TAILS_OFFSET);
  }

  setTail(slot: u32, pages: u32): void {
    store<u16>(changetype<usize>(this) + ((<usize>slot) << 1), <u16>pages, TAILS_OFFSET);
  }
}

if (offsetof<IovaBlock>() > WORDS_OFFSET) ERROR("the head of IovaBlock reaches into its words");
if (WORDS_OFFSET + BLOCK_PAGES_MIN / 8 > 256) ERROR("the words leave IovaBlock");
if (TAILS_OFFSET + TAILS * 2 > 256) ERROR("the tails leave IovaBlock");

/** A block of a class, whose slots are all free. */
export function blockInit(block: IovaBlock, base: u32, sizeShift: u32): void {
  block.base = base;
  block.sizeShift = sizeShift;
  block.end = blockPages(sizeShift) >> sizeShift;
  block.live = 0;
  block.lastSingle = sizeShift == 0 ? base + (BLOCK_PAGES_MIN - 1) : 0; // V14
  block.wordMask = 0;
  for (let w: u32 = 0; w << 6 < block.end; w++) {
    block.setFree(w, lowBits(min(block.end - (w << 6), 64)));
    block.wordMask |= (<u32>1) << w;
  }
}

/** Has a block give no slots any more. */
export function blockClose(block: IovaBlock): void {
  block.state = CLOSED;
  block.lastSingle = 0; // V14
}

/** Takes the highest free slot of a block that has one, for `pageCount` pages. */
@inline export function slotTake(space: IovaSpace, block: IovaBlock, pageCount: u32): u32 {
  const w = 31 - <u32>clz(block.wordMask);
  const word = block.free(w);
  const bit = 63 - <u32>clz<u64>(word);
  const rest = word ^ ((<u64>1) << (<u64>bit));
  const slot = (w << 6) | bit;
  if (block.sizeShift >= EXACT_CLASSES) block.setTail(slot, block.slotPages - pageCount);
  space.pending = block.slotPfn(slot);
  block.setFree(w, rest);
  block.live += 1;
  if (rest == 0) block.wordMask ^= (<u32>1) << w;
  return slot;
}

/** Frees slot `slot`, which is taken. */
@inline export function slotGive(block: IovaBlock, slot: u32): void {
  const w = slot >> 6;
  block.setFree(w, block.free(w) | ((<u64>1) << (<u64>(slot & 63))));
  block.wordMask |= (<u32>1) << w;
  block.live -= 1;
}
