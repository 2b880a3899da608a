// A device's own accesses: its addresses translated, or a fault.
//
//   device address ─┬─IOMMU: page table, here or a driver's─► frame ──simulated cache──► table's shadow
//                   └─direct: segments of mappings──────────►
//
// D1  A device reaches exactly the bytes of its live mappings (behind an IOMMU: their whole pages),
//     in the mapping's direction (a page table of stage 1 cannot forbid reading: pte.ts, G11).
//     Anything else is a fault: counted, remembered, refused.

import { NONE } from "./bits";
import { isBounceFrame } from "./bounce";
import { shadowRun } from "./dma-cache";
import { CACHED, COHERENT, Device, Mapping, SIMULATED, accessOf } from "./dma-device";
import { intoSegment, segmentFind } from "./dma-order";
import { EFAULT, EINVAL, ESTALE } from "./errno";
import { ACCESS_READ, ACCESS_WRITE, domainTranslate, isAccess } from "./iommu-access";
import { FRAME_BYTES, FRAME_MASK, FRAME_SHIFT, header } from "./layout";
import { lockRare, unlockRare } from "./lock";
import { KIND_DEVICE, KIND_DOMAIN, KIND_MAPPING, KIND_TABLE, objectFind } from "./object";
import { SgEntry } from "./sg-entries";
import { SgTable } from "./sg";
import { SCRATCH_WORDS, scratchStore } from "./thread";

/**
 * Translates `lengthBytes` bytes from a device address for `access` (ACCESS_* bits), and writes
 * spans { byte address, length } to the scratch words, neighbours merged. How many spans: when they
 * fill the scratch words the caller goes on behind them. Or EFAULT (D1), EINVAL, ESTALE.
 */
export function dmaSpans(
  deviceHandle: u32,
  devicePfn: u32,
  offset: u32,
  lengthBytes: u32,
  access: u32,
): i32 {
  const payload = objectFind(deviceHandle, KIND_DEVICE);
  if (payload == 0) return ESTALE;
  if (offset >= FRAME_BYTES || lengthBytes == 0 || !isAccess(access)) return EINVAL;
  const device = Device.at(payload);
  let spans: u32 = 0;
  let spanAt: u32 = 0;
  let spanBytes: u32 = 0;
  while (lengthBytes > 0) {
    let extent =
      device.domain == 0
        ? extentListed(payload, devicePfn, offset, access)
        : extentTranslated(device, devicePfn, offset, access);
    if (extent == 0) return fault(device, devicePfn, access);
    if ((device.flags & SIMULATED) != 0)
      extent = extentUncached(payload, devicePfn, offset, access, extent);
    const at = <u32>(extent >> 32);
    const bytes = min(<u32>extent, lengthBytes);
    if (spans > 0 && at == spanAt + spanBytes) {
      spanBytes += bytes;
    } else {
      if (2 * spans == SCRATCH_WORDS) break;
      spans += 1;
      spanAt = at;
      spanBytes = bytes;
    }
    scratchStore(2 * spans - 2, spanAt);
    scratchStore(2 * spans - 1, spanBytes);
    lengthBytes -= bytes;
    const next = <u64>offset + bytes;
    devicePfn += <u32>(next >> FRAME_SHIFT);
    offset = <u32>next & FRAME_MASK;
  }
  return spans;
}

/**
 * As dmaSpans(), where a driver outside the core has translated the page: to `physPfn`, NONE = it
 * refuses. One span, to the end of the page at most. 1, or EFAULT (D1), EINVAL, ESTALE.
 */
export function dmaSpanAt(
  deviceHandle: u32,
  devicePfn: u32,
  offset: u32,
  lengthBytes: u32,
  access: u32,
  physPfn: u32,
): i32 {
  const payload = objectFind(deviceHandle, KIND_DEVICE);
  if (payload == 0) return ESTALE;
  const device = Device.at(payload);
  if (offset >= FRAME_BYTES || lengthBytes == 0 || !isAccess(access)) return EINVAL;
  if (device.domain == 0) return EINVAL;
  let span = extentBehind(device, devicePfn, offset, physPfn);
  if (span == 0) return fault(device, devicePfn, access);
  if ((device.flags & SIMULATED) != 0)
    span = extentUncached(payload, devicePfn, offset, access, span);
  scratchStore(0, <u32>(span >> 32));
  scratchStore(1, min(<u32>span, lengthBytes));
  return 1;
}

function fault(device: Device, devicePfn: u32, access: u32): i32 {
  device.faultCount += 1;
  device.faultPfn = devicePfn;
  device.faultAccess = access;
  return EFAULT;
}

/**
 * Byte address << 32 | length of what lies at a device address of a device behind an IOMMU; 0 =
 * nothing it may touch.
 */
function extentTranslated(device: Device, devicePfn: u32, offset: u32, access: u32): u64 {
  if (isBeyond(device, devicePfn)) return 0;
  const phys = domainTranslate(objectFind(device.domain, KIND_DOMAIN), devicePfn, access);
  return phys == NONE ? 0 : extent(phys, offset, FRAME_BYTES - offset);
}

/** The same where the translation is known; NONE = there is none. */
function extentBehind(device: Device, devicePfn: u32, offset: u32, physPfn: u32): u64 {
  if (isBeyond(device, devicePfn) || physPfn == NONE) return 0;
  return extent(physPfn, offset, FRAME_BYTES - offset);
}

/** Whether a device has too few address bits for a page. */
function isBeyond(device: Device, devicePfn: u32): bool {
  return devicePfn > max(device.limitPfn, device.limitFor(COHERENT));
}

/** The same for a direct device. */
function extentListed(payload: usize, devicePfn: u32, offset: u32, access: u32): u64 {
  const bytes = heldBytes(payload, devicePfn, offset, access); // no more is known without an IOMMU
  return bytes == 0 ? 0 : extent(devicePfn, offset, bytes);
}

/** Bytes from a device address on in a segment of a mapping for `access`; 0 = none has it. */
function heldBytes(payload: usize, devicePfn: u32, offset: u32, access: u32): u32 {
  lockRare(payload); // the list of mappings does not change meanwhile
  const address = ((<u64>devicePfn) << FRAME_SHIFT) | offset;
  const found = segmentHolding(Device.at(payload), address, access);
  const segment = SgEntry.at(<usize>(<u32>found), 0);
  const bytes = found == 0 ? 0 : segment.length - <u32>intoSegment(segment, address);
  unlockRare(payload);
  return bytes;
}

/**
 * How many bytes from a device address on lie in one segment of one mapping for `access`, which may
 * be 0: any; 0 = none has it.
 */
export function dmaHeldBytes(
  deviceHandle: u32,
  devicePfn: u32,
  offset: u32,
  access: u32,
): u32 {
  const payload = objectFind(deviceHandle, KIND_DEVICE);
  return payload == 0 ? 0 : heldBytes(payload, devicePfn, offset, access);
}

/**
 * What a device finds that does not see the CPU's cache: the shadow of the mapping's table, unless
 * the bytes were bounced or belong to no mapping.
 */
function extentUncached(
  payload: usize,
  devicePfn: u32,
  offset: u32,
  access: u32,
  cached: u64,
): u64 {
  if (isBounceFrame(<u32>(cached >> (32 + FRAME_SHIFT)))) return cached;
  lockRare(payload);
  let result = cached;
  const address = ((<u64>devicePfn) << FRAME_SHIFT) | offset;
  const found = segmentHolding(Device.at(payload), address, access);
  const mapping = Mapping.at(<usize>(found >> 32));
  if (found != 0 && (mapping.attrs & CACHED) != 0) {
    const segment = SgEntry.at(<usize>(<u32>found), 0);
    const into = <u32>intoSegment(segment, address);
    const table = SgTable.at(objectFind(mapping.table, KIND_TABLE));
    const run = shadowRun(table, segment.before + into);
    const bytes = min(<u32>run, min(<u32>cached, segment.length - into));
    result = (run & 0xffffffff00000000) | bytes;
  }
  unlockRare(payload);
  return result;
}

/**
 * The live mapping and segment that hold a device address, for `access`: the mapping's payload
 * << 32 | the segment's address; 0 = none.
 */
function segmentHolding(device: Device, address: u64, access: u32): u64 {
  const rights = access & (ACCESS_READ | ACCESS_WRITE);
  for (let handle = device.firstMapping; handle != 0; ) {
    const payload = objectFind(handle, KIND_MAPPING);
    const mapping = Mapping.at(payload);
    if ((accessOf(mapping.direction) & rights) == rights) {
      const found = segmentFind(mapping, address);
      if (found != 0) return ((<u64>payload) << 32) | found;
    }
    handle = mapping.next;
  }
  return 0;
}

function extent(physPfn: u32, offset: u32, bytes: u32): u64 {
  const pfn = physPfn - header().physPfnBase;
  if (pfn >= header().backedFrames) return 0; // no memory there
  return ((<u64>((pfn << FRAME_SHIFT) + offset)) << 32) | bytes;
}
