/**
 * Access: what a device does at an address, as a page table judges it.
 *
 * @module
 */

/** A read, a write, both, or a fetch of instructions, which is a read that `noexec` forbids. */
export type AccessKind = "read" | "write" | "read-write" | "execute";

/** An access; a privileged one also reaches pages that are mapped with `priv`. */
export type Access = AccessKind | `privileged-${AccessKind}`;

const kindBits: Record<AccessKind, number> = { read: 1, write: 2, "read-write": 3, execute: 9 };
const PRIVILEGED = 32;

const kinds = Object.entries(kindBits) as [AccessKind, number][];
const bitsByAccess: ReadonlyMap<string, number> = new Map<Access, number>([
  ...kinds,
  ...kinds.map(([kind, bits]): [Access, number] => [`privileged-${kind}`, bits + PRIVILEGED]),
]);

/** The core's bits for an access; undefined if it is none. */
export function accessBits(access: Access): number | undefined {
  return bitsByAccess.get(access);
}
