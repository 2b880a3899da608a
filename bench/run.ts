/**
 * `npm run bench`: every row in a process of its own (SU3), one table at the end.
 *
 * Another row's memory and call sites would change the numbers: a second instance of the core alone
 * costs up to a fifth. So nothing but the timings crosses from one process to the other.
 *
 *     visit 1: row, row, row, …   visit 2: row, row, row, …   … ─► until two agree (visits.ts)
 *
 * @module
 */

import { fork } from "node:child_process";
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { formatTable } from "./report.ts";
import type { FamilyResult, Row } from "./suite.ts";
import { isSettled, quickest, VISITS } from "./visits.ts";

const HELP = `Usage: npm run bench -- [options]

Times the library and prints one table, in nanoseconds per operation.

  --only PATTERN   only rows whose name matches this regular expression, as ^sg/scatter
  --json FILE      also writes the rows to FILE: [{ name, nsPerOp, unit, samples, ... }]
  --visits N       how often a row is measured at most, until two visits agree (${VISITS})
  --help           this text

A row named (somebody) is the job of the row above it, done by somebody else in the same run;
"x ours" is that one's time divided by ours. ns is the median of the quickest visit; min and max are
those of all visits.
`;

const families = [
  "boundary",
  "frames",
  "cma",
  "sg",
  "iova",
  "iommu",
  "attach-map",
  "heaps",
  "dma",
  "fence",
  "workers",
  "files",
] as const;

interface Options {
  readonly only: RegExp;
  readonly json: string | undefined;
  readonly visits: number;
}

/** A row, and the family that measures it. */
interface Place {
  readonly family: string;
  readonly name: string;
}

/** Null when only the help was asked for. Throws what a person can read. */
function readOptions(): Options | null {
  const { values } = parseArgs({
    options: {
      only: { type: "string", default: "" },
      json: { type: "string" },
      visits: { type: "string", default: String(VISITS) },
      help: { type: "boolean" },
    },
  });
  if (values.help) return null;
  const visits = Number(values.visits);
  if (!Number.isInteger(visits) || visits < 1) {
    throw new Error(`bench: --visits is ${values.visits}; give a whole number from 1 on`);
  }
  return { only: new RegExp(values.only), json: values.json, visits };
}

/** Starts a process that lists a family, or measures one row of it. */
function start(family: string, row: readonly string[]): Promise<FamilyResult> {
  return new Promise((resolve, reject) => {
    let result: FamilyResult = { names: [], measured: null };
    const child = fork(
      fileURLToPath(new URL("family.js", import.meta.url)),
      [`${family}.bench.js`, ...row],
      { execArgv: [], env: {} },
    );
    child.on("message", (message) => {
      result = message as FamilyResult;
    });
    child.on("error", reject);
    child.on("exit", (code) => {
      if (code === 0) resolve(result);
      else reject(new Error(`bench: ${[family, ...row].join(", ")} failed with exit code ${code}`));
    });
  });
}

/** The rows that are wanted, in the order of their families. */
async function findPlaces(only: RegExp): Promise<Place[]> {
  const places: Place[] = [];
  for (const family of families) {
    const { names } = await start(family, []);
    places.push(...names.filter((name) => only.test(name)).map((name) => ({ family, name })));
  }
  return places;
}

/** Measures every row until it is settled, or `visits` times: all rows once, then again. */
async function measureAll(places: readonly Place[], visits: number): Promise<Row[]> {
  const rows = new Map<string, Row>();
  for (let visit = 0; visit < visits; visit++) {
    for (const { family, name } of places) {
      const before = rows.get(name);
      if (before !== undefined && isSettled(before)) continue;
      const { measured } = await start(family, [name]);
      if (measured === null) throw new Error(`bench: ${family} lists ${name}, but has no such row`);
      rows.set(name, before === undefined ? measured : quickest(before, measured));
    }
  }
  return [...rows.values()];
}

/** Rows, each followed by its peers. */
function peersBehind(rows: readonly Row[]): Row[] {
  const measured = new Set(rows.map(({ name }) => name));
  return rows
    .filter(({ peerOf }) => !measured.has(peerOf ?? ""))
    .flatMap((row) => [row, ...rows.filter(({ peerOf }) => peerOf === row.name)]);
}

async function main({ only, json, visits }: Options): Promise<void> {
  const places = await findPlaces(only);
  if (places.length === 0) throw new Error(`bench: no row matches ${only.source}`);
  const rows = peersBehind(await measureAll(places, visits));
  console.log(formatTable(rows));
  if (json !== undefined) writeFileSync(json, `${JSON.stringify(rows, null, 1)}\n`);
}

try {
  const options = readOptions();
  if (options === null) process.stdout.write(HELP);
  else await main(options);
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
