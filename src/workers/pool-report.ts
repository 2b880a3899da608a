/**
 * What a pool is doing: who holds which frame, and since when.
 *
 * @module
 */

import { nowMs } from "./pool-fences.ts";
import { type ConsumerEntry, hasBit, type PoolTable } from "./pool-table.ts";

/** What a consumer may do with frames. */
export type FrameAccess = "read" | "read-write";
/** Which frames a consumer gets: every one, in order, or the latest only. */
export type FramePolicy = "every" | "latest";

/** Somebody who has a frame. */
export interface FrameHolder {
  /** The consumer's name; "writer" for who fills the frame. */
  readonly name: string;
  /** The index of its thread. */
  readonly thread: number;
  /** Milliseconds since 1970. */
  readonly sinceMs: number;
  /** Milliseconds until now. */
  readonly forMs: number;
}

/** One frame. */
export interface FrameReport {
  readonly index: number;
  readonly state: "free" | "written" | "published";
  /** Its last publication; 0: none yet. */
  readonly seqno: number;
  /** Who has it now. */
  readonly holders: readonly FrameHolder[];
  /** Names of consumers that have not taken it yet. */
  readonly pending: readonly string[];
}

/** One consumer. */
export interface ConsumerReport {
  readonly name: string;
  readonly thread: number;
  readonly access: FrameAccess;
  readonly policy: FramePolicy;
  /** Frames that it got. */
  readonly taken: number;
  /** Frames that a later one replaced before it took them. */
  readonly dropped: number;
}

const WRITES = 0;
const LATEST = 1;

/** All frames of a pool. A frame that moves on meanwhile may be shown as it was or as it is. */
export function frameReports(table: PoolTable): FrameReport[] {
  const consumers = table.consumers();
  return Array.from({ length: table.count }, (_, index) => frameReport(table, index, consumers));
}

function frameReport(
  table: PoolTable,
  index: number,
  consumers: readonly ConsumerEntry[],
): FrameReport {
  const { writer, pending, held } = table.state(index);
  const holder = (name: string, thread: number, sinceMs: number): FrameHolder => ({
    name,
    thread,
    sinceMs,
    forMs: Math.max(0, nowMs() - sinceMs),
  });
  const holders = consumers
    .filter((consumer) => hasBit(held, consumer.index))
    .map(({ name, thread, index: i }) => holder(name, thread, table.heldSinceMs(index, i)));
  if (writer !== null) holders.push(holder("writer", writer, table.sinceMs(index)));
  return {
    index,
    state: writer !== null ? "written" : pending + held > 0 ? "published" : "free",
    seqno: table.seqno(index),
    holders,
    pending: consumers.filter(({ index: i }) => hasBit(pending, i)).map(({ name }) => name),
  };
}

/** All consumers of a pool. */
export function consumerReports(table: PoolTable): ConsumerReport[] {
  return table.consumers().map(({ name, thread, flags, taken, dropped }) => ({
    name,
    thread,
    access: hasBit(flags, WRITES) ? "read-write" : "read",
    policy: hasBit(flags, LATEST) ? "latest" : "every",
    taken,
    dropped,
  }));
}
