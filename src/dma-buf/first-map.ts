/**
 * FirstMap: a map that mostly holds one entry, and that one without hashing its key.
 *
 * A hash of a new object costs as much as mapping a buffer does: who adds and removes one object in
 * turn pays for none.
 *
 * - FM1  The entry with a place of its own is in no order with the others.
 *
 * @module
 */

/** A map from objects. */
export class FirstMap<Key extends object, Value> {
  #key: Key | null = null;
  #value: Value | undefined;
  #more: Map<Key, Value> | null = null;

  get size(): number {
    return (this.#key === null ? 0 : 1) + (this.#more?.size ?? 0);
  }

  has(key: Key): boolean {
    if (key === null) return false; // what #key is while it is free
    return key === this.#key || (this.#more?.has(key) ?? false);
  }

  get(key: Key): Value | undefined {
    if (key === null) return undefined;
    return key === this.#key ? this.#value : this.#more?.get(key);
  }

  set(key: Key, value: Value): void {
    if (this.#key === null && !this.#more?.has(key)) this.#key = key;
    if (key === this.#key) {
      this.#value = value;
      return;
    }
    this.#more ??= new Map();
    this.#more.set(key, value);
  }

  delete(key: Key): void {
    if (key !== this.#key) this.#more?.delete(key);
    else if (key !== null) {
      this.#key = null;
      this.#value = undefined;
    }
  }

  /** All entries (FM1). */
  *[Symbol.iterator](): Generator<[Key, Value]> {
    if (this.#key !== null) yield [this.#key, this.#value as Value];
    if (this.#more !== null) yield* this.#more;
  }
}
