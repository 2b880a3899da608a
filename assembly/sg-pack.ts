// Packing a list of frames into as few entries as possible, in one pass.
//
//   frames   5 6 7 9 10 3     at most 2 a segment ─►   (5, 2) (7, 1) (9, 2) (3, 1)
//
// S6  The entries hold the listed frames in the listed order; two frames share an entry only if the
//     second's number is one more.
//
// 16 frames are compared with their predecessors at a time, and only the breaks are looked at: a
// contiguous list costs one load and one comparison for four frames, and a list without neighbours
// is written without a look at each. What is left of the list goes the same way by four.

import { FRAME_SHIFT, header } from "./layout";
import { PfnCell } from "./page";
import { ENTRY_BYTES, ENTRY_SHIFT, SgEntry } from "./sg-entries";

export function entryWrite(at: usize, pfn: u32, pages: u32, pagesBefore: u32): void {
  v128.store(
    at,
    i32x4.replace_lane(
      i32x4.replace_lane(i32x4.replace_lane(i32x4.splat(0), 0, pfn), 2, pages << FRAME_SHIFT),
      3,
      pagesBefore << FRAME_SHIFT,
    ),
  );
}

/**
 * Writes the run of frames listed in [fromAt, toAt) as entries of at most `maxPages`; returns where
 * the next goes.
 */
function runWrite(out: usize, listAt: usize, fromAt: usize, toAt: usize, maxPages: u32): usize {
  let pfn = PfnCell.at(fromAt, 0).pfn;
  let pages = <u32>((toAt - fromAt) >> 2);
  let pagesBefore = <u32>((fromAt - listAt) >> 2);
  while (pages > maxPages) {
    entryWrite(out, pfn, maxPages, pagesBefore);
    out += ENTRY_BYTES;
    pfn += maxPages;
    pages -= maxPages;
    pagesBefore += maxPages;
  }
  entryWrite(out, pfn, pages, pagesBefore);
  return out + ENTRY_BYTES;
}

/** `count` single frames, all of which begin a run: entries without a look at each. */
function singlesWrite(out: usize, listAt: usize, at: usize, count: u32): usize {
  const pagesBefore = <u32>((at - listAt) >> 2);
  for (let i: u32 = 0; i < count; i++) {
    entryWrite(out, PfnCell.at(at, i).pfn, 1, pagesBefore + i);
    out += ENTRY_BYTES;
  }
  return out;
}

/**
 * Packs the `count` frames listed at `listAt` into entries from `out`, each of at most `maxPages`,
 * and returns how many; 0 when a number is no frame's.
 */
export function sgPack(out: usize, listAt: usize, count: u32, maxPages: u32): u32 {
  const first = out;
  const end = listAt + ((<usize>count) << 2);
  const one = i32x4.splat(1);
  let largest = i32x4.splat(0);
  let runAt = listAt;
  let at = listAt + 4;
  for (; at + 64 <= end; at += 64) {
    const f0 = v128.load(at),
      f1 = v128.load(at, 16),
      f2 = v128.load(at, 32),
      f3 = v128.load(at, 48);
    largest = i32x4.max_u(largest, i32x4.max_u(i32x4.max_u(f0, f1), i32x4.max_u(f2, f3)));
    const b0 = i32x4.ne(f0, i32x4.add(v128.load(at - 4), one));
    const b1 = i32x4.ne(f1, i32x4.add(v128.load(at + 12), one));
    const b2 = i32x4.ne(f2, i32x4.add(v128.load(at + 28), one));
    const b3 = i32x4.ne(f3, i32x4.add(v128.load(at + 44), one));
    if (!v128.any_true(v128.or(v128.or(b0, b1), v128.or(b2, b3)))) continue;
    let breaks = <u32>(
      i8x16.bitmask(
        i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(b0, b1), i16x8.narrow_i32x4_s(b2, b3)),
      )
    );
    if (breaks == 0xffff) {
      out = runWrite(out, listAt, runAt, at, maxPages);
      out = singlesWrite(out, listAt, at, 15);
      runAt = at + 60;
      continue;
    }
    do {
      const breakAt = at + ((<usize>ctz(breaks)) << 2);
      out = runWrite(out, listAt, runAt, breakAt, maxPages);
      runAt = breakAt;
      breaks &= breaks - 1;
    } while (breaks != 0);
  }
  for (; at + 16 <= end; at += 16) {
    const f = v128.load(at);
    largest = i32x4.max_u(largest, f);
    let breaks = <u32>i32x4.bitmask(i32x4.ne(f, i32x4.add(v128.load(at - 4), one)));
    if (breaks == 0xf) {
      out = runWrite(out, listAt, runAt, at, maxPages);
      out = singlesWrite(out, listAt, at, 3);
      runAt = at + 12;
      continue;
    }
    for (; breaks != 0; breaks &= breaks - 1) {
      const breakAt = at + ((<usize>ctz(breaks)) << 2);
      out = runWrite(out, listAt, runAt, breakAt, maxPages);
      runAt = breakAt;
    }
  }
  let last = max(laneMax(largest), PfnCell.at(listAt, 0).pfn);
  for (; at < end; at += 4) {
    const pfn = PfnCell.at(at, 0).pfn;
    last = max(last, pfn);
    if (pfn == PfnCell.at(at - 4, 0).pfn + 1) continue;
    out = runWrite(out, listAt, runAt, at, maxPages);
    runAt = at;
  }
  out = runWrite(out, listAt, runAt, end, maxPages);
  return last < header().frameCount ? <u32>((out - first) >> ENTRY_SHIFT) : 0;
}

function laneMax(v: v128): u32 {
  return max(
    max(<u32>i32x4.extract_lane(v, 0), <u32>i32x4.extract_lane(v, 1)),
    max(<u32>i32x4.extract_lane(v, 2), <u32>i32x4.extract_lane(v, 3)),
  );
}

/** Entries that `count` listed frames need: for lists too long for an upper bound. */
export function sgPackedCount(listAt: usize, count: u32, maxPages: u32): u32 {
  let entries: u32 = 1;
  let pages: u32 = 1;
  for (let i: u32 = 1; i < count; i++) {
    if (PfnCell.at(listAt, i).pfn == PfnCell.at(listAt, i - 1).pfn + 1 && pages < maxPages) {
      pages += 1;
    } else {
      entries += 1;
      pages = 1;
    }
  }
  return entries;
}

/**
 * Cuts `offset` bytes off the front and everything behind `size` bytes off the end of whole pages.
 */
export function sgTrim(at: usize, count: u32, offset: u32, size: u32): void {
  if (offset != 0) {
    const first = SgEntry.at(at, 0);
    first.offset = offset;
    first.length -= offset;
    for (let i: u32 = 1; i < count; i++) SgEntry.at(at, i).before -= offset;
  }
  const last = SgEntry.at(at, count - 1);
  last.length = size - last.before;
}
