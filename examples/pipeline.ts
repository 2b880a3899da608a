/**
 * The main demo: a clip through camera, GPU and display without a copy. `--help` explains.
 *
 *     npm start                             the clip that comes with the repository
 *     npm start -- --threads                the same with a Worker for each device
 *     npm start -- --frames 10 other.y4m    another one
 *
 * - MA1  Whatever goes wrong for a reason the user can change is one line on stderr and exit code
 *        1.
 * - MA2  Ctrl-C ends the run in order, with one line on stderr and exit code 130; the second one
 *        ends the program at once.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import { helpText, parseArguments } from "./pipeline/command-line.ts";
import { reportText } from "./pipeline/print-report.ts";
import { createProgress } from "./pipeline/progress.ts";
import { complaintsAbout } from "./pipeline/report.ts";
import { runPipeline, StoppedError } from "./pipeline/run.ts";
import { isForUser } from "./pipeline/user-error.ts";

const root = new URL("../../", import.meta.url); // the built file is build/examples/pipeline.js
const defaultClip = fileURLToPath(new URL("examples/media/flower-320x180.y4m", root));
const defaultOutDir = fileURLToPath(new URL("build/pipeline", root));

async function main(args: readonly string[]): Promise<void> {
  const { isHelp, threads, clipPath, outDir, frameLimit } = parseArguments(args);
  if (isHelp) {
    process.stdout.write(helpText);
    return;
  }
  const stop = new AbortController();
  process.once("SIGINT", () => stop.abort()); // MA2
  const progress = createProgress();
  const report = await runPipeline({
    clipPath: clipPath ?? defaultClip,
    outDir: outDir ?? defaultOutDir,
    threads,
    signal: stop.signal,
    ...(frameLimit === null ? {} : { frameLimit }),
    onFrame: (shown, expected) => progress.update(shown, expected),
  }).finally(() => progress.stop());
  process.stdout.write(reportText(report));
  const complaints = complaintsAbout(report);
  if (complaints.length > 0) reportFailure(`Cannot vouch for this run: ${complaints.join("; ")}`);
}

function reportFailure(message: string, exitCode = 1): void {
  process.stderr.write(`pipeline: ${message}\n`);
  process.exitCode = exitCode;
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (error instanceof StoppedError) reportFailure(error.message, 130);
  else if (isForUser(error))
    reportFailure(error.message); // MA1
  else throw error;
}
