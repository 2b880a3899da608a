// Lists of segments: the entries of a table, or of a mapping.
//
//   entry    byte 0     4        8        12       16
//                 ├ pfn ─┼ offset ┼ length ┼ before ┤
//
// S1  offset < FRAME_BYTES, and the bytes [offset, offset + length) lie in consecutive pages from
//     pfn. length > 0; only the last entry of a list may be empty.
// S2  before = the sum of all earlier lengths, so that a byte offset is found by bisection, not by
//     a walk.
// S3  One entry lives in a record of CACHE_NODES, more in a run of frames of state OBJECT.
// S13  The truth word of such a record names the thread that took it (index + 1): it is what the
//      thread stamp is for frames.

import { NONE } from "./bits";
import { EAGAIN } from "./errno";
import { FRAME_BYTES, FRAME_MASK, FRAME_SHIFT, MAX_ORDER, frameAt } from "./layout";
import { refusalNote } from "./lock";
import { frameTake, framesAdopt, runAlloc, runDrop } from "./magazine";
import { OBJECT } from "./page";
import { CACHE_NODES, slabAlloc, slabFree } from "./slab";
import { WORKSPACE_BYTES, threadIndex } from "./thread";

export const ENTRY_BYTES: u32 = 16;
export const ENTRY_SHIFT: u32 = 4;
export const ENTRIES_PER_FRAME: u32 = FRAME_BYTES >> ENTRY_SHIFT;
export const ENTRIES_MAX: u32 = ENTRIES_PER_FRAME << MAX_ORDER;

@unmanaged
export class SgEntry {
  pfn: u32; // first frame, or first device page
  offset: u32; // bytes into it; less than FRAME_BYTES
  length: u32; // bytes
  before: u32; // bytes of all earlier entries

  static at(entriesAt: usize, i: u32): SgEntry {
    return changetype<SgEntry>(entriesAt + ((<usize>i) << ENTRY_SHIFT));
  }

  /** Frames, or device pages, that the entry touches. */
  get pageCount(): u32 {
    return (this.offset + this.length + FRAME_MASK) >> FRAME_SHIFT;
  }

  /** Where the entry's bytes lie, for the CPU side. */
  get byteAt(): usize {
    return frameAt(this.pfn) + this.offset;
  }
}

if (offsetof<SgEntry>() != <usize>ENTRY_BYTES) ERROR("SgEntry is not ENTRY_BYTES long");
if (<usize>(ENTRIES_PER_FRAME * ENTRY_BYTES) != WORKSPACE_BYTES)
  ERROR("the workspace does not hold a frame of entries");

/** Room for `count` entries. Its address, or 0: noMemory() says why. */
export function entriesAlloc(count: u32): usize {
  if (count == 1) {
    const at = slabAlloc(CACHE_NODES, threadIndex() + 1); // S13
    return at == 0 ? 0 : at + ENTRY_BYTES;
  }
  const pfn =
    count <= ENTRIES_PER_FRAME ? frameTake(OBJECT) : runAlloc(entryFrames(count), 0, NONE, OBJECT);
  if (pfn == EAGAIN) refusalNote();
  return pfn < 0 ? 0 : frameAt(pfn);
}

export function entriesFree(at: usize, count: u32): void {
  if (count == 1) slabFree(at - ENTRY_BYTES);
  else runDrop(<u32>(at >> FRAME_SHIFT), entryFrames(count), OBJECT);
}

function entryFrames(count: u32): u32 {
  return (count + ENTRIES_PER_FRAME - 1) / ENTRIES_PER_FRAME;
}

/** Frames that a list of `count` entries holds (S3). */
export function entriesFrames(count: u32): u32 {
  return count == 1 ? 0 : entryFrames(count);
}

/**
 * Cuts a run made for `count` entries down to what `used` > 1 of them need (S3). The list's
 * address.
 */
export function entriesShrink(at: usize, count: u32, used: u32): usize {
  const frames = entryFrames(used);
  const rest = entryFrames(count) - frames;
  if (rest > 0) runDrop(<u32>(at >> FRAME_SHIFT) + frames, rest, OBJECT);
  return at;
}

/** Makes a list the calling thread's own, before the record that names it goes (page.ts, P5). */
export function entriesAdopt(at: usize, count: u32): void {
  if (count == 1) changetype<ListNode>(at - ENTRY_BYTES).truth = threadIndex() + 1;
  else framesAdopt(<u32>(at >> FRAME_SHIFT), entriesFrames(count));
}

/** Makes a list of one entry the calling thread's, if `dead` took it. */
export function entriesStamp(at: usize, dead: u32): void {
  const node = changetype<ListNode>(at - ENTRY_BYTES);
  if (node.truth == dead + 1) node.truth = threadIndex() + 1;
}

@unmanaged
class ListNode {
  truth: u32; // S13
}

/** Pages of `count` entries; a page that two of them share counts twice. */
export function entriesPages(entriesAt: usize, count: u32): u32 {
  let pages: u32 = 0;
  for (let i: u32 = 0; i < count; i++) pages += SgEntry.at(entriesAt, i).pageCount;
  return pages;
}

/** The entry that holds byte `offset` of a list: offset < the list's length. */
export function entriesBisect(at: usize, count: u32, offset: u32): u32 {
  let low: u32 = 0;
  let high = count;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (SgEntry.at(at, middle).before <= offset) low = middle;
    else high = middle;
  }
  return low;
}
