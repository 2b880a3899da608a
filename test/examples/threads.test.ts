/**
 * The main demo with a Worker for each device: the same pictures as on one thread, frames in order,
 * and a clean end however it comes.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { crc32 } from "node:zlib";
import type { System } from "dmabuf";
import { afterAll, describe, expect, it } from "vitest";
import type { RunHooks } from "../../examples/pipeline/engine.ts";
import { reportText } from "../../examples/pipeline/print-report.ts";
import { complaintsAbout, type Report } from "../../examples/pipeline/report.ts";
import { type RunOptions, runPipeline, StoppedError } from "../../examples/pipeline/run.ts";
import type { StageName } from "../../examples/pipeline/stages.ts";
import { writeClip } from "./clips.ts";
import { naiveEdgeFilter } from "./naive-edge-filter.ts";

const built = (file: string): URL => new URL(`../../build/examples/${file}`, import.meta.url);
const FLOWER = fileURLToPath(new URL("../../examples/media/flower-320x180.y4m", import.meta.url));

const dir = mkdtempSync(join(tmpdir(), "pipeline-threads-"));
afterAll(() => rmSync(dir, { recursive: true }));

/** Starts the built Worker: tests run the sources themselves. */
function startWorker(): Worker {
  return new Worker(built("pipeline/stage-worker.js"));
}

/** A run on threads, and what its system held at the end. */
function run(options: Partial<RunOptions> = {}): Promise<Report> & { readonly left: object[] } {
  const left: object[] = [];
  const onClose = (system: System): void => {
    const { bufferCount, pinnedFrames } = system.stats();
    left.push({ bufferCount, pinnedFrames, broken: system.check(true) });
  };
  const hooks: RunHooks = { startWorker, onClose, ...options.hooks };
  const report = runPipeline({ clipPath: FLOWER, outDir: dir, threads: true, ...options, hooks });
  return Object.assign(report, { left });
}

const NOTHING = [{ bufferCount: 0, pinnedFrames: 0, broken: null }];

describe("pipeline on threads", () => {
  it("shows the same bytes as on one thread, in order, and copies none", async () => {
    const one = await runPipeline({ clipPath: FLOWER, outDir: join(dir, "one") });
    const running = run({ outDir: join(dir, "three") });
    const three = await running;
    expect(complaintsAbout(three)).toEqual([]);
    expect(three.frames).toEqual(one.frames);
    expect(three.frames.length).toBe(24);
    expect(three.cpuCrc).toBe(one.cpuCrc);
    const pictures = [one, three].map(({ picturePath }) => readFileSync(picturePath));
    expect(Buffer.compare(...(pictures as [Buffer, Buffer]))).toBe(0);
    expect(three).toMatchObject({ bytesCopied: 0, faultCount: 0, dmaBytes: one.dmaBytes });
    expect(three.buffers).toEqual(one.buffers);
    expect(running.left).toEqual(NOTHING);
  });

  it("says who had which frame, who got how many, and on which thread", async () => {
    const report = await run();
    const { threads = null } = report;
    expect(threads?.threads.map(({ device }) => device)).toEqual(["camera", "gpu", "display"]);
    expect(new Set(threads?.threads.map(({ thread }) => thread))).toEqual(new Set([1, 2, 3]));
    expect(threads?.heldAtEnd).toEqual([]);
    const got = (threads?.consumers ?? []).map(({ name, policy, taken, dropped }) => {
      return [name, policy, taken, dropped];
    });
    expect(got).toEqual([
      ["gpu", "every", 24, 0],
      ["display", "every", 24, 0],
      ["viewer", "latest", 1, 23],
    ]);
    const count = (device: StageName, access: string): number =>
      (threads?.uses ?? [])
        .filter((use) => use.device === device && use.access === access)
        .reduce((sum, use) => sum + use.count, 0);
    expect([count("camera", "write"), count("gpu", "read")]).toEqual([24, 24]);
    expect([count("gpu", "write"), count("display", "read")]).toEqual([24, 24]);
    for (const line of reportText(report).split("\n")) expect(line.length).toBeLessThanOrEqual(100);
  });

  it.each(["camera", "gpu", "display"] as const)("however slow the %s is", async (slow) => {
    const pauseMs = (device: StageName): number => (device === slow ? 4 : 0);
    const report = await run({ frameLimit: 8, hooks: { pauseMs } });
    expect(complaintsAbout(report)).toEqual([]);
    expect(report.frames.length).toBe(8);
  });

  it("without a slow camera's fences shows other pictures: they are what orders it", async () => {
    const clipPath = join(dir, "order.y4m");
    const pictures = writeClip(clipPath, { width: 64, height: 64, count: 6 });
    const expected = pictures.map((picture) => crc32(naiveEdgeFilter(picture, 64, 64)));
    const pauseMs = (device: StageName): number => (device === "camera" ? 20 : 0);
    const forgetsFence = (device: StageName): boolean => device === "camera";
    const wrong = await run({ clipPath, hooks: { pauseMs, forgetsFence } });
    expect(wrong.frames.map(({ crc }) => crc)).not.toEqual(expected);
    const right = await run({ clipPath, hooks: { pauseMs } });
    expect(right.frames.map(({ crc }) => crc)).toEqual(expected);
  });
});

describe("pipeline on threads, an end on the way", () => {
  it("is stopped: no new frame, those on the way are shown, everything is given back", async () => {
    const stop = new AbortController();
    const running = run({
      signal: stop.signal,
      onFrame: (count) => {
        if (count === 5) stop.abort();
      },
    });
    await expect(running).rejects.toThrow(StoppedError);
    await expect(running).rejects.toThrow(/^Stopped after ([5-9]|1\d) of 24 frames/);
    expect(running.left).toEqual(NOTHING);
  });

  it("on one thread, too", async () => {
    const stop = new AbortController();
    const run = runPipeline({
      clipPath: FLOWER,
      outDir: dir,
      signal: stop.signal,
      onFrame: () => stop.abort(),
    });
    await expect(run).rejects.toThrow(/^Stopped after \d of 24 frames/);
  });

  it.each(["camera", "gpu", "display"] as const)("the %s's Worker is killed", async (name) => {
    const workers = new Map<StageName, Worker>();
    const running = run({
      hooks: {
        startWorker: (stage) => {
          const worker = startWorker();
          workers.set(stage, worker);
          return worker;
        },
        pauseMs: () => 10, // frames are on the way everywhere
      },
      onFrame: (count) => {
        if (count === 2) void workers.get(name)?.terminate();
      },
    });
    await expect(running).rejects.toThrow(/Worker is gone|its maker is gone|EOWNERDEAD|owner/);
    expect(running.left).toEqual(NOTHING);
  });

  it("the clip ends within a picture: the reason, and everything is given back", async () => {
    const clipPath = join(dir, "cut.y4m");
    writeClip(clipPath, { width: 64, height: 64, count: 4, cutBytes: 1 });
    const running = run({ clipPath });
    await expect(running).rejects.toThrow(/picture 3 is truncated/);
    expect(running.left).toEqual(NOTHING);
  });

  it("Ctrl-C: one line, exit code 130", async () => {
    const clipPath = join(dir, "long.y4m");
    writeClip(clipPath, { width: 640, height: 480, count: 60 });
    const outDir = join(dir, "interrupted");
    const args = [fileURLToPath(built("pipeline.js")), "--threads", "--out", outDir, clipPath];
    const program = spawn(process.execPath, args);
    let [stdout, stderr] = ["", ""];
    program.stdout.on("data", (text) => {
      stdout += text;
    });
    program.stderr.on("data", (text) => {
      stderr += text;
    });
    const exit = new Promise((resolve) => program.once("exit", resolve));
    while (!existsSync(outDir)) await new Promise((resolve) => setTimeout(resolve, 5));
    program.kill("SIGINT");
    expect(await exit).toBe(130);
    expect(stderr).toMatch(
      /^pipeline: Stopped after \d+ of 60 frames; everything is given back\n$/,
    );
    expect(stdout).toBe("");
  });
});
