/**
 * A naive model of DMA mappings: byte by byte, with lists and loops.
 *
 *     device address ─► newest live mapping of the device whose segments hold it ─► position
 *                       position ─► a byte of the arena, of a bounced copy, or of uncached memory
 *
 * - DM1  A byte that a device reaches is the arena's, unless its entry was bounced (then the
 *        copy's) or its device sees no cache (then what is in memory, apart from what the CPU
 *        sees).
 * - DM2  Map copies in and cleans; unmap and syncForCpu copy back and invalidate unless the mapping
 *        or the sync is to-device; syncForDevice cleans, and copies in unless one is from-device.
 *
 * @module
 */

/** A run of bytes of the arena. */
export interface ModelEntry {
  /** The first byte's index in the arena. */
  readonly at: number;
  readonly length: number;
}

/** What the model knows of a device. */
export interface ModelDevice {
  readonly isSimulated: boolean;
  readonly isTranslated: boolean;
  /** Whether it takes an entry only as a copy. */
  bounces(entry: ModelEntry): boolean;
  /** Live mappings, newest first. */
  readonly mappings: ModelMapping[];
}

/** Directions by the kernel's numbers. */
export const directions = ["bidirectional", "to-device", "from-device"] as const;
type Direction = (typeof directions)[number];

const LINE = 8; // bytes that are cleaned together, at multiples of 8

/** A live mapping. */
export class ModelMapping {
  readonly direction: Direction;
  readonly device: ModelDevice;
  readonly lengthBytes: number;
  /** The segments that the library gave: device address and length, in order. */
  readonly segments: readonly { readonly address: number; readonly lengthBytes: number }[];
  readonly #arena: Uint8Array;
  readonly entries: readonly ModelEntry[];
  readonly #copies: (Uint8Array | null)[]; // by entry
  readonly #memory: Uint8Array; // by position, for a simulated cache
  readonly #seen: Uint8Array;

  constructor(
    arena: Uint8Array,
    device: ModelDevice,
    entries: readonly ModelEntry[],
    direction: Direction,
    segments: ModelMapping["segments"],
    skipsSync: boolean,
  ) {
    this.#arena = arena;
    this.device = device;
    this.entries = entries;
    this.direction = direction;
    this.segments = segments;
    this.lengthBytes = entries.reduce((sum, { length }) => sum + length, 0);
    this.#memory = new Uint8Array(this.lengthBytes);
    this.#seen = new Uint8Array(this.lengthBytes);
    this.#copies = entries.map((entry) =>
      device.bounces(entry) ? arena.slice(entry.at, entry.at + entry.length) : null,
    );
    if (!skipsSync) this.#clean(0, this.lengthBytes);
  }

  /** Whether the device may read, or write. A page table of stage 1 cannot forbid reading. */
  allows(access: "read" | "write"): boolean {
    if (this.device.isTranslated && access === "read") return true;
    return this.direction !== (access === "read" ? "from-device" : "to-device");
  }

  /** The position of a device address; -1 when no segment holds it. */
  positionOf(address: number): number {
    let before = 0;
    for (const segment of this.segments) {
      if (address >= segment.address && address < segment.address + segment.lengthBytes)
        return before + address - segment.address;
      before += segment.lengthBytes;
    }
    return -1;
  }

  /** Entry and offset of a position. */
  #place(position: number): { i: number; into: number; at: number } {
    let into = position;
    for (const [i, { at, length }] of this.entries.entries()) {
      if (into < length) return { i, into, at: at + into };
      into -= length;
    }
    throw new Error(`position ${position} is outside the mapping`);
  }

  read(position: number): number | undefined {
    const { i, into, at } = this.#place(position);
    const copy = this.#copies[i];
    if (copy) return copy[into];
    return this.device.isSimulated ? this.#memory[position] : this.#arena[at];
  }

  write(position: number, byte: number): void {
    const { i, into, at } = this.#place(position);
    const copy = this.#copies[i];
    if (copy) copy[into] = byte;
    else if (this.device.isSimulated) this.#memory[position] = byte;
    else this.#arena[at] = byte;
  }

  syncForCpu(from: number, length: number, direction: Direction = this.direction): void {
    if (direction === "to-device" || this.direction === "to-device") return;
    for (let p = from; p < from + length && this.device.isSimulated; p++) {
      this.#seen[p] = this.#memory[p] ?? 0;
      this.#arena[this.#place(p).at] = this.#memory[p] ?? 0;
    }
    for (let p = from; p < from + length; p++) {
      const { i, into, at } = this.#place(p);
      const copy = this.#copies[i];
      if (copy) this.#arena[at] = copy[into] ?? 0;
    }
  }

  syncForDevice(from: number, length: number, direction: Direction = this.direction): void {
    this.#clean(from, length);
    if (direction === "from-device" || this.direction === "from-device") return;
    for (let p = from; p < from + length; p++) {
      const { i, into, at } = this.#place(p);
      const copy = this.#copies[i];
      if (copy) copy[into] = this.#arena[at] ?? 0;
    }
  }

  /** Writes back what differs from what was last seen, in lines where a run has whole ones. */
  #clean(from: number, length: number): void {
    if (!this.device.isSimulated) return;
    for (const [start, end] of this.#runs(from, from + length)) {
      for (let p = start; p < end; ) {
        const size = p % LINE === 0 && end - p >= LINE ? LINE : 1;
        const line = Array.from({ length: size }, (_, k) => p + k);
        const cpu = line.map((q) => this.#arena[this.#place(q).at] ?? 0);
        if (line.some((q, k) => this.#seen[q] !== cpu[k])) {
          this.#memory.set(cpu, p);
          this.#seen.set(cpu, p);
        }
        p += size;
      }
    }
  }

  /** The parts of a range that lie in one entry each. */
  *#runs(from: number, fromEnd: number): Generator<[number, number]> {
    let before = 0;
    for (const { length } of this.entries) {
      const start = Math.max(from, before);
      const end = Math.min(fromEnd, before + length);
      if (start < end) yield [start, end];
      before += length;
    }
  }
}

/** Where a device's access to an address goes; null: it faults. */
export function reach(
  device: ModelDevice,
  address: number,
  access: "read" | "write",
): { mapping: ModelMapping; position: number } | null {
  for (const mapping of device.mappings) {
    const position = mapping.positionOf(address);
    if (position >= 0 && mapping.allows(access)) return { mapping, position };
  }
  return null;
}
