// The flush queue of a domain with lazy invalidation: device pages that were unmapped, and are kept
// from new owners until the IOTLB has forgotten them.
//
//   unmap ─► queue ─┬─ full: the next unmap flushes first ──► one invalidation ─► free ranges
//                   └─ iommuFlushQueue(), which a timer calls ───►
//
// I10  A queued range is still taken in the domain's space of device pages, and nothing is mapped
//     there.
// I11  A range is given back only after an invalidation that came behind its unmap.
//
// One of its QUEUE_ENTRIES places stays empty, as in a ring whose ends must not meet. Time is the
// caller's: the core has no clock. The caller holds the domain's lock.
//
// Compare queue_iova() and fq_flush_iotlb() in drivers/iommu/dma-iommu.c in the kernel.

import { iovaFree } from "./iova";

const QUEUE_ENTRIES: u32 = 256; // IOVA_FQ_SIZE
export const QUEUE_BYTES: usize = 16 + <usize>QUEUE_ENTRIES * 8;

@unmanaged
export class FlushQueue {
  count: u32; // ranges that wait
  flushCount: u32;
  pageCount: u32; // pages that wait
  private reserved: u32;

  static at(address: usize): FlushQueue {
    return changetype<FlushQueue>(address);
  }

  get isFull(): bool {
    return this.count == QUEUE_ENTRIES - 1;
  }

  /** The first page of range i that waits. */
  iovaPfn(i: u32): u32 {
    return QueueEntry.at(this, i).iovaPfn;
  }
}

@unmanaged
class QueueEntry {
  iovaPfn: u32;
  pageCount: u32;

  static at(queue: FlushQueue, i: u32): QueueEntry {
    const first = changetype<usize>(queue) + offsetof<FlushQueue>();
    return changetype<QueueEntry>(first + <usize>i * offsetof<QueueEntry>());
  }
}

if (offsetof<FlushQueue>() + <usize>QUEUE_ENTRIES * offsetof<QueueEntry>() != QUEUE_BYTES)
  ERROR("QUEUE_BYTES does not end behind the entries");

/** Adds a range. The queue is not full. */
export function queueAdd(queue: FlushQueue, iovaPfn: u32, pageCount: u32): void {
  const entry = QueueEntry.at(queue, queue.count);
  entry.iovaPfn = iovaPfn;
  entry.pageCount = pageCount;
  queue.count += 1;
  queue.pageCount += pageCount;
}

/** Gives all ranges back to the space at `spaceAt`; the invalidation is done (I11). How many. */
export function queueRelease(queue: FlushQueue, spaceAt: usize): u32 {
  const count = queue.count;
  for (let i: u32 = 0; i < count; i++) iovaFree(spaceAt, QueueEntry.at(queue, i).iovaPfn);
  queue.count = 0;
  queue.pageCount = 0;
  queue.flushCount += 1;
  return count;
}
