/**
 * Module: somebody's code, with a name and a licence, that uses the framework and owns buffers.
 *
 *     loadModule() ─► loaded ──unload()──► gone
 *                       └─ each live buffer that it exported holds it there: EBUSY
 *
 * - MO1  A module is bound when it is loaded: it gets every symbol that it uses, or it is not
 *        loaded.
 * - MO2  A module that is gone cannot be taken again: an export that names it as owner is ENOENT.
 *
 * This teaches how Linux keeps count, and how its licence rule works. It says nothing about what
 * any licence allows.
 *
 * Compare kernel/module/main.c and `try_module_get()` in the kernel.
 *
 * @module
 */

import type { ExportOwner } from "../dma-buf/ops.ts";
import { fail } from "../errors.ts";
import { countOf } from "../units.ts";
import type { FrameworkSymbols } from "./framework-symbols.ts";

/** The name of a symbol of the framework. */
export type SymbolName = keyof FrameworkSymbols;

/** What a module is loaded with. */
export interface ModuleInfo<Name extends SymbolName = SymbolName> {
  readonly name: string;
  /** As MODULE_LICENSE(): "GPL", "Dual MIT/GPL", "Proprietary", … */
  readonly license: string;
  /** The symbols that its code calls. */
  readonly uses: readonly Name[];
  /** The namespaces that it imports: MODULE_IMPORT_NS(). Default: none. */
  readonly imports?: readonly string[] | undefined;
}

/** The licences that Linux takes as compatible with its own (include/linux/license.h). */
const gplCompatible: ReadonlySet<string> = new Set([
  "GPL",
  "GPL v2",
  "GPL and additional rights",
  "Dual BSD/GPL",
  "Dual MIT/GPL",
  "Dual MPL/GPL",
]);

/** Whether Linux counts a licence as compatible with its own. */
export function isGplCompatible(license: string): boolean {
  return gplCompatible.has(license);
}

/** A module that is loaded. Made by `system.loadModule()`. */
export class Module<Name extends SymbolName = SymbolName> implements ExportOwner {
  readonly name: string;
  readonly license: string;
  /** The symbols that it is bound to, ready to be called (MO1). */
  readonly symbols: Pick<FrameworkSymbols, Name>;
  readonly #onUnloaded: () => void;
  #refCount = 0;
  #isLoaded = true;

  /** @internal `bind` gives the module its symbols. */
  constructor(
    { name, license }: ModuleInfo<Name>,
    bind: (module: Module<Name>) => Pick<FrameworkSymbols, Name>,
    onUnloaded: () => void,
  ) {
    this.name = name;
    this.license = license;
    this.#onUnloaded = onUnloaded;
    this.symbols = bind(this);
  }

  get isLoaded(): boolean {
    return this.#isLoaded;
  }

  /** Uses that keep it loaded. */
  get refCount(): number {
    return this.#refCount;
  }

  /** Takes a use: false once it is unloaded (MO2). The kernel's try_module_get(). */
  tryGet(): boolean {
    if (!this.#isLoaded) return false;
    this.#refCount += 1;
    return true;
  }

  /** Gives a use back. EINVAL: there is none. The kernel's module_put(). */
  put(): void {
    if (this.#refCount === 0) fail("EINVAL", `put module ${this.name}`, "nobody uses it");
    this.#refCount -= 1;
  }

  /** Unloads it; its name is free again. EBUSY: it is in use; ENOENT: it was unloaded before. */
  unload(): void {
    const operation = `unload module ${this.name}`;
    if (!this.#isLoaded) fail("ENOENT", operation, "it was unloaded before");
    if (this.#refCount > 0)
      fail(
        "EBUSY",
        operation,
        `it has ${countOf(this.#refCount, "use")} left, such as buffers it exported`,
      );
    this.#isLoaded = false;
    this.#onUnloaded();
  }

  [Symbol.dispose](): void {
    if (this.#isLoaded) this.unload();
  }
}
