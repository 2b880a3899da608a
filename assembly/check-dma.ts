// The part of the walker that looks at bounced entries and simulated caches.

import { BounceSlot, bouncePool } from "./bounce";
import { CACHED, Mapping } from "./dma-device";
import { header } from "./layout";
import { KIND_MAPPING, KIND_TABLE, objectFind } from "./object";
import { SgTable } from "./sg";

const W: u32 = 8700;

/** 0, or W2: slots that no live mapping holds, or that are not counted. */
export function checkPool(): u32 {
  if (header().bounceAt == 0) return 0;
  const pool = bouncePool();
  let used: u32 = 0;
  for (let slot: u32 = 0; slot < pool.slotCount; slot++) {
    const mapping = BounceSlot.at(slot).mapping;
    if (mapping == 0) continue;
    if (objectFind(mapping, KIND_MAPPING) == 0) return W + 2;
    used += 1;
  }
  return used == pool.usedSlots ? 0 : W + 2;
}

/** The slots of a mapping's chain; NONE when a run is not its own (W5). */
export function chainSlots(mapping: Mapping, handle: u32): u32 {
  const origNents = SgTable.at(objectFind(mapping.table, KIND_TABLE)).origNents;
  let slots: u32 = 0;
  for (let run = mapping.firstRun; run != 0; ) {
    const slot = BounceSlot.at(run - 1);
    if (slot.entry >= origNents || slots > bouncePool().slotCount) return 0xffffffff;
    for (let i: u32 = 0; i < slot.count; i++)
      if (BounceSlot.at(run - 1 + i).mapping != handle) return 0xffffffff;
    slots += slot.count;
    run = slot.next;
  }
  return slots;
}

/** Whether a mapping shares the shadow of the table at `tablePayload`. */
export function isSharing(mapping: Mapping, tablePayload: usize): bool {
  return (mapping.attrs & CACHED) != 0 && objectFind(mapping.table, KIND_TABLE) == tablePayload;
}

/** 0, or W8: a shadow without users, or users without a shadow. */
export function checkShadow(table: SgTable, users: u32): u32 {
  if (table.shadowUsers != users || (table.shadow != 0) != (users != 0)) return W + 8;
  return users == 0 || objectFind(table.shadow, KIND_TABLE) != 0 ? 0 : W + 8;
}
