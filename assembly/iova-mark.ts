// Marks on the records of device address spaces: how records are found that no space has any more.
//
//   iovaMark(each space that lives) ─► iovaSweep(): a record without a mark is freed, marks are taken off
//
// V10  A mark is the highest bit of a record's truth word. There is none outside of a reap.
//
// The caller holds the locks of all domains, so that no record is on its way, and every space is
// sound (iova-check.ts).

import { TreeNode } from "./iova-node";
import { CACHE_IOVA_NODES, CACHE_IOVA_RECORDS, IovaSpace } from "./iova-space";
import { PLACES, blockPlace, placedBlock } from "./iova-table";
import { SLAB_LOCK_AT, frameAt, header } from "./layout";
import { lockRare, unlockRare } from "./lock";
import { Frame, SLAB } from "./page";
import { Slab, SlabRecord, recordFree } from "./slab";

const MARK: u32 = 1 << 31;

function mark(at: usize): void {
  SlabRecord.at(at).truth |= MARK;
}

/** Marks every record of a space. */
export function iovaMark(spaceAt: usize): void {
  const space = IovaSpace.at(spaceAt);
  if (space.controlAt == 0) return;
  mark(space.controlAt);
  for (let at = space.control.spareAt; at != 0; at = TreeNode.at(at).nextAt) mark(at);
  nodeMark(TreeNode.at(space.rootAt));
  blocksMark(space);
}

function nodeMark(node: TreeNode): void {
  mark(changetype<usize>(node));
  if (node.level == 0) return;
  for (let i: u32 = 0; i < node.count; i++) nodeMark(node.child(i));
}

function blocksMark(space: IovaSpace): void {
  for (let place = blockPlace(space, 0); place < PLACES; place = blockPlace(space, place + 1))
    mark(changetype<usize>(placedBlock(space, place)));
}

/** Takes all marks off; with `isFreeing`, frees what has none. */
export function iovaSweep(isFreeing: bool): void {
  const h = header();
  lockRare(SLAB_LOCK_AT);
  for (let pfn = h.firstFrame; pfn < h.backedFrames; pfn++) {
    if (Frame.at(pfn).state != SLAB) continue;
    const slab = Slab.of(pfn);
    if (slab.cache != CACHE_IOVA_NODES && slab.cache != CACHE_IOVA_RECORDS) continue;
    slabSweep(pfn, isFreeing);
  }
  unlockRare(SLAB_LOCK_AT);
}

function slabSweep(pfn: u32, isFreeing: bool): void {
  const slab = Slab.of(pfn);
  const shift = slab.recordShift;
  const bump = slab.bump;
  for (let i: u32 = 1; i < bump; i++) {
    const at = frameAt(pfn) + ((<usize>i) << shift);
    const record = SlabRecord.at(at);
    if ((record.truth & MARK) != 0) {
      record.truth &= ~MARK;
    } else if (record.truth != 0 && isFreeing) {
      recordFree(at);
      if (Frame.at(pfn).state != SLAB) return; // that was the last
    }
  }
}
