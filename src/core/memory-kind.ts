/**
 * One module for both kinds of memory: the shared and the unshared core differ in one bit of the
 * memory import.
 *
 * @module
 */

const IMPORT_SECTION = 2;
const FUNCTION_KIND = 0;
const MEMORY_KIND = 2;
const GLOBAL_KIND = 3;
const SHARED_BIT = 2;

/** Reads the numbers of a module one after the other. */
class Reader {
  at = 8; // behind magic and version
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  byte(): number {
    return this.bytes[this.at++] ?? 0;
  }

  /** An unsigned LEB128 number. */
  number(): number {
    let value = 0;
    let scale = 1;
    while (true) {
      const byte = this.byte();
      value += (byte % 128) * scale;
      if (byte < 128) return value;
      scale *= 128;
    }
  }

  skip(count: number): void {
    this.at += count;
  }
}

/** The offset of the limits byte of the imported memory. */
function memoryLimitsAt(bytes: Uint8Array): number {
  const reader = new Reader(bytes);
  while (reader.at < bytes.length) {
    const section = reader.byte();
    const sectionBytes = reader.number();
    if (section !== IMPORT_SECTION) {
      reader.skip(sectionBytes);
      continue;
    }
    for (let left = reader.number(); left > 0; left--) {
      reader.skip(reader.number()); // module
      reader.skip(reader.number()); // name
      const kind = reader.byte();
      if (kind === MEMORY_KIND) return reader.at;
      if (kind === FUNCTION_KIND) reader.number();
      else if (kind === GLOBAL_KIND) reader.skip(2);
      else throw new TypeError(`The module imports something of kind ${kind} before its memory`);
    }
  }
  throw new TypeError("The module imports no memory");
}

/** A copy of a core module for shared or unshared memory. */
export function withMemoryKind(bytes: Uint8Array, isShared: boolean): Uint8Array<ArrayBuffer> {
  const copy = Uint8Array.from(bytes);
  const at = memoryLimitsAt(copy);
  const flags = copy[at] ?? 0;
  const others = flags - (Math.floor(flags / SHARED_BIT) % 2) * SHARED_BIT;
  copy[at] = others + (isShared ? SHARED_BIT : 0);
  return copy;
}
