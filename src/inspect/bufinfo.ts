/**
 * The kernel's /sys/kernel/debug/dma_buf/bufinfo as text, and who holds one buffer.
 *
 * @module
 */

import { requireMethods } from "../arguments.ts";
import type { BufferInfo } from "../dma-buf/bufinfo.ts";
import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import type { System } from "../system.ts";

/** What `cat /sys/kernel/debug/dma_buf/bufinfo` prints, line by line, for a system's buffers. */
export function formatBufinfo(system: System): string {
  requireMethods(system, ["bufinfo"], "the system", "list the buffers");
  const rows = system.bufinfo();
  const bytes = rows.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return [
    "",
    "Dma-buf Objects:",
    `${columns("size", "flags", "mode", "count")}\texp_name\t${"ino".padEnd(8)}\tname`,
    ...rows.flatMap(formatBuffer),
    "",
    `Total ${rows.length} objects, ${bytes} bytes`,
    "",
  ].join("\n");
}

function columns(...names: readonly string[]): string {
  return names.map((name) => name.padEnd(8)).join("\t");
}

function formatBuffer(row: BufferInfo): string[] {
  const { sizeBytes, flags, mode, count, exporterName, ino, name, fences, devices } = row;
  const numbers = [decimal(sizeBytes), hex(flags), hex(mode), decimal(count)].join("\t");
  return [
    `${numbers}\t${exporterName}\t${decimal(ino)}\t${name ?? "<none>"}`,
    ...fences.map(({ usage, driverName, timelineName, seqno, isSignaled }) => {
      const state = isSignaled ? "signalled" : "unsignalled";
      return `\t${usage} fence:${driverName} ${timelineName} seq ${seqno} ${state}`;
    }),
    "\tAttached Devices:",
    ...devices.map((device) => `\t${device}`),
    `Total ${devices.length} devices attached`,
    "",
  ];
}

function decimal(value: number): string {
  return String(value).padStart(8, "0");
}

function hex(value: number): string {
  return value.toString(16).padStart(8, "0");
}

/** Who holds a buffer, a line each, with where it was made if the system tracks that. */
export function formatHolders(buf: DmaBuf): string {
  requireMethods(buf, ["holders"], "the buffer", "list the holders");
  const lines = buf.holders().flatMap(({ kind, name, count, stack }) => {
    const times = count > 1 ? ` x${count}` : "";
    const frames = stack === null ? [] : stack.split("\n").map((frame) => `    ${frame}`);
    return [`  ${kind} ${name}${times}`, ...frames];
  });
  return [`${buf.description} is held by`, ...lines, ""].join("\n");
}
