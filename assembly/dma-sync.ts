// Whose the bytes are: syncing what a device and the CPU see of a mapping.
//
//   CPU ──syncForDevice: bounced bytes copied, cache cleaned──► device
//       ◄──syncForCpu: bounced bytes copied back, cache invalidated──┘
//
// W7  A sync copies only what the mapping's direction and the sync's both let pass: nothing comes
//     back from a device that only reads, nothing goes to one that only writes.
//
// A mapping without either needs no sync. Compare dma_sync_single_for_cpu() and its kin in the
// kernel's kernel/dma/direct.h.

import { bounceSync } from "./dma-bounce";
import { shadowClean, shadowInvalidate } from "./dma-cache";
import { CACHED, DMA_FROM_DEVICE, DMA_TO_DEVICE, Device, Mapping } from "./dma-device";
import { EINVAL, ESTALE } from "./errno";
import { KIND_MAPPING, objectAt, objectIs } from "./object";
import { SgTable } from "./sg";

/** Lets the CPU see the bytes [from, from + length) as the device left them. */
export function syncForCpu(
  device: Device,
  mapping: Mapping,
  table: SgTable,
  from: u32,
  length: u32,
  direction: u32,
): void {
  if (direction == DMA_TO_DEVICE || mapping.direction == DMA_TO_DEVICE) return; // W7
  if ((mapping.attrs & CACHED) != 0) shadowInvalidate(table, from, length);
  if (mapping.firstRun != 0) bounceSync(device, mapping, table, from, length, false);
}

function syncForDevice(
  device: Device,
  mapping: Mapping,
  table: SgTable,
  from: u32,
  length: u32,
  direction: u32,
): void {
  if ((mapping.attrs & CACHED) != 0) shadowClean(table, from, length);
  if (direction == DMA_FROM_DEVICE || mapping.direction == DMA_FROM_DEVICE) return; // W7
  if (mapping.firstRun != 0) bounceSync(device, mapping, table, from, length, true);
}

/**
 * Hands the bytes [from, from + length) of a mapping to the device, or to the CPU. 0, or EINVAL
 * (the direction, or they are not all mapped), ESTALE.
 */
export function dmaSync(
  handle: u32,
  from: u32,
  length: u32,
  direction: u32,
  isForDevice: u32,
): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_MAPPING)) return ESTALE;
  const mapping = Mapping.at(payload);
  const table = SgTable.at(objectAt(mapping.table));
  if (direction > DMA_FROM_DEVICE || <u64>from + length > table.lengthBytes) return EINVAL;
  const device = Device.at(objectAt(mapping.device));
  if (isForDevice != 0) syncForDevice(device, mapping, table, from, length, direction);
  else syncForCpu(device, mapping, table, from, length, direction);
  return 0;
}

/** Whether a sync of the mapping does anything: 1, 0, or ESTALE. */
export function dmaNeedsSync(handle: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_MAPPING)) return ESTALE;
  const mapping = Mapping.at(payload);
  return <i32>(mapping.firstRun != 0 || (mapping.attrs & CACHED) != 0);
}
