/**
 * `npm run fuzz`: random events on the memory core against a naive model, for as long as wanted.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { runFuzz } from "./run-fuzz.ts";

const HELP = `npm run fuzz -- [--operations N] [--seed S] [--strict] [--shared]

Runs N (default 2000000) random events of seed S (default: the time) on the release core,
and compares all of memory after every 1000. --strict: freed frames are poisoned and wait.
Exit code 1: core and model part; the message says where, and how to see it again.
`;

const { values } = parseArgs({
  options: {
    operations: { type: "string", default: "2000000" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
    strict: { type: "boolean", default: false },
    shared: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});

if (values.help) process.stdout.write(HELP);
else main(Number(values.operations), Number(values.seed), values.strict, values.shared);

function main(operations: number, seed: number, strict: boolean, shared: boolean): void {
  if (!Number.isInteger(operations) || operations < 1 || !Number.isInteger(seed)) {
    process.stderr.write("fuzz: --operations and --seed must be whole numbers\n");
    process.exitCode = 1;
    return;
  }
  const start = Date.now();
  process.stdout.write(`fuzz: seed ${seed}, ${operations} events\n`);
  try {
    runFuzz({
      operations,
      seed,
      strict,
      shared,
      onProgress(done) {
        if (done % 100_000 === 0) process.stdout.write(`  ${done} ok, ${seconds(start)} s\n`);
      },
    });
    process.stdout.write(`fuzz: core and model agree, ${seconds(start)} s\n`);
  } catch (cause) {
    process.stderr.write(`fuzz: ${cause instanceof Error ? cause.message : String(cause)}\n`);
    process.exitCode = 1;
  }
}

function seconds(start: number): string {
  return ((Date.now() - start) / 1000).toFixed(1);
}
