// A device's own accesses: its addresses translated, or a fault.
//
//   device address ──IOMMU: page table──────────────► frame
//                  └─direct: segments of mappings───►
//
// D1  A device reaches exactly the bytes of its live mappings (behind an IOMMU: their whole pages),
//     in the mapping's direction. Anything else is a fault: counted, remembered, refused.

import { NONE } from "./bits";
import { Device, Mapping, protOf } from "./dma-device";
import { EFAULT, EINVAL, ESTALE } from "./errno";
import { ACCESS_READ, ACCESS_WRITE, domainTranslate, isAccess } from "./iommu-access";
import { FRAME_BYTES, FRAME_MASK, FRAME_SHIFT, header } from "./layout";
import { lockHard, unlock } from "./lock";
import { KIND_DEVICE, KIND_DOMAIN, KIND_MAPPING, objectFind } from "./object";
import { SgEntry } from "./sg-entries";
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
    const extent =
      device.domain == 0
        ? extentListed(payload, devicePfn, offset, access)
        : extentTranslated(device, devicePfn, offset, access);
    if (extent == 0) return fault(device, devicePfn, access);
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
  if (devicePfn > device.limitPfn) return 0;
  const phys = domainTranslate(objectFind(device.domain, KIND_DOMAIN), devicePfn, access);
  return phys == NONE ? 0 : extent(phys, offset, FRAME_BYTES - offset);
}

/** The same for a direct device; its list of mappings does not change meanwhile. */
function extentListed(payload: usize, devicePfn: u32, offset: u32, access: u32): u64 {
  lockHard(payload);
  const rights = access & (ACCESS_READ | ACCESS_WRITE); // no more is known without an IOMMU
  const found = extentDirect(Device.at(payload), devicePfn, offset, rights);
  unlock(payload);
  return found;
}

/** The segment of a live mapping of a direct device that holds the address. */
function extentDirect(device: Device, devicePfn: u32, offset: u32, access: u32): u64 {
  const address = ((<u64>devicePfn) << FRAME_SHIFT) + offset;
  let handle = device.firstMapping;
  while (handle != 0) {
    const mapping = Mapping.at(objectFind(handle, KIND_MAPPING));
    if ((protOf(mapping.direction) & access) == access) {
      for (let i: u32 = 0; i < mapping.nents; i++) {
        const segment = SgEntry.at(mapping.segmentsAt, i);
        // Huge when the address lies below the segment.
        const into = address - (((<u64>segment.pfn) << FRAME_SHIFT) + segment.offset);
        if (into < <u64>segment.length)
          return extent(devicePfn, offset, segment.length - <u32>into);
      }
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
