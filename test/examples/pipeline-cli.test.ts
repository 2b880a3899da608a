/**
 * The main demo as a program: arguments, files, exit codes, and one line for what went wrong.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { PNG } from "pngjs";
import { afterAll, describe, expect, it } from "vitest";
import { type ClipSpec, writeClip } from "./clips.ts";
import { naiveEdgeFilter } from "./naive-edge-filter.ts";

const PROGRAM = fileURLToPath(new URL("../../build/examples/pipeline.js", import.meta.url));

const dir = mkdtempSync(join(tmpdir(), "pipeline-cli-"));
afterAll(() => rmSync(dir, { recursive: true }));

const at = (name: string): string => join(dir, name);

function run(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [PROGRAM, ...args], { encoding: "utf8", cwd: dir });
}

function clip(name: string, spec: Partial<ClipSpec>): string {
  writeClip(at(name), { width: 16, height: 16, count: 2, ...spec });
  return at(name);
}

function text(name: string, content: string): string {
  writeFileSync(at(name), content);
  return at(name);
}

describe("pipeline program", () => {
  it("--help explains and succeeds", () => {
    const { status, stdout, stderr } = run("--help");
    expect([status, stderr]).toEqual([0, ""]);
    for (const word of ["--frames", "--out", "camera", "display", "Exit code"]) {
      expect(stdout).toContain(word);
    }
  });

  it("runs a clip that nobody has seen, end to end, without a bar in a pipe", () => {
    const pictures = writeClip(at("own.y4m"), { width: 50, height: 34, count: 3 });
    const { status, stdout, stderr } = run(at("own.y4m"), "--out", at("own"));
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(/^3 frames of 50 x 34 /);
    expect(stdout).not.toContain("\u001b");
    expect(stdout).toContain("bytesCopied 0");

    const { data } = PNG.sync.read(readFileSync(join(at("own"), "last-frame.png")));
    const pixels = naiveEdgeFilter(pictures[2] as Uint8Array, 50, 34);
    const rgb = (at: number): number[] => [0, 1, 2].map((i) => pixels[4 * at + 2 - i] as number);
    const expected = Array.from({ length: 50 * 34 }, (_, i) => [...rgb(i), 255]);
    expect(Buffer.compare(data, Buffer.from(expected.flat()))).toBe(0);
    expect(PNG.sync.read(readFileSync(join(at("own"), "page-map.png"))).height).toBeGreaterThan(
      400,
    );
  });

  it("--frames limits, and the picture is that frame", () => {
    const { status, stdout } = run(clip("two.y4m", {}), "--frames", "1", "--out", at("two"));
    expect(status).toBe(0);
    expect(stdout).toMatch(/^1 frame of 16 x 16 /);
  });

  it.each<[string, RegExp, () => string[]]>([
    ["a missing file", /there is no such file/, () => [at("missing.y4m")]],
    ["a directory", /it is a directory/, () => [dir]],
    ["an empty file", /no Y4M file/, () => [text("empty", "")]],
    ["a file of another kind", /no Y4M file/, () => [text("kind.y4m", "RIFF and so on\n")]],
    ["bytes without a line", /no Y4M file/, () => [text("bytes.y4m", "x".repeat(5000))]],
    ["no width", /no width/, () => [text("width.y4m", "YUV4MPEG2 H16 C420\n")]],
    ["a width of 0", /no width/, () => [text("zero.y4m", "YUV4MPEG2 W0 H16 C420\n")]],
    ["an odd width", /even width/, () => [clip("odd-w.y4m", { width: 15, count: 0 })]],
    ["an odd height", /even width/, () => [clip("odd-h.y4m", { height: 15, count: 0 })]],
    [
      "too many pixels",
      /more than/,
      () => [clip("huge.y4m", { width: 99998, height: 99998, count: 0 })],
    ],
    ["another colour space", /C444/, () => [clip("444.y4m", { tags: " C444" })]],
    ["deep colours", /C420p10/, () => [clip("p10.y4m", { tags: " C420p10" })]],
    ["no picture", /no picture/, () => [clip("none.y4m", { count: 0 })]],
    ["a truncated picture", /picture 1 is truncated/, () => [clip("cut.y4m", { cutBytes: 1 })]],
    ["a truncated FRAME line", /FRAME line/, () => [clip("line.y4m", { cutBytes: 386 })]],
    ["another line for FRAME", /FRAME line/, () => [clip("fr.y4m", { frameLine: "FRAMES" })]],
    ["two clips", /2 clips/, () => ["a", "b"]],
    ["no number of frames", /--frames/, () => ["--frames", "many"]],
    ["an unknown option", /--faster/, () => ["--faster"]],
    ["no folder to write to", /ENOTDIR/, () => [clip("out.y4m", {}), "--out", at("out.y4m/x")]],
  ])("%s is one line on stderr and exit code 1", (_, message, args) => {
    const { status, stdout, stderr } = run(...args());
    expect(stderr).toMatch(/^pipeline: [^\n]+\n$/);
    expect(stderr).toMatch(message);
    expect([status, stdout]).toEqual([1, ""]);
  });
});
