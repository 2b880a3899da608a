/**
 * Fields: one golden record, read by name; what is missing or of another type is a clear error.
 *
 * @module
 */

/** A record that does not have what its kind promises. */
export class MalformedRecord extends Error {
  override readonly name = "MalformedRecord";
}

/** A record as it stands in its file. */
export type GoldenRecord = Readonly<Record<string, unknown>>;

/** Read access to a record. Every getter throws {@link MalformedRecord}. */
export class Fields {
  readonly #record: GoldenRecord;

  constructor(record: GoldenRecord) {
    this.#record = record;
  }

  /** The record's kind. */
  get kind(): string {
    return this.text("k");
  }

  has(name: string): boolean {
    return name in this.#record;
  }

  number(name: string): number {
    const value = this.#record[name];
    return typeof value === "number" ? value : this.#refuse(name, "a number");
  }

  boolean(name: string): boolean {
    const value = this.#record[name];
    return typeof value === "boolean" ? value : this.#refuse(name, "true or false");
  }

  text(name: string): string {
    const value = this.#record[name];
    return typeof value === "string" ? value : this.#refuse(name, "a string");
  }

  /** A number of up to 64 bits, which the files keep as a string. */
  wide(name: string): bigint {
    const text = this.text(name);
    return /^\d+$/.test(text) ? BigInt(text) : this.#refuse(name, "a string of digits");
  }

  /** A number of any size and sign: up to 53 bits as it is, a longer one as a string. */
  integer(name: string): bigint {
    const text = String(this.#record[name]);
    return /^-?\d+$/.test(text) ? BigInt(text) : this.#refuse(name, "a whole number");
  }

  /** A list of lists of numbers: operations, queries, segments. */
  rows(name: string): readonly (readonly number[])[] {
    const value = this.#record[name];
    const isRow = (row: unknown) => Array.isArray(row) && row.every((n) => typeof n === "number");
    return Array.isArray(value) && value.every(isRow)
      ? value
      : this.#refuse(name, "a list of lists of numbers");
  }

  /** A list of anything: steps, nodes, trees. */
  list(name: string): readonly unknown[] {
    const value = this.#record[name];
    return Array.isArray(value) ? value : this.#refuse(name, "a list");
  }

  /** The field as it is: a recorded result that is only compared. */
  recorded(name: string): unknown {
    return this.has(name) ? this.#record[name] : this.#refuse(name, "there");
  }

  #refuse(name: string, wanted: string): never {
    const kind = String(this.#record.k);
    throw new MalformedRecord(`the field "${name}" of the ${kind} record must be ${wanted}`);
  }
}

/** Number `index` of a row. */
export function cell(row: readonly number[], index: number): number {
  const value = row[index];
  if (value !== undefined) return value;
  throw new MalformedRecord(`the row [${row.join(",")}] has no element ${index}`);
}
