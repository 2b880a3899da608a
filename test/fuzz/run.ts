/**
 * `npm run fuzz`: random events on the core against naive models, for as long as wanted.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { type FuzzSubject, runFuzz } from "./run-fuzz.ts";

const HELP = `npm run fuzz -- [--subject memory|iommu|sg|dma|domain] [--operations N]
                 [--seed S] [--strict] [--shared]

Runs random events of seed S (default: the time) on the release core: N (default 2000000) on its
memory, then its domains, then its scatterlists, each compared after every 1000; then N / 100 on
what devices map, compared after each, and on drivers of domains beside the core's; or N on one
of these.
--strict: freed frames are poisoned and wait.
Exit code 1: core and model part; the message says where, and how to see it again.
`;

const { values } = parseArgs({
  options: {
    operations: { type: "string", default: "2000000" },
    subject: { type: "string" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
    strict: { type: "boolean", default: false },
    shared: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});

const subjects: readonly FuzzSubject[] = ["memory", "iommu", "sg", "dma", "domain"];

if (values.help) process.stdout.write(HELP);
else main();

function main(): void {
  const [operations, seed] = [Number(values.operations), Number(values.seed)];
  const wanted = subjects.filter((name) => values.subject === undefined || name === values.subject);
  if (!Number.isInteger(operations) || operations < 1 || !Number.isInteger(seed)) {
    refuse("--operations and --seed must be whole numbers");
  } else if (wanted.length === 0) {
    refuse("--subject must be memory, iommu, sg, dma or domain");
  } else {
    for (const subject of wanted) {
      const isOfAll = (subject === "dma" || subject === "domain") && values.subject === undefined;
      run(subject, isOfAll ? Math.ceil(operations / 100) : operations, seed);
    }
  }
}

function refuse(reason: string): void {
  process.stderr.write(`fuzz: ${reason}\n`);
  process.exitCode = 1;
}

function run(subject: FuzzSubject, operations: number, seed: number): void {
  const start = Date.now();
  process.stdout.write(`fuzz: ${subject}, seed ${seed}, ${operations} events\n`);
  try {
    runFuzz({
      operations,
      seed,
      subject,
      strict: values.strict,
      shared: values.shared,
      onProgress(done) {
        if (done % 100_000 === 0) process.stdout.write(`  ${done} ok, ${seconds(start)} s\n`);
      },
    });
    process.stdout.write(`fuzz: core and model agree, ${seconds(start)} s\n`);
  } catch (cause) {
    refuse(cause instanceof Error ? cause.message : String(cause));
  }
}

function seconds(start: number): string {
  return ((Date.now() - start) / 1000).toFixed(1);
}
