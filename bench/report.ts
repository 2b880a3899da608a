/**
 * The table for people.
 *
 * @module
 */

import { cpus } from "node:os";
import Table from "cli-table3";
import type { Row } from "./suite.ts";

/** Part of a processor that may be missing. */
const TOLERANCE = 0.15;

/** Rows and, beside peers, their time as a multiple of ours. */
export function formatTable(rows: readonly Row[]): string {
  const nsByName = new Map(rows.map(({ name, nsPerOp }) => [name, nsPerOp]));
  const table = new Table({
    head: ["row", "ns", "min", "max", "per", "x ours"],
    colAligns: ["left", "right", "right", "right", "left", "right"],
    style: { head: [], border: [], compact: true },
  });
  for (const { name, nsPerOp, lowNs, highNs, unit, peerOf } of rows) {
    const ours = peerOf === undefined ? undefined : nsByName.get(peerOf);
    const ratio = ours === undefined ? "" : formatNumber(nsPerOp / ours);
    table.push([
      peerOf === undefined ? name : `  ${name.slice(peerOf.length + 1)}`,
      formatNumber(nsPerOp),
      formatNumber(lowNs),
      formatNumber(highNs),
      unit,
      ratio,
    ]);
  }
  const machine = `${cpus()[0]?.model ?? "unknown processor"}, Node ${process.version}`;
  const foot = `${machine}, ${new Date().toISOString().slice(0, 10)}`;
  return [table.toString(), ...rows.flatMap(processorNote), foot].join("\n");
}

/** What a row is worth that had fewer processors than threads. */
function processorNote({ name, processors }: Row): string[] {
  if (processors === undefined || processors.free >= processors.needed - TOLERANCE) return [];
  const { needed, free } = processors;
  return [`${name}: ${needed} threads had ${free.toFixed(1)} free processors, and took turns`];
}

/** Three digits, more only before the point. */
function formatNumber(value: number): string {
  if (value >= 100) return value.toFixed(0);
  if (value >= 10) return value.toFixed(1);
  return value.toFixed(2);
}
