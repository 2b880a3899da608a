import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test, vi } from "vitest";

const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");

/**
 * Runs a program of the README: what it exports beside, what it printed last, and what it says that
 * it prints.
 */
async function run(heading: string, names: string) {
  const code = program(heading);
  const file = new URL("./readme-example.generated.ts", import.meta.url);
  writeFileSync(file, `${code}\nexport { ${names} };\n`);
  const log = vi.spyOn(console, "log").mockImplementation(() => {});
  try {
    const exported = await import(`${file.href}?${names}`);
    const printed = log.mock.calls.at(-1)?.join(" ");
    return { code, exported, printed, said: /console\.log\(.*\); \/\/ (.*)/.exec(code)?.[1] };
  } finally {
    log.mockRestore();
    rmSync(file);
  }
}

/** The program between ```ts and ``` behind a heading. */
function program(heading: string): string {
  const section = readme.slice(readme.indexOf(`## ${heading}`));
  return /```ts\n([\s\S]*?)```/.exec(section)?.[1] ?? "";
}

describe("README.md", () => {
  test("the fifteen lines run, and print what they say", async () => {
    const { code, exported, printed, said } = await run("Fifteen lines", "camera, system");
    expect(code.split("\n").filter((line) => line.trim() !== "").length).toBeLessThanOrEqual(16);
    expect(printed).toBe(said);
    const { camera, system } = exported;
    expect(() => camera.dma.read(0, new Uint8Array(1))).toThrow(/no memory at 0x0 is mapped/);
    expect(system.check(true)).toBeNull();
  });

  test("the program that makes system calls runs, and prints what it says", async () => {
    const { exported, printed, said } = await run("As a program sees it", "buf, program");
    expect(printed).toBe(said?.replaceAll('"', ""));
    const { buf, program: process } = exported;
    expect(buf.mmap().bytes.subarray(0, 3)).toEqual(new TextEncoder().encode("one"));
    expect(process.system.check(true)).toBeNull();
  });

  test("the program that asks who holds a frame runs, and prints what it says", async () => {
    const { exported, printed, said } = await run("Who holds frame 7", "frame, holders, system");
    expect(printed).toBe(said);
    const { frame, holders, system } = exported;
    const kinds = ["fd descriptor 0", "attachment gpu", "mapping gpu bidirectional"];
    expect([holders, frame.isRevoked, system.check(true)]).toEqual([kinds, true, null]);
  });

  test("the program that watches a device runs, and prints what it says", async () => {
    const { exported, printed, said } = await run("What a device did", "domain, nic, system");
    expect(printed).toBe(said);
    const { domain, nic, system } = exported;
    expect([nic.group.domain === domain, domain.unhandledFaultCount]).toEqual([true, 0]);
    expect(system.check(true)).toBeNull();
  });

  test("the program with an IOMMU of its own runs, and prints what it says", async () => {
    const { exported, printed, said } = await run("An IOMMU of your own", "dsp, system, table");
    expect(printed).toBe(said);
    const { dsp, system, table } = exported;
    expect([dsp.dma.faultCount, system.check(true)]).toEqual([1, null]);
    expect(table.size).toBe(256);
  });

  test("the program that asks who fits runs, and prints what it says", async () => {
    const { exported, printed, said } = await run("Who fits, and who pays", "refusal, system, tab");
    expect(printed).toBe(said);
    const { refusal, system, tab } = exported;
    expect(refusal.conflicts).toMatchObject([{ field: "maxSegments", devices: ["panel"] }]);
    expect(() => system.heap("auto").alloc(2 ** 20 + 1, { owner: tab })).toThrow(/tab 3 may hold/);
    expect(system.check(true)).toBeNull();
  });

  test("the program with a Wasm filter runs, and prints what it says", async () => {
    const { exported, printed, said } = await run("A Wasm filter", "frame, own, system");
    expect(printed).toBe(said);
    const { frame, own, system } = exported;
    expect(frame.bytes.every((byte: number) => byte === 255)).toBe(true);
    expect(own.bytes.byteOffset).toBe(0x800000);
    const busy = expect.objectContaining({ code: "EBUSY" });
    expect(() => system.frames.allocAt(own.pfn, own.frameCount)).toThrow(busy);
    expect(system.check(true)).toBeNull();
  });

  test("the program on two threads runs, and prints what it says", () => {
    const section = readme.slice(readme.indexOf("## Threads"), readme.indexOf("## As a program"));
    const folder = fileURLToPath(new URL("../build/readme-threads/", import.meta.url));
    mkdirSync(folder, { recursive: true });
    try {
      const files = [...section.matchAll(/```js\n\/\/ (\w+\.mjs)\n([\s\S]*?)```/g)];
      expect(files.map(([, name]) => name)).toEqual(["main.mjs", "encoder.mjs"]);
      for (const [, name, code] of files) writeFileSync(`${folder}${name}`, code as string);
      const printed = execFileSync(process.execPath, [`${folder}main.mjs`], { encoding: "utf8" });
      expect(printed.trim()).toBe(/console\.log\(.*\); \/\/ (.*)/.exec(section)?.[1]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("the two commands are scripts, and every file it links to exists", () => {
    const { scripts } = JSON.parse(
      readFileSync(new URL("../package.json", import.meta.url), "utf8"),
    );
    for (const [, name] of readme.matchAll(
      /npm (?:run )?(start|test|[a-z]+:[a-z]+|check|format|bench)\b/g,
    )) {
      expect(scripts[name as string], name).toBeDefined();
    }
    for (const [, path] of readme.matchAll(/\]\(([^)#]+)\)/g)) {
      expect(() => readFileSync(new URL(`../${path}`, import.meta.url)), path).not.toThrow();
    }
  });
});
