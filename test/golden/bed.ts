/**
 * Bed: the core that the records of one file are replayed on.
 *
 *     core ─┬─ pages: 1024 frames in a row, the "page index" of the records
 *           └─ work:  1024 frames in a row, for lists, bitmaps and buffers of the replay
 *
 * @module
 */

import { type OpenOptions, openSync, type System } from "dmabuf";
import { type Core, type CoreExports, openCoreSync } from "dmabuf/core";

export const PAGE_BYTES = 4096;
/** Pages of the contiguous block that the records number from 0. */
export const PAGE_COUNT = 1024;
/** What the core returns for "no bit", "no page". */
export const NONE = 0xffffffff;
/** Linux's name for an argument that no state would accept. */
export const EINVAL = -22;

const BED_BYTES = 64 * 1024 * 1024;
const SYSTEM_BYTES = 16 * 1024 * 1024;
const PAGEBLOCK_PAGES = 1024;

/** Exports that the typed interface does not list. */
export interface RawExports {
  iovaInit(spaceAt: number, startPfn: number): number;
  iovaFini(spaceAt: number): void;
  iovaAlloc(spaceAt: number, pageCount: number, limitPfn: number, isAligned: number): number;
  iovaFree(spaceAt: number, pfn: number): number;
  iovaFind(spaceAt: number, pfn: number): number;
  iovaReserve(spaceAt: number, pfn: number, pfnEnd: number): number;
  iovaRangeCount(spaceAt: number): number;
  iovaCheck(spaceAt: number): number;
  pgtInit(rootAt: number): number;
  pgtFini(rootAt: number): void;
  pgtLookup(rootAt: number, iovaPfn: number): number;
  pgtMapPages(
    rootAt: number,
    iovaPfn: number,
    physPfn: number,
    pageOrder: number,
    count: number,
    prot: number,
  ): number;
  pgtUnmapPages(rootAt: number, iovaPfn: number, pageOrder: number, count: number): number;
  pgtCheck(rootAt: number): number;
}

/** Which of the cores to replay on. */
export interface CoreChoice {
  /** The core's bytes; without them, the release core inside the package. */
  readonly wasm?: Uint8Array;
  readonly shared: boolean;
}

/** A CMA region at a device-side page number of the record's choice. */
export interface BedRegion {
  readonly core: Core;
  readonly handle: number;
  /** The region's first frame. */
  readonly basePfn: number;
}

/** A core with room for a replay; made for one file, opened when first used. */
export class Bed {
  readonly #choice: CoreChoice;
  readonly #cores: Core[] = [];
  readonly #memos = new Map<string, unknown>();
  readonly #endings: (() => void)[] = [];
  #core: Core | undefined;
  #pagesPfn = 0;
  #workPfn = 0;

  constructor(choice: CoreChoice) {
    this.#choice = choice;
  }

  get core(): Core {
    if (this.#core === undefined) {
      this.#core = this.open(BED_BYTES, 0);
      this.#pagesPfn = need(this.#core.exports.frameAlloc(PAGE_COUNT, 0, NONE), "the pages");
      this.#workPfn = need(this.#core.exports.frameAlloc(PAGE_COUNT, 0, NONE), "the work area");
    }
    return this.#core;
  }

  /** A system, for records of what stands above the core. */
  get system(): System {
    return this.memo("system", () => this.openSystem({ memoryBytes: SYSTEM_BYTES }));
  }

  /** Another system, where a record says what memory there is. */
  openSystem(options: OpenOptions): System {
    const { wasm, shared } = this.#choice;
    const system = openSync({ ...options, shared, ...(wasm ? { wasm } : {}) });
    this.#cores.push(system.core);
    return system;
  }

  get exports(): CoreExports {
    return this.core.exports;
  }

  get raw(): RawExports {
    return this.core.exports as unknown as RawExports;
  }

  /** The frame of page 0 of the records. */
  get pagesPfn(): number {
    return this.core && this.#pagesPfn;
  }

  /** The address of the 4 MiB that a handler may use as it likes. */
  get workAt(): number {
    return this.core && this.#workPfn * PAGE_BYTES;
  }

  /** Writes words at the start of the work area and returns its address. */
  store(words: readonly number[]): number {
    if (words.length * 4 > PAGE_COUNT * PAGE_BYTES) throw new RangeError("the list is too long");
    this.core.u32.set(words, this.workAt / 4);
    return this.workAt;
  }

  /** A frame of zeros that lives as long as the bed. */
  zeroFrameAt(): number {
    const at = need(this.exports.frameAlloc(1, 0, NONE), "a frame") * PAGE_BYTES;
    this.core.u8.fill(0, at, at + PAGE_BYTES);
    return at;
  }

  /** What `make` returned when it was first called with this key: state between records. */
  memo<T>(key: string, make: () => T): T {
    if (!this.#memos.has(key)) this.#memos.set(key, make());
    return this.#memos.get(key) as T;
  }

  /** Forgets a memo, so that the sequence behind it begins again. */
  forget(key: string): void {
    this.#memos.delete(key);
  }

  /** Calls `ending` before the core is checked: what the core cannot know must be gone by then. */
  atEnd(ending: () => void): void {
    this.#endings.push(ending);
  }

  /** A system with memory at a physical address of the record's choice; one for each. */
  machine(memoryBytes: number, physicalBase: number): System {
    return this.memo(`machine at ${physicalBase}`, () => {
      const { wasm, shared } = this.#choice;
      const options = { memoryBytes, physicalBase, shared, ...(wasm ? { wasm } : {}) };
      const system = openSync(options);
      this.#cores.push(system.core);
      return system;
    });
  }

  /** Another core, where a record says which physical addresses there are. */
  open(memoryBytes: number, physicalBase: number): Core {
    const { wasm, shared } = this.#choice;
    const core = openCoreSync({ memoryBytes, physicalBase, shared, ...(wasm ? { wasm } : {}) });
    this.#cores.push(core);
    return core;
  }

  /** A region of `frameCount` frames whose first is number `devicePfn` for a device. */
  region(devicePfn: number, frameCount: number, orderPerBit: number): BedRegion {
    const basePfn = PAGEBLOCK_PAGES; // the frames below hold the core's map and records
    const base = (devicePfn - basePfn) * PAGE_BYTES;
    const core = this.open((basePfn + frameCount) * PAGE_BYTES, base);
    const handle = need(core.exports.cmaDeclare(basePfn, frameCount, orderPerBit), "the region");
    return { core, handle, basePfn };
  }

  /** Ends the replay. The invariants that the cores break then: none, if all is well. */
  close(): string[] {
    for (const ending of this.#endings) ending();
    return this.#cores.map((core) => core.check()).filter((broken) => broken !== null);
  }
}

/** A result of the core that must not be an error: without it nothing can be replayed. */
export function need(result: number, what: string): number {
  if (isErrno(result)) throw new Error(`the core refuses ${what} for the replay: ${result}`);
  return result >>> 0;
}

/** Whether a result is a negative errno. */
export function isErrno(result: number): boolean {
  return result < 0 && result > -4096;
}
