/**
 * `npm run bench`: every row in a process of its own (SU3), one table at the end.
 *
 * Another row's memory and call sites would change the numbers: a second instance of the core alone
 * costs up to a fifth. So nothing but the timings crosses from one process to the other.
 *
 * @module
 */

import { fork } from "node:child_process";
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { formatTable } from "./report.ts";
import type { FamilyResult, Row } from "./suite.ts";

const HELP = `Usage: npm run bench -- [options]

Times the library and prints one table, in nanoseconds per operation.

  --only PATTERN   only rows whose name matches this regular expression, as ^sg/scatter
  --json FILE      also writes the rows to FILE: [{ name, nsPerOp, unit, samples, ... }]
  --help           this text

A row named (somebody) is the job of the row above it, done by somebody else in the same run;
"x ours" is that one's time divided by ours.
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
  readonly only: string;
  readonly json: string | undefined;
}

/** Null when only the help was asked for. Throws what a person can read. */
function readOptions(): Options | null {
  const { values } = parseArgs({
    options: { only: { type: "string" }, json: { type: "string" }, help: { type: "boolean" } },
  });
  if (values.help) return null;
  const only = values.only ?? "";
  new RegExp(only); // throws now, not eight times later
  return { only, json: values.json };
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

/** A family's rows, each followed by its peers. */
async function runFamily(family: string, filter: RegExp): Promise<Row[]> {
  const { names } = await start(family, []);
  const rows: Row[] = [];
  for (const name of names) {
    if (!filter.test(name)) continue;
    const { measured: row } = await start(family, [name]);
    if (row !== null) rows.push(row);
  }
  const measured = new Set(rows.map(({ name }) => name));
  return rows
    .filter(({ peerOf }) => !measured.has(peerOf ?? ""))
    .flatMap((row) => [row, ...rows.filter(({ peerOf }) => peerOf === row.name)]);
}

async function main({ only, json }: Options): Promise<void> {
  const rows: Row[] = [];
  for (const family of families) rows.push(...(await runFamily(family, new RegExp(only))));
  if (rows.length === 0) throw new Error(`bench: no row matches ${only}`);
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
