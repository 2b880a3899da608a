import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { describe, expect, test, vi } from "vitest";

const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");

/** The program between ```ts and ``` behind a heading. */
function program(heading: string): string {
  const section = readme.slice(readme.indexOf(`## ${heading}`));
  return /```ts\n([\s\S]*?)```/.exec(section)?.[1] ?? "";
}

describe("README.md", () => {
  test("the fifteen lines run, and print what they say", async () => {
    const code = program("Fifteen lines");
    expect(code.split("\n").filter((line) => line.trim() !== "").length).toBeLessThanOrEqual(16);
    const file = new URL("./readme-example.generated.ts", import.meta.url);
    writeFileSync(file, `${code}\nexport { camera, system };\n`);
    const log = vi.spyOn(console, "log").mockImplementation(() => {});
    try {
      const { camera, system } = await import(file.href);
      const expected = /console\.log\(.*\); \/\/ (.*)/.exec(code)?.[1];
      expect(log.mock.calls.at(-1)?.join(" ")).toBe(expected);
      expect(() => camera.dma.read(0, new Uint8Array(1))).toThrow(/nothing at 0x0 is mapped/);
      expect(system.check(true)).toBeNull();
    } finally {
      log.mockRestore();
      rmSync(file);
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
