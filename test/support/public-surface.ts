/**
 * The public functions and methods of the built package: what its entry points export, walked at
 * run time, and what the declarations say of each.
 *
 * @module
 */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** The package's entry points. */
export const entryPoints = [
  "dmabuf",
  "dmabuf/core",
  "dmabuf/inspect",
  "dmabuf/uapi",
  "dmabuf/adapters",
];

/** A function, or a method of the class that declares it. */
export interface PublicFunction {
  /** `negotiate()`, `System.heap()`, `Stacks.of() static`. */
  readonly name: string;
  readonly takesArguments: boolean;
}

/** What a declaration says of a member. */
interface Member {
  readonly isPublic: boolean;
  readonly takesArguments: boolean;
}

const dist = new URL("../../dist", import.meta.url).pathname;

function declarations(folder = dist): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return declarations(path);
    return entry.name.endsWith(".d.ts") ? [readFileSync(path, "utf8")] : [];
  });
}

/** The members of every class, by `Class.member`, and functions by their name. */
function declared(): Map<string, Member> {
  const found = new Map<string, Member>();
  for (const text of declarations()) {
    let owner = "";
    let isInternal = false;
    let comment = "";
    for (const line of text.split("\n")) {
      const head = /^(?:export )?declare (?:abstract )?class (\w+)/.exec(line);
      if (head !== null) owner = `${head[1]}.`;
      if (line === "}") owner = "";
      if (/^\s*\/\*\*/.test(line)) comment = "";
      if (/^\s*(\/?\*)/.test(line)) {
        comment += line;
        isInternal = comment.includes("@internal");
        continue;
      }
      const member =
        /^ {4}(?:static |abstract |protected )*(\w+|\[Symbol\.\w+\])(?:<[^(]*>)?\((\)?)/.exec(
          line,
        ) ?? /^export declare function (\w+)(?:<[^(]*>)?\((\)?)/.exec(line);
      if (member !== null)
        found.set(`${owner}${member[1]}`, {
          isPublic: !isInternal && !/^ {4}.*\bprotected /.test(line),
          takesArguments: member[2] === "",
        });
      isInternal = false;
      comment = "";
    }
  }
  return found;
}

/** A class of the package, however it is made. */
export type Class = (abstract new (...args: never[]) => unknown) & { readonly name: string };

const isClass = (value: unknown): value is Class =>
  typeof value === "function" && /^class\b/.test(Function.prototype.toString.call(value));

/** A class and those that it extends, as far as they are the package's own. */
export function lineage(one: Class): Class[] {
  const parent: unknown = Object.getPrototypeOf(one);
  return [one, ...(isClass(parent) ? lineage(parent) : [])];
}

/** Node 20 has a symbol of its own for what later versions call Symbol.dispose. */
const nameOf = (key: string | symbol): string =>
  typeof key === "symbol" ? `[${key.description?.replace("nodejs.", "Symbol.")}]` : key;

/** The methods that a class declares itself. */
function methodNames({ prototype }: { readonly prototype: object }): string[] {
  return Reflect.ownKeys(prototype)
    .filter((key) => key !== "constructor")
    .filter((key) => typeof Object.getOwnPropertyDescriptor(prototype, key)?.value === "function")
    .map(nameOf);
}

/** Every public function and method; what a declaration marks as internal is none. */
export async function publicSurface(): Promise<PublicFunction[]> {
  const members = declared();
  const names = new Set<string>();
  for (const entry of entryPoints) {
    for (const [name, value] of Object.entries((await import(entry)) as object)) {
      if (isClass(value))
        for (const one of lineage(value)) {
          names.add(`${one.name}.constructor`);
          for (const method of methodNames(one as never)) names.add(`${one.name}.${method}`);
          for (const key of Object.getOwnPropertyNames(one))
            if (typeof (one as never)[key] === "function" && key !== "prototype")
              names.add(`${one.name}.${key}`);
        }
      else if (typeof value === "function") names.add(name);
    }
  }
  return [...names].flatMap((name) => {
    const member = members.get(name);
    if (member !== undefined)
      return member.isPublic ? [{ name, takesArguments: member.takesArguments }] : [];
    if (name.endsWith(".constructor")) return []; // the inherited one
    throw new Error(`no declaration of ${name} is found`);
  });
}
