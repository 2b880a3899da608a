/**
 * The compiled core: the copy that travels inside the package, or one that the user brings.
 *
 * @module
 */

import { fail, nameOf } from "../errors.ts";
import { withMemoryKind } from "./memory-kind.ts";
import { coreModuleBase64 } from "./module.generated.ts";

/** A core that is there: compiled, or as bytes. */
type ReadyCore = WebAssembly.Module | Uint8Array | ArrayBuffer;

/**
 * A core brought by the user: compiled, as bytes, as what `fetch` returns for `dmabuf/core.wasm`,
 * or a promise of one of these.
 */
export type CoreSource = ReadyCore | Response | PromiseLike<ReadyCore | Response>;

const operation = "load the core";

const compiled = new Map<boolean, WebAssembly.Module>();

function decodeBase64(text: string): Uint8Array {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < characters.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

/** The package's own core for shared or unshared memory, compiled once. */
export function inlinedModule(isShared: boolean): WebAssembly.Module {
  let module = compiled.get(isShared);
  if (module === undefined) {
    module = new WebAssembly.Module(withMemoryKind(decodeBase64(coreModuleBase64), isShared));
    compiled.set(isShared, module);
  }
  return module;
}

/** A core module from bytes, which may be of either kind. EINVAL: they are none. */
function moduleOfBytes(bytes: Uint8Array, isShared: boolean): WebAssembly.Module {
  if (bytes[0] === 0x3c)
    fail(
      "EINVAL",
      operation,
      "the bytes are a page of HTML; the server did not find the .wasm file",
    );
  try {
    return new WebAssembly.Module(withMemoryKind(bytes, isShared));
  } catch (cause) {
    return fail("EINVAL", operation, `the bytes are no core of dmabuf (${String(cause)})`);
  }
}

/** The module of what needs no waiting, or the package's own. EINVAL: it is none. */
export function readyModule(source: unknown, isShared: boolean): WebAssembly.Module {
  if (source === undefined) return inlinedModule(isShared);
  if (source instanceof WebAssembly.Module) return source;
  if (source instanceof Uint8Array) return moduleOfBytes(source, isShared);
  if (source instanceof ArrayBuffer) return moduleOfBytes(new Uint8Array(source), isShared);
  if (isResponse(source) || hasMethod(source, "then"))
    return fail("EINVAL", operation, "a Response or promise can only be awaited; use open()");
  const what = nameOf(source);
  return fail(
    "EINVAL",
    operation,
    `wasm must be a module, its bytes or a Response, and is ${what}`,
  );
}

/** The same of what may have to be waited for. ENOENT: the server has no such file. */
export async function loadModule(
  source: CoreSource | undefined,
  isShared: boolean,
): Promise<WebAssembly.Module> {
  const given: unknown = await source;
  if (!isResponse(given)) return readyModule(given, isShared);
  if (!given.ok) fail("ENOENT", operation, `${given.url} answered ${given.status}`);
  return readyModule(await given.arrayBuffer(), isShared);
}

/** Whether it is one, perhaps of another window. */
function isResponse(source: unknown): source is Response {
  return hasMethod(source, "arrayBuffer");
}

function hasMethod(source: unknown, name: string): boolean {
  return typeof (source as Record<string, unknown> | null)?.[name] === "function";
}
