// The records of one domain's device addresses.
//
//   IovaSpace, in the domain      ├ root ┼ height ┼ control ┼ … ┼ tables ┼ recent[4] ┼ … ┤
//                                                     └──┐
//   IovaControl, 256 bytes        ├ head: 32 ┼ partial[11] ┼ pause[11] ┼ path[12]: node, index ┼ … ┤
//
// Both lie under the domain's lock. The control record holds what the domain has no room for: spare
// tree nodes, the heads of the lists of blocks (iova-block.ts), and the path through the tree of
// the one operation that runs (iova-tree.ts).

import { TreeNode } from "./iova-node";
import { NOTHING_AT } from "./layout";

export const CACHE_IOVA_RECORDS: u32 = 3; // 256-byte records: IovaControl and IovaBlock
export const CACHE_IOVA_NODES: u32 = 4; // 512-byte records: TreeNode

export const SIZE_CLASSES: u32 = 11; // slots of 1, 2, 4 … 1024 pages
export const EXACT_CLASSES: u32 = 4; // the first of them serve no smaller range
export const SLOT_PAGES_MAX: u32 = 1 << (SIZE_CLASSES - 1); // longer ranges go to the tree
export const MAX_HEIGHT: u32 = 12;

const RECENT_OFFSET: usize = 32;
const PENDING_OFFSET: usize = 48;
const SPLIT_OFFSET: usize = 52;
const PARTIAL_OFFSET: usize = 32;
const PAUSE_OFFSET: usize = PARTIAL_OFFSET + <usize>SIZE_CLASSES * 4;
const PATH_OFFSET: usize = 128;

/**
 * A range of device pages, both ends inclusive: so the last of all 2^32 pages needs no case of its
 * own.
 */
@unmanaged
export class IovaRange {
  low: u32;
  high: u32;

  static at(address: usize): IovaRange {
    return changetype<IovaRange>(address);
  }
}

@unmanaged
export class IovaSpace {
  rootAt: usize; // TreeNode; 0 before iovaInit and after iovaFini
  height: u32; // levels of the tree, 1 .. MAX_HEIGHT
  controlAt: usize;
  rangeCount: u32; // V8
  private found: u64; // an IovaRange: what iovaFind last returned
  private tables: usize; // counted from NOTHING_AT

  static at(address: usize): IovaSpace {
    return changetype<IovaSpace>(address);
  }

  get control(): IovaControl {
    return changetype<IovaControl>(this.controlAt);
  }

  /** The frame with the tables of blocks (iova-table.ts); NOTHING_AT until the first block. */
  get tablesAt(): usize {
    return this.tables + NOTHING_AT;
  }

  set tablesAt(at: usize) {
    this.tables = at - NOTHING_AT;
  }

  get hasTables(): bool {
    return this.tables != 0;
  }

  get foundAt(): usize {
    return changetype<usize>(this) + offsetof<IovaSpace>("found");
  }

  /** The first page of the recent slot of class `sizeShift`; 0 = none (iova-block.ts). */
  recent(sizeShift: u32): u32 {
    return load<u32>(changetype<usize>(this) + ((<usize>sizeShift) << 2), RECENT_OFFSET);
  }

  setRecent(sizeShift: u32, pfn: u32): void {
    store<u32>(changetype<usize>(this) + ((<usize>sizeShift) << 2), pfn, RECENT_OFFSET);
  }

  /** The range that is being taken, until its record names it (iova-rebuild.ts); 0 = none. */
  get pending(): u32 {
    return load<u32>(changetype<usize>(this), PENDING_OFFSET);
  }

  set pending(pfn: u32) {
    store<u32>(changetype<usize>(this), pfn, PENDING_OFFSET);
  }

  /** The upper half of a node that is being split, until its parent has it; 0 = none. */
  get splitAt(): usize {
    return load<usize>(changetype<usize>(this), SPLIT_OFFSET);
  }

  set splitAt(node: usize) {
    store<usize>(changetype<usize>(this), node, SPLIT_OFFSET);
  }
}

@unmanaged
export class IovaControl {
  truth: u32; // 1: the record is in use (slab.ts)
  startPfn: u32; // pages below are never given
  spareAt: usize; // list of spare tree nodes; 0 = none
  spareCount: u32;
  blockCount: u32;

  /** The first block of class `sizeShift` with a free slot; 0 = none. */
  partial(sizeShift: u32): usize {
    return load<usize>(changetype<usize>(this) + ((<usize>sizeShift) << 2), PARTIAL_OFFSET);
  }

  setPartial(sizeShift: u32, blockAt: usize): void {
    store<usize>(changetype<usize>(this) + ((<usize>sizeShift) << 2), blockAt, PARTIAL_OFFSET);
  }

  /** So many ranges of class `sizeShift` come from the tree before the next block is made. */
  pause(sizeShift: u32): u32 {
    return load<u32>(changetype<usize>(this) + ((<usize>sizeShift) << 2), PAUSE_OFFSET);
  }

  setPause(sizeShift: u32, count: u32): void {
    store<u32>(changetype<usize>(this) + ((<usize>sizeShift) << 2), count, PAUSE_OFFSET);
  }
}

/** The control record of a space without blocks and spare nodes. */
export function controlInit(control: IovaControl, startPfn: u32): void {
  control.startPfn = startPfn;
  control.spareAt = 0;
  control.spareCount = 0;
  control.blockCount = 0;
  for (let sizeShift: u32 = 0; sizeShift < SIZE_CLASSES; sizeShift++) {
    control.setPartial(sizeShift, 0);
    control.setPause(sizeShift, 0);
  }
}

/**
 * One level of the path: a node, and the index of its entry that the path goes through. Level 0 is
 * the leaf.
 */
@unmanaged
export class PathStep {
  nodeAt: usize;
  index: u32;

  static at(control: IovaControl, level: u32): PathStep {
    return changetype<PathStep>(changetype<usize>(control) + PATH_OFFSET + ((<usize>level) << 3));
  }

  get node(): TreeNode {
    return TreeNode.at(this.nodeAt);
  }

  set(node: TreeNode, index: u32): void {
    this.nodeAt = changetype<usize>(node);
    this.index = index;
  }
}

export const SPACE_BYTES: usize = 64;

if (offsetof<IovaSpace>() > RECENT_OFFSET) ERROR("the head of IovaSpace reaches into recent[]");
if (RECENT_OFFSET + <usize>EXACT_CLASSES * 4 > PENDING_OFFSET) ERROR("recent[] is too long");
if (SPLIT_OFFSET + sizeof<usize>() > SPACE_BYTES) ERROR("splitAt leaves the space");
if (offsetof<IovaControl>() > PARTIAL_OFFSET)
  ERROR("the head of IovaControl reaches into the lists");
if (PAUSE_OFFSET + <usize>SIZE_CLASSES * 4 > PATH_OFFSET) ERROR("the pauses reach into the path");
if (PATH_OFFSET + <usize>MAX_HEIGHT * 8 > 256) ERROR("the path leaves IovaControl");
