/**
 * MappingSet: the mappings of one attachment, its own and those of the importer.
 *
 *     importer's   map() gives it to one caller, unmap() ends it
 *     kept         made once, given to every map() that it suits; ended with the attachment
 *
 * - MS1  A mapping is in the set from the exporter's answer until the exporter is told of its end.
 * - MS2  A kept mapping of both directions suits every map(), one of a single direction only its
 *        own.
 *
 * @module
 */

import type { DeviceMapping } from "../device/device-mapping.ts";
import type { Direction } from "../direction.ts";
import { FirstMap } from "./first-map.ts";

/** A mapping of an attachment. */
export interface MappingUse {
  readonly mapping: DeviceMapping;
  /** What map() was asked for. */
  readonly direction: Direction;
  /** How often map() gave it out; 0: only the attachment keeps it. */
  readonly uses: number;
}

/** @internal The mappings of one attachment. */
export class MappingSet {
  /** The importer's mappings, and the direction it asked for (MS1). */
  readonly #own: FirstMap<DeviceMapping, Direction> = new FirstMap();
  #kept: DeviceMapping | null = null;
  #keptDirection: Direction = "bidirectional";
  #keptUses = 0;

  /** The importer's mappings. */
  get ownCount(): number {
    return this.#own.size;
  }

  /** What map() gave out and unmap() did not get back. */
  get useCount(): number {
    return this.ownCount + this.#keptUses;
  }

  get kept(): DeviceMapping | null {
    return this.#kept;
  }

  get keptDirection(): Direction {
    return this.#keptDirection;
  }

  /** All mappings, in no order. */
  get all(): MappingUse[] {
    const all = [...this.#own].map(([mapping, direction]) => ({ mapping, direction, uses: 1 }));
    if (this.#kept !== null)
      all.push({ mapping: this.#kept, direction: this.#keptDirection, uses: this.#keptUses });
    return all;
  }

  /** Whether `mapping` is in the set (MS1). */
  has(mapping: DeviceMapping): boolean {
    return mapping === this.#kept || this.#own.has(mapping);
  }

  /** Whether the kept mapping suits a map() (MS2). */
  suits(direction: Direction): boolean {
    return this.#keptDirection === "bidirectional" || this.#keptDirection === direction;
  }

  /** Gives the importer a mapping of its own. */
  add(mapping: DeviceMapping, direction: Direction): void {
    this.#own.set(mapping, direction);
  }

  /** Keeps a mapping that nobody uses. */
  keep(mapping: DeviceMapping, direction: Direction): void {
    this.#kept = mapping;
    this.#keptDirection = direction;
    this.#keptUses = 0;
  }

  /** Forgets the kept mapping, whoever uses it. */
  dropKept(): void {
    this.#kept = null;
    this.#keptUses = 0;
  }

  /** One user more of the kept mapping. */
  useKept(): void {
    this.#keptUses += 1;
  }

  /** The direction that a mapping was asked for with; undefined if it was not given out. */
  directionOf(mapping: DeviceMapping): Direction | undefined {
    if (mapping === this.#kept && mapping !== null)
      return this.#keptUses > 0 ? this.#keptDirection : undefined;
    return this.#own.get(mapping);
  }

  /** Takes back what was given out. */
  remove(mapping: DeviceMapping): void {
    if (mapping === this.#kept) this.#keptUses -= 1;
    else this.#own.delete(mapping);
  }
}
