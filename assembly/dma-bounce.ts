// What a mapping bounces: the entries that its device cannot take where they lie.
//
//   entry ──copied at map, and at sync for the device──► run of slots ◄── the device
//         ◄──copied at unmap, and at sync for the CPU──┘
//
//   mapping.firstRun ─► run ─next─► run ─► 0        one run an entry, in the order of the entries
//
// W5  Every run of slots that names a mapping is in its chain, and stands for one entry.
// W6  The bits of a device's minAlignMask below 2 KiB are those of the original address.
//
// Mapping copies in, whatever the direction: a device that writes less than it may must leave the
// rest as it was. Behind an IOMMU whole pages are shown, so what lies around the bytes is cleared.
//
// Compare swiotlb_tbl_map_single() in the kernel's kernel/dma/swiotlb.c and iommu_dma_map_page() in
// drivers/iommu/dma-iommu.c.

import {
  BOUNCE_MAX_BYTES,
  BounceSlot,
  SEGMENT_SLOTS,
  SLOT_BYTES,
  SLOT_SHIFT,
  bounceCopy,
  slotByteAt,
  slotsAlloc,
  slotsFree,
} from "./bounce";
import { NO_BOUNDARY } from "./boundary";
import { Device, Mapping } from "./dma-device";
import { EIO } from "./errno";
import { FRAME_MASK, FRAME_SHIFT, header } from "./layout";
import { SgEntry } from "./sg-entries";
import { SgTable } from "./sg";

const SLOT_MASK: u32 = SLOT_BYTES - 1;
const SLOTS_PER_FRAME_SHIFT: u32 = FRAME_SHIFT - SLOT_SHIFT;

/** The part of an address that the slot keeps (W6). */
function keptBits(device: Device, byteAt: usize): u32 {
  return <u32>byteAt & device.minAlignMask & SLOT_MASK;
}

/**
 * Copies what `entry` names, entry `i` of the mapping's table, into a run of slots, and lets
 * `entry` name that. `isPaged`: whole pages of the run will be shown. 0, or EIO: no pool, no room,
 * more than 256 KiB, or the device does not reach the pool.
 */
export function entryBounce(
  device: Device,
  mapping: Mapping,
  handle: u32,
  i: u32,
  entry: SgEntry,
  isPaged: bool,
): i32 {
  const h = header();
  if (h.bounceAt == 0 || entry.length > BOUNCE_MAX_BYTES) return EIO;
  if (entry.pfn + entry.pageCount > h.backedFrames) return EIO; // nothing to copy
  const byteAt = entry.byteAt;
  const kept = keptBits(device, byteAt);
  const end = kept + entry.length;
  const roomBytes = isPaged ? (end + FRAME_MASK) & ~FRAME_MASK : end;
  const count = (roomBytes + SLOT_MASK) >> SLOT_SHIFT;
  if (count > SEGMENT_SLOTS) return EIO;
  const pageMask = device.boundaryPageMask;
  const alignMask = isPaged ? 0 : device.minAlignMask & ~SLOT_MASK; // else of the new address
  const first = slotsAlloc(
    handle,
    i,
    count,
    isPaged || roomBytes > FRAME_MASK,
    alignMask,
    <u32>byteAt & alignMask,
    pageMask == NO_BOUNDARY ? 0 : (pageMask + 1) << SLOTS_PER_FRAME_SHIFT,
  );
  if (first < 0) return EIO;
  BounceSlot.at(first).next = mapping.firstRun;
  mapping.firstRun = first + 1; // W5: from here on unmap and rollback find it
  const slotAt = slotByteAt(first);
  const lastPfn = <u32>((slotAt + roomBytes - 1) >> FRAME_SHIFT);
  if (!isPaged && h.physPfnBase + lastPfn > device.limitPfn) return EIO;
  if (isPaged) {
    memory.fill(slotAt, 0, kept);
    memory.fill(slotAt + end, 0, roomBytes - end);
  }
  bounceCopy(slotAt + kept, byteAt, entry.length);
  entry.pfn = <u32>(slotAt >> FRAME_SHIFT);
  entry.offset = (<u32>slotAt + kept) & FRAME_MASK;
  return 0;
}

/** Puts the runs, each taken in front of the one before, into the order of the entries. */
export function bounceOrder(mapping: Mapping): void {
  let done: u32 = 0;
  for (let run = mapping.firstRun; run != 0; ) {
    const slot = BounceSlot.at(run - 1);
    const next = slot.next;
    slot.next = done;
    done = run;
    run = next;
  }
  mapping.firstRun = done;
}

/**
 * Copies the bytes [from, from + length) of the mapping's table that were bounced, to the device or
 * back.
 */
export function bounceSync(
  device: Device,
  mapping: Mapping,
  table: SgTable,
  from: u32,
  length: u32,
  isForDevice: bool,
): void {
  const fromEnd = from + length;
  for (let run = mapping.firstRun; run != 0; ) {
    const slot = BounceSlot.at(run - 1);
    const entry = SgEntry.at(table.entriesAt, slot.entry);
    const start = max(from, entry.before);
    const end = min(fromEnd, entry.before + entry.length);
    if (start < end) {
      const into = start - entry.before;
      const cpuAt = entry.byteAt + into;
      const slotAt = slotByteAt(run - 1) + keptBits(device, entry.byteAt) + into;
      if (isForDevice) bounceCopy(slotAt, cpuAt, end - start);
      else bounceCopy(cpuAt, slotAt, end - start);
    }
    run = slot.next;
  }
}

/** Frees the mapping's runs; the device reaches them no more. */
export function bounceEnd(mapping: Mapping): void {
  for (let run = mapping.firstRun; run != 0; ) run = slotsFree(run - 1);
  mapping.firstRun = 0;
}
