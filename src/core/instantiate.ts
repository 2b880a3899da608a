/**
 * An instance of a core module on a memory, once it is known to be a core of this version.
 *
 * - AB1  No function of a core runs whose ABI_VERSION is not the one that this library was written
 *        for: its calls and the layout of its memory may be others.
 *
 * @module
 */

import { instantiateSync } from "@assemblyscript/loader";
import { fail, requireInteger } from "../errors.ts";
import type { CoreShare } from "./core.ts";
import type { CoreExports } from "./exports.ts";

/** `ABI_VERSION` of assembly/layout.ts. */
const ABI_VERSION = 1;

const operation = "load the core";

/** An invariant's number as the id in its file's head: 6602 is "B2". */
export function invariantName(number: number): string {
  requireInteger(number, "the number", 0, 2 ** 32 - 1, "name an invariant");
  return `${String.fromCharCode(Math.floor(number / 100))}${number % 100}`;
}

function panic(invariant: number, detail: number): void {
  throw new Error(
    `The core broke its invariant ${invariantName(invariant >>> 0)} (detail ${detail >>> 0})`,
  );
}

/** EINVAL: the module is no core, one of another version (AB1), or for the other kind of memory. */
export function instantiate(share: CoreShare, thread: number): CoreExports {
  const constants = WebAssembly.Module.exports(share.module);
  if (!constants.some(({ name, kind }) => name === "ABI_VERSION" && kind === "global"))
    fail("EINVAL", operation, "the module is no core of dmabuf");
  const exports = instanceOf(share, thread);
  const { value } = exports.ABI_VERSION;
  if (value === ABI_VERSION) return exports;
  const versions = `it is of version ${value}, and version ${ABI_VERSION} is needed`;
  return fail("EINVAL", operation, `${versions}; take the file of this package`);
}

function instanceOf(share: CoreShare, thread: number): CoreExports {
  const env = { memory: share.memory, thread, panic };
  try {
    return instantiateSync(share.module, { env }).instance.exports as CoreExports;
  } catch (cause) {
    if (cause instanceof TypeError)
      fail("EINVAL", operation, `the module is no core of dmabuf (${cause.message})`);
    if (!(cause instanceof WebAssembly.LinkError)) throw cause;
    const isShared = !(share.memory.buffer instanceof ArrayBuffer);
    const file = isShared ? "core-shared.wasm" : "core.wasm";
    return fail(
      "EINVAL",
      operation,
      `this memory needs the module dmabuf/${file} (${cause.message})`,
    );
  }
}
