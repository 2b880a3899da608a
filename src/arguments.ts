/**
 * What arguments must be, beyond their TypeScript types: callers may be JavaScript.
 *
 * - AR1  What is no argument is EINVAL before anything has changed, never a TypeError from inside.
 *
 * @module
 */

import { fail, nameOf } from "./errors.ts";

/** Throws EINVAL unless `value` is an object: options, a file, a callback's receiver. */
export function requireObject(value: unknown, name: string, operation: string): void {
  if (typeof value === "object" ? value !== null : typeof value === "function") return;
  fail("EINVAL", operation, `${name} must be an object, and ${isOrAre(name)} ${nameOf(value)}`);
}

/** Throws EINVAL unless `value` is a function: a callback. */
export function requireFunction(value: unknown, name: string, operation: string): void {
  if (typeof value === "function") return;
  fail("EINVAL", operation, `${name} must be a function, and ${isOrAre(name)} ${nameOf(value)}`);
}

/** Throws EINVAL unless `value` is a list, as an array or typed array is. */
export function requireList(value: unknown, name: string, operation: string): void {
  if (Array.isArray(value) || ArrayBuffer.isView(value)) return;
  fail("EINVAL", operation, `${name} must be a list, and ${isOrAre(name)} ${nameOf(value)}`);
}

/** Throws EINVAL unless `value` is a list of objects. */
export function requireObjects(value: unknown, name: string, operation: string): void {
  requireList(value, name, operation);
  for (const one of value as readonly unknown[]) requireObject(one, `each of ${name}`, operation);
}

/** Throws EINVAL unless `value` is an object with these methods. */
export function requireMethods(
  value: unknown,
  methods: readonly string[],
  name: string,
  operation: string,
): void {
  requireObject(value, name, operation);
  for (const method of methods)
    if (typeof (value as Record<string, unknown>)[method] !== "function")
      fail("EINVAL", operation, `${name} must have ${method}()`);
}

/** Throws EINVAL unless `value` is a list of views of bytes. */
export function requireViews(value: unknown, operation: string): void {
  requireList(value, "the views", operation);
  for (const one of value as readonly unknown[]) requireBytes(one, "each of the views", operation);
}

/** Throws EINVAL unless `value` is bytes. */
export function requireBytes(value: unknown, name: string, operation: string): void {
  if (value instanceof Uint8Array) return;
  fail("EINVAL", operation, `${name} must be a Uint8Array, and ${isOrAre(name)} ${nameOf(value)}`);
}

/** Throws EINVAL unless `value` is a text. */
export function requireText(value: unknown, name: string, operation: string): void {
  if (typeof value === "string") return;
  fail("EINVAL", operation, `${name} must be a text, and ${isOrAre(name)} ${nameOf(value)}`);
}

/** Throws EINVAL unless `value` was made by `type`. */
export function requireInstance(
  value: unknown,
  type: abstract new (...args: never[]) => unknown,
  name: string,
  operation: string,
): void {
  if (value instanceof type) return;
  fail(
    "EINVAL",
    operation,
    `${name} must be a ${type.name}, and ${isOrAre(name)} ${nameOf(value)}`,
  );
}

function isOrAre(name: string): string {
  return name.endsWith("s") ? "are" : "is";
}

/** Whether `record` has a property of this name, which may be anything. */
export function hasKey<T extends object>(record: T, key: unknown): key is keyof T {
  return typeof key === "string" && Object.hasOwn(record, key);
}
