/**
 * CPU access: the brackets around what the CPU reads and writes in a buffer.
 *
 *     beginCpuAccess ─► exporter ─► implicit fences ─► the CPU's turn ─► endCpuAccess ─► exporter
 *
 * - CA1  A reader waits for writers, a writer for readers and writers.
 * - CA2  Brackets neither nest nor match: the exporter hears of each.
 *
 * Compare dma_buf_begin_cpu_access() in the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import type { WaitOptions } from "../clock.ts";
import { cpuWrites, type Direction, directionNumber } from "../direction.ts";
import { requireSignaled } from "../fence/fence.ts";
import { getForWait } from "../stacks.ts";
import type { DmaBuf } from "./dma-buf.ts";
import { valueNow } from "./maybe-promise.ts";
import type { DmaBufOps, MaybePromise } from "./ops.ts";
import { undo, undoLater } from "./report.ts";
import { usageFor } from "./resv.ts";
import { TimeLimit } from "./time-limit.ts";

type MaybeNumber = MaybePromise<number | undefined>;

/** @internal Opens a bracket now. EAGAIN: a fence is pending; the exporter was not asked. */
export function begin(
  buf: DmaBuf,
  ops: DmaBufOps,
  direction: Direction,
  operation: string,
): number {
  directionNumber(direction, operation);
  const usage = usageFor(cpuWrites(direction)); // CA1
  requireSignaled(buf.resv.fences(usage), operation);
  const result = ops.beginCpuAccess?.(buf, direction);
  const number =
    valueNow(
      result,
      () => operation,
      () => endOp(buf, ops, direction),
    ) ?? 0;
  if (number > 0) return number;
  try {
    requireSignaled(buf.resv.fences(usage), operation); // the exporter may have begun a move
  } catch (error) {
    undo(() => endOp(buf, ops, direction));
    throw error;
  }
  return 0;
}

/** @internal Opens a bracket after the fences. */
export async function beginAsync(
  buf: DmaBuf,
  ops: DmaBufOps,
  direction: Direction,
  options: WaitOptions,
  operation: string,
): Promise<number> {
  directionNumber(direction, operation);
  const limit = new TimeLimit(options, operation);
  return limit.run(async () => {
    const put = getForWait(buf);
    const end = () => endOp(buf, ops, direction);
    try {
      const begun = ops.beginCpuAccess?.(buf, direction, limit.rest) as MaybeNumber;
      const number = (await limit.answer(begun, end)) ?? 0;
      if (number > 0) return number;
      try {
        const usage = usageFor(cpuWrites(direction));
        await limit.wait((rest) => buf.resv.wait(usage, rest)); // CA1
      } catch (error) {
        await undoLater(end);
        throw error;
      }
      return 0;
    } finally {
      put();
    }
  });
}

/** Tells the exporter of a bracket's end where nobody wants to know the number. */
async function endOp(buf: DmaBuf, ops: DmaBufOps, direction: Direction): Promise<void> {
  await ops.endCpuAccess?.(buf, direction);
}

/** @internal Closes a bracket now. */
export function end(buf: DmaBuf, ops: DmaBufOps, direction: Direction, operation: string): number {
  directionNumber(direction, operation);
  return (
    valueNow(
      ops.endCpuAccess?.(buf, direction),
      () => operation,
      () => {},
    ) ?? 0
  );
}

/** @internal Closes a bracket of an exporter of either kind. */
export async function endAsync(
  buf: DmaBuf,
  ops: DmaBufOps,
  direction: Direction,
  options: WaitOptions,
  operation: string,
): Promise<number> {
  directionNumber(direction, operation);
  const limit = new TimeLimit(options, operation);
  return limit.run(async () => {
    const ended = ops.endCpuAccess?.(buf, direction, limit.rest) as MaybeNumber;
    return (await limit.ended(ended)) ?? 0;
  });
}
