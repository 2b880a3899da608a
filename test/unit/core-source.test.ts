import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { joinCore } from "../../src/core/core.ts";
import { type CoreSource, MiB, type OpenOptions, open, openSync } from "../../src/index.ts";
import { eachCore } from "../support/cores.ts";
import { expectError, expectRejection } from "../support/errors.ts";

const HEAD = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
const NAME = [...new TextEncoder().encode("ABI_VERSION")];

/** A module that imports a memory, and exports just a version. */
const ofVersion = (version: number): Uint8Array<ArrayBuffer> =>
  Uint8Array.of(
    ...HEAD,
    ...[2, 17, 1, 3, 0x65, 0x6e, 0x76, 6, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 2, 1, 1, 0x80, 0x08],
    ...[6, 6, 1, 0x7f, 0, 0x41, version, 0x0b],
    ...[7, 15, 1, 11, ...NAME, 3, 0],
  );

const memoryBytes = MiB;
const nobody = new WebAssembly.Module(Uint8Array.of(...HEAD));

const wrong: readonly (readonly [string, unknown, string])[] = [
  ["a module that exports nothing", nobody, "no core of dmabuf"],
  ["no module", new Uint8Array(10), "no core of dmabuf"],
  ["a module without a memory", Uint8Array.of(...HEAD), "no core of dmabuf"],
  ["no bytes at all", new ArrayBuffer(0), "no core of dmabuf"],
  ["a page of HTML", new TextEncoder().encode("<html>"), "HTML"],
  ["a number", 5, "and is 5"],
  ["null", null, "and is null"],
  ["a core of another version", ofVersion(2), "version 2, and version 1 is needed"],
];

describe("open({ wasm })", () => {
  test.each(wrong)("refuses %s", async (_, source, words) => {
    const wasm = source as CoreSource;
    const options: OpenOptions = { wasm, memoryBytes };
    expect(expectError("EINVAL", () => openSync(options))).toContain(words);
    expect(await expectRejection("EINVAL", open(options))).toContain(words);
    const later = Promise.resolve(wasm) as Promise<Response>;
    expect(await expectRejection("EINVAL", open({ ...options, wasm: later }))).toContain(words);
  });

  test("what must be awaited is not for openSync()", () => {
    for (const wasm of [new Response(), Promise.resolve(new Response())])
      expect(expectError("EINVAL", () => openSync({ wasm, memoryBytes }))).toContain("use open()");
  });

  test("a server without the file is ENOENT", async () => {
    const wasm = new Response("", { status: 404 });
    expect(await expectRejection("ENOENT", open({ wasm, memoryBytes }))).toContain("404");
  });

  test.each(["debug", "release"])("takes the %s core in every form", async (build) => {
    const bytes = readFileSync(new URL(`../../build/core.${build}.wasm`, import.meta.url));
    const copy = Uint8Array.from(bytes);
    const forms: CoreSource[] = [copy, copy.buffer, new Response(copy)];
    for (const shared of [false, true]) {
      const options = { memoryBytes, shared };
      for (const form of [...forms, Promise.resolve(copy), Promise.resolve(new Response(copy))]) {
        const wasm = form instanceof Response ? form.clone() : form;
        const system = await open({ ...options, wasm });
        expect(system.check()).toBeNull();
        system.close();
      }
      openSync({ ...options, wasm: copy.buffer }).close();
    }
    const compiled = eachCore.find(({ name }) => name === `${build}, unshared`)?.wasm;
    (await open({ memoryBytes, wasm: Promise.resolve(compiled as WebAssembly.Module) })).close();
  });

  test("a core of another version does not join", () => {
    const memory = new WebAssembly.Memory({ initial: 16, maximum: 16 });
    const module = new WebAssembly.Module(ofVersion(2));
    expect(expectError("EINVAL", () => joinCore({ memory, module }, 0))).toContain("version 2");
  });
});
