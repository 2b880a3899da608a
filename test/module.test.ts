import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { withMemoryKind } from "../src/core/memory-kind.ts";
import { coreModuleBase64 } from "../src/core/module.generated.ts";
import { inlinedModule } from "../src/core/module.ts";

const file = (name: string): Uint8Array => readFileSync(new URL(`../${name}`, import.meta.url));
const release = file("build/core.release.wasm");
const sources = new URL("../assembly/", import.meta.url);

/** The sections of a module: id, and where the contents begin and end. */
function sections(bytes: Uint8Array): { id: number; start: number; end: number }[] {
  const found = [];
  for (let at = 8; at < bytes.length; ) {
    const id = bytes[at++] as number;
    const [size, start] = leb(bytes, at);
    found.push({ id, start, end: start + size });
    at = start + size;
  }
  return found;
}

function leb(bytes: Uint8Array, at: number): [value: number, next: number] {
  let value = 0;
  for (let scale = 1; ; scale *= 128) {
    const byte = bytes[at++] as number;
    value += (byte % 128) * scale;
    if (byte < 128) return [value, at];
  }
}

const [START, DATA, GLOBAL, IMPORT] = [8, 11, 6, 2] as const;

describe("the release core", () => {
  test("has no data segment and no start function", () => {
    const ids = sections(release).map(({ id }) => id);
    expect(ids).not.toContain(DATA);
    expect(ids).not.toContain(START);
  });

  test("has no mutable global, so that instances on one memory share everything", () => {
    const section = sections(release).find(({ id }) => id === GLOBAL);
    if (section === undefined) return;
    let [count, at] = leb(release, section.start);
    for (; count > 0; count--) {
      expect(release[at + 1]).toBe(0); // the mutability flag behind the type
      while (release[at] !== 0x0b) at++; // the end of the initial value
      at++;
    }
  });

  test("imports a memory and the thread's index, and nothing else", () => {
    const imports = WebAssembly.Module.imports(
      new WebAssembly.Module(withMemoryKind(release, true)),
    );
    expect(imports.map(({ module, name, kind }) => `${module}.${name}: ${kind}`).sort()).toEqual([
      "env.memory: memory",
      "env.thread: global",
    ]);
    expect(sections(release).some(({ id }) => id === IMPORT)).toBe(true);
  });

  test("stays below 111 KiB", () => {
    expect(release.length).toBeLessThan(111 * 1024);
  });

  test("has each function whose name ends in Slow, inlined nowhere", () => {
    const text = readdirSync(sources).map((name) => readFileSync(new URL(name, sources), "utf8"));
    const slow = [...text.join("").matchAll(/function (\w+Slow)\(/g)].map(([, name = ""]) => name);
    expect(slow).toContain("lockSlow");
    const kept = Buffer.from(file("build/core.release.wat")).toString();
    expect(slow.filter((name) => !new RegExp(`func .*/${name}\\b`).test(kept))).toEqual([]);
  });

  test("is the one inlined in the package, and the files differ from it in one bit", () => {
    expect(Buffer.from(coreModuleBase64, "base64").equals(Buffer.from(release))).toBe(true);
    const [unshared, shared] = [file("dist/core.wasm"), file("dist/core-shared.wasm")];
    const differing = [...shared].filter((byte, i) => byte !== unshared[i]);
    expect(differing).toHaveLength(1);
    expect(inlinedModule(true)).toBeInstanceOf(WebAssembly.Module);
  });

  test("withMemoryKind() goes both ways and refuses what is no core", () => {
    expect(withMemoryKind(withMemoryKind(release, false), true)).toEqual(
      withMemoryKind(release, true),
    );
    expect(() => withMemoryKind(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0), true)).toThrow(
      /imports no memory/,
    );
  });
});
