/**
 * The command line: what can be asked for, and the text of --help.
 *
 * @module
 */

import { parseArgs } from "node:util";

/** What the user asked for. */
export interface Arguments {
  readonly isHelp: boolean;
  /** A Worker for each device. */
  readonly threads: boolean;
  /** Null: the default clip. */
  readonly clipPath: string | null;
  /** Null: the default folder. */
  readonly outDir: string | null;
  /** Null: all. */
  readonly frameLimit: number | null;
}

/** Arguments that make no sense. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

export const helpText = `Usage: npm start -- [options] [clip.y4m]

Runs a video clip through three devices that share their buffers and copy nothing:

  camera    no IOMMU: needs every buffer in one run of memory
  gpu       behind an IOMMU: reads YUV, writes RGB with its edges drawn bright
  display   behind an IOMMU, at most 16 segments: shows the RGB

The program fragments memory first. YUV buffers still lie in one run, in a CMA region, because the
camera is attached to them; RGB buffers lie wherever a frame is free, and the IOMMUs make them look
like one piece. Fences order the devices. A report says where everything was and what it cost.
With --threads each device works in a Worker of its own, and frames travel between them as numbers
of pools in shared memory. Ctrl-C lets those come through that are on the way.

  clip.y4m       a Y4M file, 8-bit 4:2:0, even width and height
                 (default: examples/media/flower-320x180.y4m)
  --threads      a Worker for each device, instead of one thread for all
  --frames N     process the first N frames only
  --out DIR      where last-frame.png and page-map.png go (default: build/pipeline)
  --help         show this text

Exit code: 0, or 1 with one line on stderr; 130 with one line if it was stopped.
`;

/** The arguments of the program. UsageError. */
export function parseArguments(args: readonly string[]): Arguments {
  const { values, positionals } = parse(args);
  if (positionals.length > 1) {
    throw new UsageError(`Cannot take ${positionals.length} clips: give one (see --help)`);
  }
  const { frames } = values;
  if (frames !== undefined && !/^[1-9]\d{0,8}$/.test(frames)) {
    throw new UsageError(`Cannot process --frames ${frames}: give a whole number above 0`);
  }
  return {
    isHelp: values.help ?? false,
    threads: values.threads ?? false,
    clipPath: positionals[0] ?? null,
    outDir: values.out ?? null,
    frameLimit: frames === undefined ? null : Number(frames),
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        help: { type: "boolean", short: "h" },
        threads: { type: "boolean" },
        frames: { type: "string" },
        out: { type: "string" },
      },
    });
  } catch (error) {
    const [reason] = (error as Error).message.split(/\.? To specify|\n/);
    throw new UsageError(`${reason} (see --help)`);
  }
}
