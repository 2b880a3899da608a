/**
 * What keeps a system from being closed: looked at before anything is done, so that a refused
 * close() has changed nothing.
 *
 * - CL1  A buffer may go with the descriptors if they have all its references and nobody uses it.
 *
 * @module
 */

import type { Device } from "./device/device.ts";
import type { DmaBuf } from "./dma-buf/dma-buf.ts";
import { fail } from "./errors.ts";
import type { FdTable } from "./files/fd-table.ts";
import { countOf } from "./units.ts";

/** What a system has when it is to be closed. */
export interface Closing {
  readonly files: FdTable<DmaBuf>;
  readonly buffers: readonly DmaBuf[];
  readonly devices: readonly Device[];
  /** The pools that have not been released on this thread. */
  readonly pools: readonly { readonly name: string }[];
}

/** Throws EBUSY while buffers are held (CL1) or devices are used, and says which. */
export function requireClosable({ files, buffers, devices, pools }: Closing): void {
  const operation = "close the system";
  const installed = new Map<DmaBuf, number>();
  for (const fd of files.fds) {
    const buf = files.peek(fd);
    installed.set(buf, (installed.get(buf) ?? 0) + 1);
  }
  const held = buffers.filter(
    (buf) => buf.refCount > (installed.get(buf) ?? 0) || buf.isUsed || buf.isHeldElsewhere,
  );
  if (held.length > 0) {
    const names = held.map(describe).join(", ");
    const owners = pools.map(({ name }) => name).join(", ");
    const hint = owners === "" ? "" : `; pool.release() lets go of the frames of ${owners}`;
    fail("EBUSY", operation, `buffers are still held: ${names}${hint}`);
  }
  for (const { name, whyItStays } of devices)
    if (whyItStays !== null) fail("EBUSY", operation, `device ${name}: ${whyItStays}`);
}

function describe({ name, refCount, isUsed }: DmaBuf): string {
  const use = isUsed ? ", and in use by a device or vmap()" : "";
  return `${name} (${countOf(refCount, "reference")}${use})`;
}
