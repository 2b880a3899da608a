/**
 * Structs in the kernel's layout: little-endian fields one after the other, each at a multiple of
 * its size.
 *
 *     struct sync_merge_data    0 ┌─────────────────┐
 *                                 │ char name[32]   │
 *                              32 ├────────┬────────┤
 *                                 │ s32 fd2│ fence  │
 *                              40 ├────────┼────────┤
 *                                 │ flags  │ pad    │
 *                              48 └────────┴────────┘
 *
 * - SU1  A field lies at a multiple of its size without padding before it: the kernel's structs
 *        spell their padding out.
 *
 * @module
 */

import { hasKey, requireBytes, requireObject, requireText } from "../arguments.ts";
import { fail, nameOf, requireInteger, textOf } from "../errors.ts";

/** The type of a field: an integer of 32 or 64 bits, or 32 characters that end with a NUL. */
export type FieldType = "u32" | "s32" | "u64" | "char32";

/** What a field holds. */
export type FieldValue<T extends FieldType> = T extends "u64"
  ? bigint
  : T extends "char32"
    ? string
    : number;

/** Fields by name, in order. */
export type FieldTypes = Readonly<Record<string, FieldType>>;

/** The values of a struct. */
export type StructValues<F extends FieldTypes> = { [K in keyof F]: FieldValue<F[K]> };

const fieldBytes: Record<FieldType, number> = { u32: 4, s32: 4, u64: 8, char32: 32 };
const fieldAlignment: Record<FieldType, number> = { u32: 4, s32: 4, u64: 8, char32: 1 };

/** The layout of a struct. */
export class Struct<F extends FieldTypes> {
  /** The kernel's name of it. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Where each field begins, in bytes. */
  readonly offsets: Readonly<Record<keyof F, number>>;
  readonly #types: Readonly<Record<keyof F, FieldType>>;
  readonly #fields: readonly (keyof F)[];

  /** EINVAL: a field is not aligned (SU1). */
  constructor(name: string, fields: F) {
    requireText(name, "the name", "lay out a struct");
    requireObject(fields, "the fields", `lay out struct ${name}`);
    this.name = name;
    this.#types = fields;
    this.#fields = Object.keys(fields);
    const offsets: Partial<Record<keyof F, number>> = {};
    let offset = 0;
    for (const field of this.#fields) {
      const type = this.#types[field];
      if (!hasKey(fieldBytes, type))
        fail("EINVAL", `lay out struct ${name}`, `${String(field)} is of no type: ${textOf(type)}`);
      if (offset % fieldAlignment[type] !== 0)
        fail("EINVAL", `lay out struct ${name}`, `${String(field)} is not aligned`);
      offsets[field] = offset;
      offset += fieldBytes[type];
    }
    this.offsets = offsets as Record<keyof F, number>;
    this.sizeBytes = offset;
  }

  /** One value in `bytes`, which begin at `at`. */
  get<K extends keyof F>(bytes: Uint8Array, field: K, at = 0): FieldValue<F[K]> {
    this.#requirePlace(bytes, field, at, "read");
    const value = readField(bytes, at + this.offsets[field], this.#types[field]);
    return value as FieldValue<F[K]>;
  }

  /** Sets one value in `bytes`, which begin at `at`. */
  set<K extends keyof F>(bytes: Uint8Array, field: K, value: FieldValue<F[K]>, at = 0): void {
    this.#requirePlace(bytes, field, at, "write");
    requireValue(value, this.#types[field], `write ${String(field)} of struct ${this.name}`);
    writeField(bytes, at + this.offsets[field], this.#types[field], value);
  }

  /** EINVAL: no bytes, no such field, or no place. */
  #requirePlace(bytes: Uint8Array, field: keyof F, at: number, verb: string): void {
    const operation = `${verb} ${textOf(field)} of struct ${this.name}`;
    requireBytes(bytes, "the bytes", operation);
    if (!hasKey(this.offsets, field)) fail("EINVAL", operation, "it has no such field");
    requireInteger(at, "at", 0, Number.MAX_SAFE_INTEGER, operation);
  }

  /** All values in `bytes`, which begin at `at`. */
  decode(bytes: Uint8Array, at = 0): StructValues<F> {
    requireBytes(bytes, "the bytes", `decode a struct ${this.name}`);
    const values: Partial<StructValues<F>> = {};
    for (const field of this.#fields) values[field] = this.get(bytes, field, at);
    return values as StructValues<F>;
  }

  /** The bytes of the values; fields that are not given are 0. */
  encode(values: Partial<StructValues<F>>): Uint8Array<ArrayBuffer> {
    requireObject(values, "the values", `encode a struct ${this.name}`);
    const bytes = new Uint8Array(this.sizeBytes);
    for (const field of this.#fields) {
      const value = values[field];
      if (value !== undefined) this.set(bytes, field, value);
    }
    return bytes;
  }
}

/** Throws EINVAL for what a field of this type cannot hold. */
function requireValue(value: unknown, type: FieldType, operation: string): void {
  if (type === "char32") requireText(value, "the value", operation);
  else if (typeof value !== "bigint" && !Number.isInteger(value))
    fail("EINVAL", operation, `the value must be an integer, and is ${nameOf(value)}`);
}

const BYTE = 256;
const WORD = 2n ** 32n;

function readField(bytes: Uint8Array, at: number, type: FieldType): bigint | number | string {
  if (type === "char32") return readText(bytes.subarray(at, at + fieldBytes.char32));
  const word = readWord(bytes, at);
  if (type !== "u64") return type === "s32" ? word | 0 : word;
  const high = readWord(bytes, at + 4);
  return high === 0 ? BigInt(word) : BigInt(high) * WORD + BigInt(word);
}

function writeField(
  bytes: Uint8Array,
  at: number,
  type: FieldType,
  value: bigint | number | string,
): void {
  if (type === "char32") {
    bytes.set(new TextEncoder().encode(String(value)).subarray(0, fieldBytes.char32 - 1), at);
    return;
  }
  if (type !== "u64") {
    writeWord(bytes, at, Number(value) >>> 0);
    return;
  }
  const wide = BigInt.asUintN(64, BigInt(value));
  writeWord(bytes, at, Number(wide % WORD));
  writeWord(bytes, at + 4, Number(wide / WORD));
}

/** The 32 bits at `at`, unsigned. */
export function readWord(bytes: Uint8Array, at: number): number {
  let word = 0;
  for (let i = 3; i >= 0; i--) word = word * BYTE + (bytes[at + i] ?? 0);
  return word;
}

function writeWord(bytes: Uint8Array, at: number, word: number): void {
  for (let i = 0, rest = word; i < 4; i++, rest = Math.floor(rest / BYTE))
    bytes[at + i] = rest % BYTE;
}

/** The text before the first NUL, or all of it. */
export function readText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(Uint8Array.from(end < 0 ? bytes : bytes.subarray(0, end)));
}
