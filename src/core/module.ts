/**
 * The compiled core: the copy that travels inside the package, or one that the user brings.
 *
 * @module
 */

import { fail } from "../errors.ts";
import { withMemoryKind } from "./memory-kind.ts";
import { coreModuleBase64 } from "./module.generated.ts";

/**
 * A core brought by the user: compiled, as bytes, or as what `fetch` returns for
 * `dmabuf/core.wasm`.
 */
export type CoreSource = WebAssembly.Module | Uint8Array | Response | PromiseLike<Response>;

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

/** A core module from bytes, which may be of either kind. */
export function moduleOfBytes(bytes: Uint8Array, isShared: boolean): WebAssembly.Module {
  if (bytes[0] === 0x3c)
    fail(
      "EINVAL",
      "load the core",
      "the bytes are a page of HTML; the server did not find the .wasm file",
    );
  return new WebAssembly.Module(withMemoryKind(bytes, isShared));
}

/** The module of what the user gave, or the package's own. */
export async function loadModule(
  source: CoreSource | undefined,
  isShared: boolean,
): Promise<WebAssembly.Module> {
  if (source === undefined) return inlinedModule(isShared);
  if (source instanceof WebAssembly.Module) return source;
  if (source instanceof Uint8Array) return moduleOfBytes(source, isShared);
  const response = await source;
  if (!response.ok) fail("ENOENT", "load the core", `${response.url} answered ${response.status}`);
  return moduleOfBytes(new Uint8Array(await response.arrayBuffer()), isShared);
}
