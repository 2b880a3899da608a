/**
 * DomainFuzz: the built-in domain beside the same page table as a driver in TypeScript.
 *
 *     each event ─┬─ device "core",   its memory ─► the core's domains
 *                 └─ device "driver", its memory ─► IommuDomain over a naive page table
 *
 * - DF1  Both sides answer every event with the same: results, addresses, errors, faults.
 * - DF2  Both memories hold the same bytes.
 *
 * @module
 */

import assert from "node:assert/strict";
import type { Access, DeviceMapping, DeviceOptions, Domain, OpenOptions, System } from "dmabuf";
import {
  type Device,
  DmaBufError,
  FRAME_BYTES,
  IommuDomain,
  type IommuFault,
  KiB,
  MiB,
} from "dmabuf";
import { directions } from "../model/dma.model.ts";
import { type ModelFormat, stage1 } from "../model/pgtable.model.ts";
import { ModelDriver } from "../support/model-driver.ts";
import type { Prng } from "../support/prng.ts";

const ARENA_BYTES = 4 * MiB; // more than any event reaches
const ARENAS_AT = 8 * MiB;
const USED_FRAMES = 40;
const MAPPINGS_MAX = 24;
const RENEW_AFTER = 1000;
const RW = 3;

/** The system that a run needs. */
export const DOMAIN_FUZZ_OPTIONS: OpenOptions = { memoryBytes: 32 * MiB, bounceBytes: 6 * MiB };

const formats: readonly ModelFormat[] = [
  stage1,
  { ...stage1, stage: 2 },
  { ...stage1, granuleBytes: 16_384 },
  { ...stage1, granuleBytes: 65_536, stage: 2 },
  { ...stage1, inputBits: 32, outputBits: 40 },
];
const prots = [RW, RW, 1, 2, 7, 1 + 8, RW + 32, 4];
const accesses: readonly Access[] = [
  "read",
  "write",
  "read-write",
  "execute",
  "privileged-read",
  "privileged-write",
  "privileged-execute",
];
const devices: readonly Omit<DeviceOptions, "name" | "iommu">[] = [
  {},
  { segmentBoundaryBytes: 16 * KiB },
  { untrusted: true },
  { coherent: false, simulatedCache: true },
  { dmaMaskBits: 24 },
];

/** One of the two. */
interface Side {
  readonly arenaAt: number; // a physical address
  readonly arena: Uint8Array;
  readonly faults: IommuFault[];
  device: Device;
  domain: Domain;
  readonly live: { readonly mapping: DeviceMapping; readonly own: Uint8Array }[];
}

/** One run. */
export class DomainFuzz {
  readonly #system: System;
  readonly #random: Prng;
  readonly #sides: readonly [Side, Side];
  #format: ModelFormat = stage1;
  #events = 0;
  /** How many events of each kind had an effect. */
  readonly counts: Record<string, number> = {};

  constructor(system: System, random: Prng) {
    this.#system = system;
    this.#random = random;
    this.#sides = [this.#makeSide(0), this.#makeSide(1)];
    this.#renew();
  }

  #makeSide(i: number): Side {
    const arenaAt = ARENAS_AT + i * ARENA_BYTES;
    const frameCount = ARENA_BYTES / FRAME_BYTES;
    const { bytes } = this.#system.frames.allocAt(arenaAt / FRAME_BYTES, frameCount).pin();
    // Made whole by #renew().
    return { arenaAt, arena: bytes, faults: [], live: [] } as unknown as Side;
  }

  /** One event. */
  step(): void {
    this.#events += 1;
    if (this.#events % RENEW_AFTER === 0) this.#renew();
    const dice = this.#random.below(100);
    if (dice < 14) this.#dmaMap();
    else if (dice < 26) this.#dmaUnmap();
    else if (dice < 40) this.#map();
    else if (dice < 52) this.#unmap();
    else if (dice < 60) this.#attach();
    else if (dice < 64) this.#own();
    else if (dice < 68) this.#both("translate", this.#iovaToPhys(this.#iova()));
    else this.#access();
  }

  /** The core is sound, and both memories are equal (DF2). */
  verify(): void {
    assert.equal(this.#system.check(), null);
    const [core, driver] = this.#sides;
    assert.ok(Buffer.compare(core.arena, driver.arena) === 0, "the memories differ");
  }

  /** Gives the devices back. */
  finish(): void {
    this.#drop();
    this.verify();
  }

  // ---- the two sides

  /** Runs an event on both sides, and expects one answer (DF1). */
  #both(event: string, act: (side: Side) => unknown): void {
    const answers = this.#sides.map((side) => {
      side.faults.length = 0;
      let answer: unknown;
      try {
        answer = act(side);
      } catch (error) {
        if (!(error instanceof DmaBufError)) throw error;
        answer = error.code;
      }
      const { faultCount, lastFault } = side.device.dma;
      const told = side.faults.map(({ iova, access, reason }) => `${access} ${iova} ${reason}`);
      const { unhandledFaultCount } = side.domain;
      return { answer, told, faultCount, lastFault, unhandledFaultCount };
    });
    assert.deepEqual(answers[1], answers[0], event);
    const answer = String(answers[0]?.answer);
    const kind = /^E[A-Z]+$/.test(answer) ? `${event}: ${answer}` : event;
    this.counts[kind] = (this.counts[kind] ?? 0) + 1;
  }

  #drop(): void {
    for (const side of this.#sides) {
      for (const { mapping } of side.live.splice(0)) side.device.dma.unmapSg(mapping);
      const { group } = side.device;
      if (group?.domain === side.domain) group.detach();
      if (group?.domain.type === "blocked") group.releaseDmaOwner();
      side.device.remove();
      group?.free();
      if ("free" in side.domain) (side.domain as { free(): void }).free();
    }
  }

  /** Other devices and domains. */
  #renew(): void {
    if (this.#sides[0].device !== undefined) this.#drop();
    const options = this.#random.pick(devices);
    const invalidation = options.untrusted
      ? "strict"
      : this.#random.pick(["strict", "lazy"] as const);
    const clock = { after: () => () => {} };
    this.#format = this.#random.pick(formats);
    for (const [i, side] of this.#sides.entries()) {
      const isDriver = i === 1;
      const defaultDomain = isDriver ? new IommuDomain(new ModelDriver()) : null;
      const group = this.#system.iommu.group({
        invalidation,
        clock,
        ...(defaultDomain === null ? {} : { defaultDomain }),
      });
      side.device = this.#system.addDevice({ ...options, name: `${i}`, iommu: group });
      side.domain = isDriver ? new IommuDomain(new ModelDriver(this.#format)) : this.#builtIn();
      for (const domain of [side.domain, group.defaultDomain])
        domain.setFaultHandler((fault) => this.#handle(side, fault));
    }
  }

  #builtIn(): Domain {
    const { stage, granuleBytes, inputBits, outputBits } = this.#format;
    const options = { stage, granuleBytes, addressBits: inputBits, outputBits };
    return this.#system.iommu.domain(options);
  }

  /** Notes a fault; some are answered with the missing page, by the address alone. */
  #handle(side: Side, fault: IommuFault): "handled" | "retry" | undefined {
    side.faults.push(fault);
    const page = fault.iova / FRAME_BYTES;
    if (page % 5 === 0) return "handled";
    if (page % 3 !== 0 || fault.reason !== "translation") return undefined;
    const { granuleBytes } = this.#format;
    const iova = fault.iova - (fault.iova % granuleBytes);
    side.domain.map(iova, side.arenaAt, granuleBytes, RW);
    return "retry";
  }

  // ---- events

  #dmaMap(): void {
    if (this.#sides[0].live.length === MAPPINGS_MAX) this.#dmaUnmap();
    const direction = this.#random.pick(directions);
    const attrs = { privileged: this.#random.below(4) === 0 };
    const isSimulated = this.#sides[0].device.limits.simulatedCache;
    const count = 1 + this.#random.below(isSimulated ? 1 : 5);
    const entries = Array.from({ length: count }, () => {
      const page = this.#random.below(USED_FRAMES - 4);
      const isWhole = this.#random.below(3) > 0;
      const offset = isWhole ? 0 : this.#random.below(FRAME_BYTES);
      const length = isWhole
        ? FRAME_BYTES * (1 + this.#random.below(4))
        : 1 + this.#random.below(2 * FRAME_BYTES);
      return { page, offset, length };
    });
    if (isSimulated && this.#sides[0].live.length > 0) return; // bytes mapped twice lie there twice
    this.#both("DMA map", (side) => {
      const list = entries.map(({ page, offset, length }) => ({
        pfn: side.arenaAt / FRAME_BYTES + page,
        offset,
        lengthBytes: length,
      }));
      const mapping = side.device.dma.mapSg(list, direction, attrs);
      side.live.push({ mapping, own: side.arena });
      return [...mapping.segments()];
    });
  }

  #dmaUnmap(): void {
    const { length } = this.#sides[0].live;
    if (length === 0) return;
    const i = this.#random.below(length);
    this.#both("DMA unmap", (side) => {
      const [{ mapping } = { mapping: null }] = side.live.splice(i, 1);
      if (mapping !== null) side.device.dma.unmapSg(mapping);
      return null;
    });
  }

  /** Somewhere that events meet, or an address of a mapping. */
  #iova(): number {
    const { live } = this.#sides[0];
    const dice = this.#random.below(4);
    if (dice < 2 && live.length > 0) {
      const { mapping } = this.#random.pick(live);
      return mapping.address + this.#random.below(mapping.lengthBytes);
    }
    const { granuleBytes } = this.#format;
    const block = this.#random.below(3) * 512 * granuleBytes;
    return block + this.#random.below(16) * granuleBytes + (dice === 3 ? FRAME_BYTES : 0);
  }

  #aligned(): number {
    const { granuleBytes } = this.#format;
    const iova = this.#iova();
    return this.#random.below(20) === 0 ? iova : iova - (iova % granuleBytes);
  }

  #sizeBytes(): number {
    const { granuleBytes } = this.#format;
    const pages = 1 + this.#random.below(6);
    const most = ARENA_BYTES / 2; // nobody reaches the other's memory
    return this.#random.below(8) === 0 ? Math.min(512 * granuleBytes, most) : pages * granuleBytes;
  }

  #map(): void {
    const iova = this.#aligned();
    const sizeBytes = this.#sizeBytes();
    if (iova + 2 * sizeBytes > 2 ** this.#format.inputBits) return; // see differences-from-linux.md
    const prot = this.#random.pick(prots);
    const offset = this.#random.below(3) * this.#format.granuleBytes;
    const isList = this.#random.below(3) === 0;
    this.#both("map", ({ domain, arenaAt }) => {
      if (!isList) return domain.map(iova, arenaAt + offset, sizeBytes, prot);
      const one = { address: arenaAt + offset, lengthBytes: sizeBytes };
      return domain.mapSg(iova, [one, { ...one, address: arenaAt }], prot);
    });
  }

  #unmap(): void {
    const iova = this.#aligned();
    const sizeBytes = this.#sizeBytes();
    this.#both("unmap", ({ domain }) => domain.unmap(iova, sizeBytes));
  }

  #iovaToPhys(iova: number): (side: Side) => unknown {
    return ({ domain, device, arenaAt }) =>
      [domain, device.group?.defaultDomain].map((one) => {
        const phys = one?.iovaToPhys(iova) ?? null;
        const isBounced = phys !== null && (phys < arenaAt || phys >= arenaAt + ARENA_BYTES);
        return phys === null ? null : isBounced ? "bounced" : phys - arenaAt;
      });
  }

  #attach(): void {
    const isAttaching = this.#random.below(3) > 0;
    this.#both(isAttaching ? "attach" : "detach", ({ domain, device }) =>
      isAttaching ? domain.attachDevice(device) : domain.detachDevice(device),
    );
  }

  #own(): void {
    const isClaiming = this.#random.below(3) === 0;
    this.#both(isClaiming ? "claim" : "release", ({ device: { group } }) =>
      isClaiming ? group?.claimDmaOwner("fuzz") : group?.releaseDmaOwner(),
    );
  }

  #access(): void {
    const iova = this.#iova();
    const other = this.#iova();
    const length = this.#random.below(2 * FRAME_BYTES);
    const value = this.#random.below(256);
    const access = this.#random.pick(accesses);
    const what = this.#random.pick(["read", "write", "copy", "spans"] as const);
    this.#both(what, ({ device: { dma } }) => {
      if (what === "write") return dma.write(iova, new Uint8Array(length).fill(value));
      if (what === "copy") return dma.copy(iova, other, length);
      if (what === "spans") return dma.spans(iova, length, access).flatMap((one) => [...one]);
      const bytes = new Uint8Array(length);
      dma.read(iova, bytes);
      return Buffer.from(bytes).toString("hex");
    });
  }
}
