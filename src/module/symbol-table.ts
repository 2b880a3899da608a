/**
 * SymbolTable: which of the framework's symbols a module sees.
 *
 *     mark          policy "gpl-only", as Linux ships it      policy "any"
 *     gpl           GPL-compatible modules only               every module
 *     any           every module                              every module
 *
 * - SB1  A symbol that a module does not see is unknown to it: ENOENT, as if it were not there.
 * - SB2  A symbol of a namespace is bound only by a module that imports that (EINVAL).
 *
 * dma-buf's own functions have been exported to GPL-compatible modules only since Linux 3.3; a
 * patch of 2012 asked for "any", and was refused. Fences are open to every module. The rule is here
 * to be learned and tested with; it is no legal advice.
 *
 * Compare find_symbol() in the kernel's kernel/module/main.c.
 *
 * @module
 */

import { fail, textOf } from "../errors.ts";
import { bindSymbols, type FrameworkHost, type FrameworkSymbols } from "./framework-symbols.ts";
import { isGplCompatible, Module, type ModuleInfo, type SymbolName } from "./module.ts";
import { isSymbolName, markOf, symbolNames } from "./symbol-marks.ts";

/** Who sees symbols that are marked for GPL-compatible modules. */
export type SymbolPolicy = "gpl-only" | "any";

/** The modules of a system, and what they see. */
export class SymbolTable {
  readonly policy: SymbolPolicy;
  readonly #host: FrameworkHost;
  readonly #modules: Map<string, Module> = new Map();

  /** EINVAL: the policy. */
  constructor(host: FrameworkHost, policy: SymbolPolicy) {
    if (policy !== "gpl-only" && policy !== "any")
      fail(
        "EINVAL",
        "open a system",
        `symbolPolicy must be gpl-only or any, and is ${textOf(policy)}`,
      );
    this.#host = host;
    this.policy = policy;
  }

  /** Loaded modules, oldest first. */
  get modules(): readonly Module[] {
    return [...this.#modules.values()];
  }

  /** The symbols that a module of this licence sees. */
  visibleTo(license: string): SymbolName[] {
    return symbolNames.filter((name) => this.#sees(license, name));
  }

  /**
   * Loads a module. EINVAL: a name or licence is missing, a namespace is not imported; EEXIST: one
   * of this name is loaded; ENOENT: a symbol is unknown to it, and which.
   */
  load<Name extends SymbolName>(info: ModuleInfo<Name>): Module<Name> {
    for (const key of ["name", "license"] as const)
      if (typeof info?.[key] !== "string" || info[key] === "")
        fail("EINVAL", "load a module", `it has no ${key}`);
    const operation = `load module ${info.name}`;
    if (this.#modules.has(info.name)) fail("EEXIST", operation, "one of this name is loaded");
    if (!Array.isArray(info.uses)) fail("EINVAL", operation, "it does not list what it uses");
    for (const name of info.uses) this.#requireVisible(info, name, operation);
    const module = new Module<Name>(
      info,
      (self) => pick(bindSymbols(this.#host, self), info.uses),
      () => this.#modules.delete(info.name),
    );
    this.#modules.set(info.name, module as unknown as Module);
    return module;
  }

  #sees(license: string, name: SymbolName): boolean {
    return markOf(name).license === "any" || this.policy === "any" || isGplCompatible(license);
  }

  #requireVisible({ license, imports = [] }: ModuleInfo, name: string, operation: string): void {
    if (!isSymbolName(name))
      fail("ENOENT", operation, `unknown symbol ${name}: the framework has none`);
    if (!this.#sees(license, name))
      fail(
        "ENOENT",
        operation,
        `unknown symbol ${name}: only GPL-compatible modules see it, and its licence is ${license}`,
      );
    const { namespace } = markOf(name);
    if (namespace !== null && !imports.includes(namespace))
      fail(
        "EINVAL",
        operation,
        `it uses ${name} of namespace ${namespace}, and does not import it`,
      );
  }
}

function pick<Name extends SymbolName>(
  symbols: FrameworkSymbols,
  names: readonly Name[],
): Pick<FrameworkSymbols, Name> {
  const entries = names.map((name) => [name, symbols[name]] as const);
  return Object.fromEntries(entries) as Pick<FrameworkSymbols, Name>;
}
