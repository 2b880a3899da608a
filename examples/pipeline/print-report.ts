/**
 * The report as text: three tables, the numbers that must be zero, and the page map.
 *
 * @module
 */

import { relative } from "node:path";
import Table from "cli-table3";
import { describeLimits, formatBytes } from "dmabuf";
import { type PageMap, pageMapText } from "./page-map.ts";
import type { BufferReport, Report, ThreadsReport } from "./report.ts";

/** The report for a terminal or a file: no colours, at most 100 columns. */
export function reportText(report: Report): string {
  return [
    headline(report),
    bufferTable(report.buffers),
    deviceTable(report),
    ...(report.threads === null ? [] : [frameTable(report.threads, report.runMs)]),
    totals(report),
    pageMapSection(report.pageMap),
    `last frame  ${shortPath(report.picturePath)}`,
    `page map    ${shortPath(report.mapPath)}`,
    "",
  ].join("\n");
}

function headline({ clip, frames, runMs }: Report): string {
  const seconds = runMs / 1000;
  const rate = (frames.length / seconds).toFixed(0);
  return (
    `${frames.length} ${frames.length === 1 ? "frame" : "frames"} of ` +
    `${clip.width} x ${clip.height}` +
    ` from ${shortPath(clip.path)}, ` +
    `in ${seconds.toFixed(2)} s (${rate} a second)`
  );
}

function bufferTable(buffers: readonly BufferReport[]): string {
  const table = makeTable(["buffers", "made", "each", "storage", "CPU segments", "DMA segments"]);
  for (const { kind, count, sizeBytes, storage, cpuSegments, dmaSegments } of buffers) {
    const dma = dmaSegments.map((device) => `${device.device} ${device.count}`).join(", ");
    table.push([kind, count, formatBytes(sizeBytes), storage, cpuSegments, dma]);
  }
  return table.toString();
}

function deviceTable({ devices, stages }: Report): string {
  const table = makeTable(["device", "can address", "dmaBytes", "ms a frame", "longest"]);
  for (const { name, limits, dmaBytes } of devices) {
    const stage = stages.find(({ device }) => device === name);
    const times = [stage?.meanMs ?? 0, stage?.maxMs ?? 0].map((ms) => ms.toFixed(2));
    table.push([name, describeLimits(limits), dmaBytes, ...times]);
  }
  return table.toString();
}

/** Who had which frame of the pools, and who got how many. */
function frameTable({ threads, uses, consumers }: ThreadsReport, runMs: number): string {
  const table = makeTable(["frame", "written by", "ms", "read by", "ms", "times", "by nobody, ms"]);
  for (const frame of new Set(uses.map((use) => use.frame))) {
    const [written, read] = (["write", "read"] as const).map((access) =>
      uses.find((use) => use.frame === frame && use.access === access),
    );
    const idleMs = runMs - (written?.ms ?? 0) - (read?.ms ?? 0);
    table.push([
      frame,
      written?.device ?? "",
      written?.ms.toFixed(1) ?? "",
      read?.device ?? "",
      read?.ms.toFixed(1) ?? "",
      written?.count ?? 0,
      idleMs.toFixed(1),
    ]);
  }
  const indexes = threads.map(({ device, thread }) => `${device} ${thread}`).join(", ");
  const got = consumers.map(
    ({ name, policy, taken, dropped }) => `${name} (${policy}) took ${taken}, skipped ${dropped}`,
  );
  return `${table.toString()}\nthreads, each a Worker: ${indexes}\n${got.join("\n")}`;
}

function makeTable(head: string[]): Table.Table {
  return new Table({ head, style: { head: [], border: [] } });
}

function totals(report: Report): string {
  const { bytesCopied, dmaBytes, faultCount, pinnedWhileMapped, pinnedAtEnd, heldFrames } = report;
  return [
    `bytesCopied ${bytesCopied}, dmaBytes ${dmaBytes}, faults ${faultCount}`,
    `pinned frames ${pinnedAtEnd}; ${pinnedWhileMapped} while the CPU read the last frame`,
    `${heldFrames} single frames were held all over memory to fragment it`,
  ].join("\n");
}

function pageMapSection(map: PageMap): string {
  const { lines, scale } = pageMapText(map);
  const unit = scale === 1 ? "a frame" : `${scale} frames`;
  const legend = map.owners.map(
    ({ symbol, name, colourName, frameCount }) =>
      `  ${symbol}  ${name.padEnd(32)} ${String(frameCount).padStart(6)}  ${colourName}`,
  );
  return [
    "",
    `memory, a character for ${unit} of 4 KiB${scale === 1 ? "" : ", by the first owner below"}:`,
    "",
    ...lines.map((line) => `  ${line}`),
    "",
    "     owner                            frames  in the PNG",
    ...legend,
    "",
  ].join("\n");
}

/** The path from where the user is, if that is shorter. */
function shortPath(path: string): string {
  const fromHere = relative(process.cwd(), path);
  return fromHere.length < path.length ? fromHere : path;
}
