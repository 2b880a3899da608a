/**
 * The main demo: a clip through camera, GPU and display without a copy. `--help` explains.
 *
 *     npm start                             the clip that comes with the repository
 *     npm start -- --frames 10 other.y4m    another one
 *
 * - MA1  Whatever goes wrong for a reason the user can change is one line on stderr and exit code
 *        1.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import { DmaBufError } from "dmabuf";
import { ClipError } from "./pipeline/clip.ts";
import { helpText, parseArguments, UsageError } from "./pipeline/command-line.ts";
import { reportText } from "./pipeline/print-report.ts";
import { createProgress } from "./pipeline/progress.ts";
import { complaintsAbout } from "./pipeline/report.ts";
import { runPipeline } from "./pipeline/run.ts";
import { OrderError } from "./pipeline/witness.ts";

const root = new URL("../../", import.meta.url); // the built file is build/examples/pipeline.js
const defaultClip = fileURLToPath(new URL("examples/media/flower-320x180.y4m", root));
const defaultOutDir = fileURLToPath(new URL("build/pipeline", root));

async function main(args: readonly string[]): Promise<void> {
  const { isHelp, clipPath, outDir, frameLimit } = parseArguments(args);
  if (isHelp) {
    process.stdout.write(helpText);
    return;
  }
  const progress = createProgress();
  const report = await runPipeline({
    clipPath: clipPath ?? defaultClip,
    outDir: outDir ?? defaultOutDir,
    ...(frameLimit === null ? {} : { frameLimit }),
    onFrame: (shown, expected) => progress.update(shown, expected),
  }).finally(() => progress.stop());
  process.stdout.write(reportText(report));
  const complaints = complaintsAbout(report);
  if (complaints.length > 0) reportFailure(`Cannot vouch for this run: ${complaints.join("; ")}`);
}

function reportFailure(message: string): void {
  process.stderr.write(`pipeline: ${message}\n`);
  process.exitCode = 1;
}

/** Whether the user can do something about it (MA1); a bug keeps its stack. */
function isForUser(error: unknown): error is Error {
  const kinds = [ClipError, UsageError, OrderError, DmaBufError];
  return kinds.some((kind) => error instanceof kind) || isSystemError(error);
}

function isSystemError(error: unknown): boolean {
  return error instanceof Error && "syscall" in error;
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (!isForUser(error)) throw error;
  reportFailure(error.message);
}
