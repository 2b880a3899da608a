/**
 * The main demo: what it shows, that it is true, and that it would notice if it were not.
 *
 * @module
 */

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { crc32 } from "node:zlib";
import { MiB, open } from "dmabuf";
import { PNG } from "pngjs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RunHooks } from "../../examples/pipeline/engine.ts";
import { pageMapText } from "../../examples/pipeline/page-map.ts";
import { reportText } from "../../examples/pipeline/print-report.ts";
import { complaintsAbout, type Report } from "../../examples/pipeline/report.ts";
import { runPipeline } from "../../examples/pipeline/run.ts";
import { OrderError } from "../../examples/pipeline/witness.ts";
import { ByteMeter } from "./byte-meter.ts";
import { readPictures, writeClip } from "./clips.ts";
import { naiveEdgeFilter } from "./naive-edge-filter.ts";

const FLOWER = fileURLToPath(new URL("../../examples/media/flower-320x180.y4m", import.meta.url));
const WIDTH = 320;
const HEIGHT = 180;
const YUV_BYTES = (WIDTH * HEIGHT * 3) / 2;
const RGB_BYTES = WIDTH * HEIGHT * 4;

const outDir = mkdtempSync(join(tmpdir(), "pipeline-"));
afterAll(() => rmSync(outDir, { recursive: true }));

function runFlower(hooks: RunHooks = {}, frameLimit?: number): Promise<Report> {
  const limit = frameLimit === undefined ? {} : { frameLimit };
  return runPipeline({ clipPath: FLOWER, outDir, hooks, ...limit });
}

/** A PNG's pixels as blue, green, red, 255. */
function pixelsOf(path: string): Uint8Array {
  const { data } = PNG.sync.read(readFileSync(path));
  return data.map((_, at) => (at % 4 === 3 ? 255 : (data[at - (at % 4) + 2 - (at % 4)] as number)));
}

const pictures = readPictures(FLOWER, YUV_BYTES);
let flower: Report;
beforeAll(async () => {
  flower = await runFlower();
});

describe("pipeline, the flower clip", () => {
  it("has no complaints", () => {
    expect(complaintsAbout(flower)).toEqual([]);
  });

  it("shows every frame once, in order", () => {
    expect(flower.frames.map(({ index }) => index)).toEqual(pictures.map((_, i) => i));
  });

  it("shows what a naive filter makes of every frame", () => {
    const expected = pictures.map((picture) => crc32(naiveEdgeFilter(picture, WIDTH, HEIGHT)));
    expect(flower.frames.map(({ crc }) => crc)).toEqual(expected);
  });

  it("saves the last frame, edge-filtered", () => {
    const last = pictures.at(-1) as Uint8Array;
    const expected = naiveEdgeFilter(last, WIDTH, HEIGHT);
    expect(Buffer.compare(pixelsOf(flower.picturePath), expected)).toBe(0);
  });
});

describe("pipeline, the report of the flower clip", () => {
  it("keeps yuv in 1 CPU segment, because the camera needs it", () => {
    expect(flower.buffers[0]).toMatchObject({ kind: "yuv", storage: "contiguous", cpuSegments: 1 });
    expect(flower.buffers[0].dmaSegments[0]).toEqual({ device: "camera", count: 1 });
  });

  it("scatters rgb over more than 16 CPU segments, which the display sees as at most 16", () => {
    const [, rgb] = flower.buffers;
    expect(rgb).toMatchObject({ kind: "rgb", storage: "scattered" });
    expect(rgb.cpuSegments).toBeGreaterThan(16);
    expect(rgb.dmaSegments.map(({ device }) => device)).toEqual(["gpu", "display"]);
    for (const { count } of rgb.dmaSegments) expect(count).toBeLessThanOrEqual(16);
  });

  it("copies nothing and faults nowhere; dmaBytes are what the devices touched", () => {
    const frameCount = pictures.length;
    expect(flower).toMatchObject({ bytesCopied: 0, faultCount: 0, brokenInvariant: null });
    expect(flower.devices.map(({ name, dmaBytes }) => [name, dmaBytes])).toEqual([
      ["camera", frameCount * YUV_BYTES],
      ["gpu", frameCount * (YUV_BYTES + RGB_BYTES)],
      ["display", frameCount * RGB_BYTES],
    ]);
  });

  it("pins the last frame while the CPU reads it, and nothing at the end", () => {
    expect(flower.pinnedWhileMapped).toBe(Math.ceil(RGB_BYTES / 4096));
    expect(flower.pinnedAtEnd).toBe(0);
  });

  it("maps every frame of memory to its owner", () => {
    const { owners, ownerOfFrame } = flower.pageMap;
    const counted = owners.map((_, i) => ownerOfFrame.filter((owner) => owner === i).length);
    expect(counted).toEqual(owners.map(({ frameCount }) => frameCount));
    const frames = Object.fromEntries(owners.map(({ name, frameCount }) => [name, frameCount]));
    expect(frames).toMatchObject({ "yuv 0": 22, "rgb 2": 57 });
    expect(frames["held, to fragment memory"]).toBe(flower.heldFrames);
    const { lines, scale } = pageMapText(flower.pageMap);
    expect(lines.join("").length * scale).toBeGreaterThanOrEqual(ownerOfFrame.length);
    expect(PNG.sync.read(readFileSync(flower.mapPath)).width).toBeGreaterThan(500);
  });

  it("prints all of it in 100 columns, without colours", () => {
    const text = reportText(flower);
    for (const line of text.split("\n")) expect(line.length).toBeLessThanOrEqual(100);
    expect(text).not.toContain("\u001b");
    expect(text).toContain("bytesCopied 0, dmaBytes 15206400, faults 0");
  });
});

describe("pipeline, the bytesCopied counter", () => {
  it("stays 0 while the only bytes that move are the camera's", async () => {
    using meter = new ByteMeter();
    const report = await runFlower({ onOpen: (system) => meter.watch(system) }, 8);
    expect(report.bytesCopied).toBe(0);
    expect(meter).toMatchObject({ copyWithinBytes: 0, sliceBytes: 0, sgCopyBytes: 0 });
    expect(meter.setBytes).toBe(report.devices[0]?.dmaBytes);
    expect(meter.setBytes).toBe(8 * YUV_BYTES);
  });

  it("counts exactly what copyTo(), copyFrom() and the core's copy move", async () => {
    using meter = new ByteMeter();
    using system = await open({ memoryBytes: 4 * MiB });
    meter.watch(system);
    using buf = system.heap("system").alloc(50_000);
    using mapping = buf.mmap();
    mapping.copyTo(new Uint8Array(12_345));
    expect(system.stats().bytesCopied).toBe(12_345);
    mapping.copyFrom(new Uint8Array(777));
    expect(system.stats().bytesCopied).toBe(12_345 + 777);
    expect(meter.setBytes).toBe(12_345 + 777);

    using range = system.frames.alloc(2);
    using pinned = range.pin();
    expect(buf.storage?.pcopyToBuffer(pinned)).toBe(8192);
    expect(buf.storage?.pcopyFromBuffer(pinned, 4096)).toBe(8192);
    expect(meter.sgCopyBytes).toBe(2 * 8192);
    expect(system.stats().bytesCopied).toBe(meter.setBytes + meter.sgCopyBytes);
  });
});

describe("pipeline, a run that proves nothing fails", () => {
  it.each([
    ["camera", "of the first frame", (frame: number) => frame === 0],
    ["camera", "of a later frame", (frame: number) => frame === 7],
    ["gpu", "of the first frame", (frame: number) => frame === 0],
    ["gpu", "of a later frame", (frame: number) => frame === 7],
    ["camera", "of every frame", () => true],
    ["gpu", "of every frame", () => true],
    ["display", "of every frame", () => true],
  ] as const)("without the fence: %s, %s", async (name, _, isForgotten) => {
    const hooks: RunHooks = {
      forgetsFence: (device, frame) => device === name && isForgotten(frame),
      pauseMs: (device) => (device === "display" && name === "display" ? 20 : 0),
    };
    const run = runFlower(hooks, 12);
    await expect(run).rejects.toThrow(OrderError);
    await expect(run).rejects.toThrow(/passed without the fence of|began before .* had finished/);
  });

  it("with every fence it succeeds, however slow a device is", async () => {
    for (const slow of ["camera", "gpu", "display"]) {
      const report = await runFlower({ pauseMs: (device) => (device === slow ? 5 : 0) }, 8);
      expect(complaintsAbout(report)).toEqual([]);
    }
  });

  it("on memory that nobody fragmented", async () => {
    const report = await runFlower({ keepsMemoryWhole: true }, 3);
    expect(report.heldFrames).toBe(0);
    expect(complaintsAbout(report)).toEqual([
      expect.stringMatching(/^the rgb buffers lie in \d+ CPU segments, not in 17 or more$/),
    ]);
  });

  it("when all buffers lie in one segment", () => {
    const [yuv, rgb] = flower.buffers;
    const changed: Report = { ...flower, buffers: [yuv, { ...rgb, cpuSegments: 1 }] };
    expect(complaintsAbout(changed)).toHaveLength(1);
  });

  it.each<[string, Partial<Report>]>([
    ["a copy", { bytesCopied: 1 }],
    ["a fault", { faultCount: 1 }],
    ["a pin that is left", { pinnedAtEnd: 1 }],
    ["no pin under the CPU", { pinnedWhileMapped: 0 }],
    ["frames out of order", { frames: [{ index: 1, crc: 0 }], cpuCrc: 0 }],
    ["another picture for the CPU", { cpuCrc: -1 }],
    ["a broken invariant", { brokenInvariant: "B2" }],
  ])("with %s", (_, change) => {
    expect(complaintsAbout({ ...flower, ...change })).toHaveLength(1);
  });
});

describe("pipeline, clips of other shapes", () => {
  it.each([
    ["2x2, one picture", { width: 2, height: 2, count: 1 }],
    ["50x34", { width: 50, height: 34, count: 3 }],
    ["a single pair of rows", { width: 642, height: 2, count: 7 }],
    ["rows that cross frames of memory", { width: 1030, height: 70, count: 4 }],
    ["no colour space tag", { width: 64, height: 64, count: 2, tags: " F30:1" }],
    ["C420jpeg", { width: 64, height: 64, count: 2, tags: " C420jpeg XFOO" }],
    ["C420mpeg2", { width: 64, height: 64, count: 2, tags: " Ip A1:1 C420mpeg2" }],
    ["C420paldv", { width: 64, height: 64, count: 2, tags: " C420paldv" }],
    ["FRAME lines with parameters", { width: 64, height: 64, count: 2, frameLine: "FRAME Ip XA" }],
  ])("%s", async (_, spec) => {
    const clipPath = join(outDir, "shape.y4m");
    const pictures = writeClip(clipPath, spec);
    const report = await runPipeline({ clipPath, outDir });
    const expected = pictures.map((picture) => naiveEdgeFilter(picture, spec.width, spec.height));
    expect(complaintsAbout(report)).toEqual([]);
    expect(report.frames.map(({ crc }) => crc)).toEqual(expected.map((pixels) => crc32(pixels)));
  });

  it("1920x1080 scatters too, and stays within 16 segments", async () => {
    const clipPath = join(outDir, "large.y4m");
    writeClip(clipPath, { width: 1920, height: 1080, count: 1 });
    const report = await runPipeline({ clipPath, outDir });
    expect(complaintsAbout(report)).toEqual([]);
    expect(report.buffers[1]).toMatchObject({ cpuSegments: 2025, storage: "scattered" });
    expect(report.buffers[1].dmaSegments).toContainEqual({ device: "display", count: 1 });
  });
});
