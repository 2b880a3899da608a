/**
 * `npm run test:golden`: replays the golden records and prints what became of them.
 *
 * The records come from the folder that DMABUF_GOLDEN names, or from the repository's own copy.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import Table from "cli-table3";
import type { CoreChoice } from "./bed.ts";
import { ownRecords, readFolder, repositoryRoot } from "./files.ts";
import { judge, type Report, type Tally } from "./judge.ts";

const SHOWN_FAILURES = 40;
const HELP = `npm run test:golden -- [--core release|debug] [--shared]

Replays the records of the folder DMABUF_GOLDEN (default: test/golden/records).
Exit code 1: a difference that no class explains, an unknown kind, a malformed file,
or, on the repository's own records, a class that matches nothing.
`;

/** Runs the replay; the exit code. */
function main(): number {
  const { values } = parseArgs({
    options: {
      core: { type: "string", default: "release" },
      shared: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const own = ownRecords();
  const folder = resolve(process.env.DMABUF_GOLDEN || own);
  const { files, failures } = readFolder(folder);
  const core = coreChoice(values.core, values.shared);
  const report = judge(files, { core, mustUseClasses: folder === own && failures.length === 0 });
  failures.push(...report.failures);
  process.stdout.write(`${details(report, failures)}\n${table(report)}\n`);
  return failures.length === 0 ? 0 : 1;
}

function coreChoice(build: string, shared: boolean): CoreChoice {
  if (build === "release") return { shared };
  if (build !== "debug") throw new Error(`--core must be release or debug, and is ${build}`);
  return { shared, wasm: readFileSync(join(repositoryRoot(), "build/core.debug.wasm")) };
}

/** The lists before the table, each under its title. */
function details(report: Report, failures: readonly string[]): string {
  const shown = failures.slice(0, SHOWN_FAILURES).map((line) => `  ${line}`);
  const hidden = failures.length - shown.length;
  if (hidden > 0) shown.push(`  and ${hidden} more`);
  return [
    ["Not replayed yet", lines(report.pending)],
    ["Difference classes (docs/differences-from-linux.md)", lines(report.matched)],
    ["Device address ranges, judged by their contract", lines(report.notes)],
    ["Failures", shown],
  ]
    .filter(([, list]) => list !== undefined && list.length > 0)
    .map(([title, list]) => `${title}\n${(list as string[]).join("\n")}\n`)
    .join("\n");
}

function lines(counts: ReadonlyMap<string, number>): string[] {
  const seen = [...counts].filter(([, count]) => count > 0);
  return seen.map(([name, count]) => `${String(count).padStart(7)}  ${name}`);
}

function table(report: Report): string {
  const grid = new Table({
    head: ["area", "records", "operations", "equal", "explained", "not replayed yet", "different"],
    colAligns: ["left", "right", "right", "right", "right", "right", "right"],
    style: { head: [], border: [] },
  });
  const columns = ["records", "operations", "equal", "explained", "pending", "different"] as const;
  const row = (name: string, tallies: readonly Tally[]) => [
    name,
    ...columns.map((column) => tallies.reduce((sum, tally) => sum + tally[column], 0)),
  ];
  for (const [area, tally] of report.areas) grid.push(row(area, [tally]));
  grid.push(row("all", [...report.areas.values()]));
  return grid.toString();
}

try {
  process.exitCode = main();
} catch (cause) {
  process.stderr.write(`golden: ${cause instanceof Error ? cause.message : String(cause)}\n`);
  process.exitCode = 1;
}
