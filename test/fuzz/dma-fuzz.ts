/**
 * DmaFuzz: random mappings, accesses and syncs of several devices, on a system and on a model.
 *
 * - MF4  After every event the arena holds the same bytes on both sides, and the core's walker
 *        finds nothing; every access of a device reads what the model says, or faults where it
 *        does.
 * - MF5  Device pages of two live mappings of a device behind an IOMMU are never the same, and
 *        everything lies below its device's mask.
 *
 * @module
 */

import type { DeviceMapping, DeviceOptions, OpenOptions, System } from "dmabuf";
import { type Device, DmaBufError, FRAME_BYTES, GiB, KiB, MiB } from "dmabuf";
import {
  directions,
  type ModelDevice,
  type ModelEntry,
  ModelMapping,
  reach,
} from "../model/dma.model.ts";
import type { Prng } from "../support/prng.ts";

const MEMORY_BYTES = 12 * MiB;
/** The arena lies on both sides of 4 GiB. */
const LINE_BYTES = 8 * MiB;
const BASE = 4 * GiB - LINE_BYTES;
const ARENA_FRAMES = 48;
const ARENA_PFN = LINE_BYTES / FRAME_BYTES - ARENA_FRAMES / 2;
const MAPPINGS_MAX = 48;

interface Subject extends ModelDevice {
  readonly device: Device;
  readonly maskEnd: number;
}

interface Live {
  readonly subject: Subject;
  readonly mapping: DeviceMapping;
  readonly model: ModelMapping;
}

/** The system that a run needs. */
export const DMA_FUZZ_OPTIONS: OpenOptions = {
  memoryBytes: MEMORY_BYTES,
  physicalBase: BASE,
  bounceBytes: 256 * KiB, // full now and then
};

/** One run: a system, its model, and random numbers. */
export class DmaFuzz {
  readonly #random: Prng;
  readonly #system: System;
  readonly #arena: Uint8Array; // the system's
  readonly #expected: Uint8Array; // the model's
  readonly #subjects: readonly Subject[];
  readonly #live: Live[] = [];
  /** How many events of each kind had an effect. */
  readonly counts: Record<string, number> = {};

  constructor(system: System, random: Prng) {
    this.#random = random;
    this.#system = system;
    const pinned = this.#system.frames.allocAt(ARENA_PFN, ARENA_FRAMES).pin();
    this.#arena = pinned.bytes;
    this.#expected = new Uint8Array(pinned.bytes.length);
    this.#subjects = [
      this.#addDevice({ name: "wide", dmaMaskBits: 40 }),
      this.#addDevice({ name: "narrow" }),
      this.#addDevice({ name: "kept", minAlignMask: 0xfff, segmentBoundaryBytes: 64 * KiB }),
      this.#addDevice({ name: "behind", iommu: true }),
      this.#addDevice({ name: "bounded", iommu: true, segmentBoundaryBytes: 16 * KiB }),
      this.#addDevice({ name: "untrusted", iommu: true, untrusted: true }),
      this.#addDevice({ name: "cached", dmaMaskBits: 40, coherent: false, simulatedCache: true }),
      this.#addDevice({ name: "both", coherent: false, simulatedCache: true }),
    ];
  }

  #addDevice(options: DeviceOptions): Subject {
    const device = this.#system.addDevice(options);
    const { iommu, dmaMaskBits, untrusted, simulatedCache } = device.limits;
    const maskEnd = 2 ** dmaMaskBits;
    const physical = BASE + ARENA_PFN * FRAME_BYTES;
    return {
      device,
      maskEnd,
      isTranslated: iommu,
      isSimulated: simulatedCache,
      mappings: [],
      // Pages count, not bytes: a device that reaches a page reaches all of it.
      bounces: ({ at, length }) =>
        iommu
          ? untrusted && (at % FRAME_BYTES !== 0 || length % FRAME_BYTES !== 0)
          : Math.ceil((physical + at + length) / FRAME_BYTES) * FRAME_BYTES > maskEnd,
    };
  }

  /** One event. */
  step(): void {
    const dice = this.#random.below(100);
    if (dice < 22) this.#map();
    else if (dice < 40) this.#unmap();
    else if (dice < 58) this.#access("write");
    else if (dice < 74) this.#access("read");
    else if (dice < 82) this.#stray();
    else if (dice < 90) this.#cpuWrite();
    else this.#sync();
  }

  #count(event: string): void {
    this.counts[event] = (this.counts[event] ?? 0) + 1;
  }

  // ---- mappings

  #randomEntry(): ModelEntry {
    const pages = 1 + this.#random.below(3);
    if (this.#random.below(3) > 0) {
      const page = this.#random.below(ARENA_FRAMES - pages);
      return { at: page * FRAME_BYTES, length: pages * FRAME_BYTES };
    }
    const length = 1 + this.#random.below(2 * FRAME_BYTES);
    return { at: this.#random.below(this.#arena.length - length), length };
  }

  #map(): void {
    if (this.#live.length === MAPPINGS_MAX) this.#unmap();
    const subject = this.#random.pick(this.#subjects);
    const direction = this.#random.pick(directions);
    const skipCpuSync = this.#random.below(8) === 0;
    const entries = Array.from({ length: 1 + this.#random.below(4) }, () => this.#randomEntry());
    // Behind a simulated cache, bytes that are mapped twice lie in memory twice.
    if (subject.isSimulated && this.#overlaps(subject, entries)) return;
    const list = entries.map(({ at, length }) => ({
      pfn: ARENA_PFN + Math.floor(at / FRAME_BYTES),
      offset: at % FRAME_BYTES,
      lengthBytes: length,
    }));
    let mapping: DeviceMapping;
    try {
      mapping = subject.device.dma.mapSg(list, direction, { skipCpuSync });
    } catch (error) {
      const isRefusal = error instanceof DmaBufError && error.code === "EIO";
      if (!isRefusal || !entries.some((entry) => subject.bounces(entry))) throw error;
      this.#count("refused"); // the pool is full
      return;
    }
    const segments = [...mapping.segments()];
    const model = new ModelMapping(
      this.#expected,
      subject,
      entries,
      direction,
      segments,
      skipCpuSync,
    );
    this.#expectPlaces(subject, model, entries);
    subject.mappings.unshift(model);
    this.#live.push({ subject, mapping, model });
    this.#count("map");
  }

  #overlaps(subject: Subject, entries: readonly ModelEntry[]): boolean {
    const mapped = subject.mappings.flatMap((mapping) => mapping.entries);
    return entries.some((one, i) =>
      [...mapped, ...entries.slice(0, i)].some(
        (other) => one.at < other.at + other.length && other.at < one.at + one.length,
      ),
    );
  }

  /** MF5, and where a direct device must see what it sees. */
  #expectPlaces(subject: Subject, model: ModelMapping, entries: readonly ModelEntry[]): void {
    const bytes = model.segments.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    if (bytes !== model.lengthBytes) throw new Error(`the segments hold ${bytes} bytes`);
    const taken = new Set(subject.mappings.flatMap((other) => pagesOf(other)));
    for (const { address, lengthBytes } of model.segments)
      if (address + lengthBytes > subject.maskEnd) throw new Error("a segment beyond the mask");
    if (subject.isTranslated) {
      for (const page of pagesOf(model))
        if (taken.has(page)) throw new Error(`device page ${page} is given twice`);
      return;
    }
    for (const [i, entry] of entries.entries()) {
      const { address } = model.segments[i] ?? { address: -1 };
      const physical = BASE + ARENA_PFN * FRAME_BYTES + entry.at;
      if (!subject.bounces(entry) && address !== physical)
        throw new Error(`entry ${i} lies at ${physical}, and its device sees it at ${address}`);
      const kept = subject.device.limits.minAlignMask + 1;
      if (subject.bounces(entry) && address % kept !== physical % kept)
        throw new Error(`entry ${i} lost the low bits of its address`);
    }
  }

  #unmap(): void {
    if (this.#live.length === 0) return;
    const [gone] = this.#live.splice(this.#random.below(this.#live.length), 1);
    if (gone === undefined) return;
    const { subject, mapping, model } = gone;
    const skipCpuSync = this.#random.below(8) === 0;
    subject.device.dma.unmapSg(mapping, { skipCpuSync });
    if (!skipCpuSync) model.syncForCpu(0, model.lengthBytes);
    subject.mappings.splice(subject.mappings.indexOf(model), 1);
    this.#count("unmap");
  }

  // ---- accesses

  /** A place below `end`, often one of the first: so that the same bytes are met again. */
  #near(end: number): number {
    return this.#random.below(this.#random.below(2) === 0 ? end : Math.min(end, 64));
  }

  /** A device goes to an address of one of its segments. */
  #access(access: "read" | "write"): void {
    if (this.#live.length === 0) return;
    const { subject, model } = this.#random.pick(this.#live);
    const segment = this.#random.pick(model.segments);
    const from = this.#near(segment.lengthBytes);
    const length = 1 + this.#random.below(Math.min(300, segment.lengthBytes - from));
    this.#go(subject, segment.address + from, length, access);
  }

  /** A device goes where nothing may be mapped for it; another device's address, for instance. */
  #stray(): void {
    const subject = this.#random.pick(this.#subjects);
    const other =
      this.#live.length > 0 ? this.#random.pick(this.#live).model.segments[0] : undefined;
    const anywhere = this.#random.below(2 ** 20) * FRAME_BYTES;
    const address = this.#random.below(2) === 0 ? anywhere : (other?.address ?? anywhere);
    if (subject.isTranslated && subject.mappings.some((one) => hasPage(one, address))) return;
    this.#go(subject, address, 1, this.#random.below(2) === 0 ? "read" : "write");
  }

  #go(
    { device, mappings, ...rest }: Subject,
    address: number,
    length: number,
    access: "read" | "write",
  ): void {
    const subject: ModelDevice = { mappings, ...rest };
    const places = Array.from({ length }, (_, i) => reach(subject, address + i, access));
    const bytes = Uint8Array.from({ length }, () => this.#random.below(256));
    const faults = device.dma.faultCount;
    let isFault = false;
    const read = new Uint8Array(length);
    try {
      if (access === "read") device.dma.read(address, read);
      else device.dma.write(address, bytes);
    } catch (error) {
      if (!(error instanceof DmaBufError) || error.code !== "EFAULT") throw error;
      isFault = true;
    }
    const mustFault = places.includes(null);
    const what = `${access} ${length} bytes at ${address} as ${device.name}`;
    if (isFault !== mustFault) throw new Error(`${what}: fault is ${isFault}, not ${mustFault}`);
    if (device.dma.faultCount !== faults + (isFault ? 1 : 0)) throw new Error(`${what}: the count`);
    this.#count(isFault ? "fault" : access);
    if (isFault) return;
    for (const [i, place] of places.entries()) {
      if (place === null) continue;
      if (access === "write") place.mapping.write(place.position, bytes[i] ?? 0);
      else if (place.mapping.read(place.position) !== read[i])
        throw new Error(
          `${what}: byte ${i} is ${read[i]}, not ${place.mapping.read(place.position)}`,
        );
    }
  }

  #cpuWrite(): void {
    const length = 1 + this.#random.below(100);
    const live = this.#live.length > 0 ? this.#random.pick(this.#live) : undefined;
    const start = live?.model.entries[0]?.at ?? 0;
    const at = Math.min(start + this.#near(2 * FRAME_BYTES), this.#arena.length - length);
    const bytes = Uint8Array.from({ length }, () => this.#random.below(256));
    this.#arena.set(bytes, at);
    this.#expected.set(bytes, at);
    this.#count("CPU write");
  }

  #sync(): void {
    if (this.#live.length === 0) return;
    const { subject, mapping, model } = this.#random.pick(this.#live);
    const isWhole = this.#random.below(2) === 0;
    const offset = isWhole ? 0 : this.#random.below(model.lengthBytes);
    const left = model.lengthBytes - offset;
    const lengthBytes = isWhole ? left : this.#random.below(left + 1);
    const isOpen = model.direction === "bidirectional";
    const direction = isOpen ? this.#random.pick(directions) : model.direction;
    const range = { offset, lengthBytes, direction };
    if (this.#random.below(2) === 0) {
      subject.device.dma.syncForCpu(mapping, range);
      model.syncForCpu(offset, lengthBytes, direction);
    } else {
      subject.device.dma.syncForDevice(mapping, range);
      model.syncForDevice(offset, lengthBytes, direction);
    }
    this.#count("sync");
  }

  /** Compares everything but what devices read, which is compared when they do (MF4). */
  verify(): void {
    const broken = this.#system.check();
    if (broken !== null) throw new Error(`the core breaks its invariant ${broken}`);
    const order = Buffer.compare(this.#arena, this.#expected);
    if (order === 0) return;
    const at = this.#arena.findIndex((byte, i) => byte !== this.#expected[i]);
    throw new Error(`byte ${at} of the arena is ${this.#arena[at]}, not ${this.#expected[at]}`);
  }

  /** Ends what is left, and expects that nothing is held. */
  finish(): void {
    while (this.#live.length > 0) this.#unmap();
    this.verify();
    const { bounceUsedBytes } = this.#system.stats();
    if (bounceUsedBytes !== 0) throw new Error(`${bounceUsedBytes} bytes of the pool are lost`);
  }

  /** Closes the system. */
  close(): void {
    this.#system.close();
  }
}

/** Device pages that a mapping's segments touch. */
function pagesOf({ segments }: ModelMapping): number[] {
  return segments.flatMap(({ address, lengthBytes }) => {
    const first = Math.floor(address / FRAME_BYTES);
    const end = Math.ceil((address + lengthBytes) / FRAME_BYTES);
    return Array.from({ length: end - first }, (_, i) => first + i);
  });
}

function hasPage(mapping: ModelMapping, address: number): boolean {
  return pagesOf(mapping).includes(Math.floor(address / FRAME_BYTES));
}
