/**
 * Random events on a domain and its device, beside a naive page table (a Map of leaves).
 *
 *     map, unmap, list ─► domain, model      both answer the same
 *     access ───────────► IOTLB ─► table     the device reaches what the model says, or faults
 *
 * The domain is made anew now and then: another granule, stage, width, with an IOTLB or without.
 *
 * @module
 */

import assert from "node:assert/strict";
import { type Core, tableFormatWord } from "dmabuf/core";
import {
  type ModelFormat,
  NOEXEC,
  PgtableModel,
  PRIV,
  READ,
  stage1,
  WRITE,
} from "../model/pgtable.model.ts";
import type { Prng } from "../support/prng.ts";

const NONE = 0xffffffff;
const EFAULT = -14;
const CACHE = 4;
const RW = READ | WRITE;
const EXECUTE = READ | NOEXEC;
const DOMAIN_EVENTS = 2000;
const TLB_SETS = 4;
const TLB_WAYS = 3;
const STALE_COUNT = 8; // word of a domain (assembly/iommu.ts)

const formats: readonly ModelFormat[] = [
  stage1,
  stage1,
  { ...stage1, stage: 2 },
  { ...stage1, granuleBytes: 16_384 },
  { ...stage1, granuleBytes: 65_536, stage: 2 },
  { ...stage1, inputBits: 32, outputBits: 40 },
  { ...stage1, stage: 2, inputBits: 40 },
];
const prots = [RW, RW, READ, WRITE, RW | CACHE, READ | NOEXEC, RW | PRIV, CACHE];
const accesses = [READ, WRITE, RW, EXECUTE, READ | PRIV, WRITE | PRIV, EXECUTE | PRIV];

/** The events and what must be true after them. */
export class IommuFuzz {
  readonly #core: Core;
  readonly #random: Prng;
  #model: PgtableModel;
  #domain = 0;
  #device = 0;
  #events = 0;
  #hasTlb = false;

  constructor(core: Core, random: Prng) {
    this.#core = core;
    this.#random = random;
    this.#model = this.#renew();
  }

  /** One event. */
  step(): void {
    this.#events += 1;
    if (this.#events % DOMAIN_EVENTS === 0) this.#model = this.#renew();
    const event = this.#random.below(10);
    if (event < 3) this.#map();
    else if (event < 6) this.#unmap();
    else this.#access();
  }

  /** The core is sound, and no access went through what was unmapped. */
  verify(): void {
    assert.equal(this.#core.check(), null);
    const at = this.#core.exports.iommuDomainAt(this.#domain);
    assert.equal(this.#core.word(at, STALE_COUNT), 0, "stale accesses of a strict domain");
  }

  #renew(): PgtableModel {
    const { exports } = this.#core;
    if (this.#domain !== 0) {
      this.verify();
      assert.equal(exports.dmaDeviceRemove(this.#device), 0);
      assert.equal(exports.iommuDomainFree(this.#domain), 0);
    }
    const format = this.#random.pick(formats);
    const granuleOrder = Math.log2(format.granuleBytes / 4096);
    this.#domain = exports.iommuDomainAllocAs(tableFormatWord({ ...format, granuleOrder }));
    assert.ok(this.#domain > 0, "a domain");
    this.#hasTlb = this.#random.below(2) === 0;
    if (this.#hasTlb) {
      const isLru = this.#random.below(2);
      assert.equal(exports.iommuIotlbMake(this.#domain, TLB_SETS, TLB_WAYS, isLru), 0);
    }
    this.#device = exports.dmaDeviceAdd(this.#domain, NONE, 65_536, NONE, NONE, 0, 0, 64);
    assert.ok(this.#device > 0, "a device");
    return new PgtableModel(Number.POSITIVE_INFINITY, format);
  }

  /** A page near few places, so that events meet; mostly a multiple of the granule. */
  #pfn(): number {
    const [page = 0, block = 9] = this.#model.leafOrders;
    const at = this.#random.below(3) * 2 ** block + this.#random.below(24) * 2 ** page;
    return this.#random.below(20) === 0 ? at + 1 : at;
  }

  #pageCount(): number {
    const [page = 0, block = 9] = this.#model.leafOrders;
    const pages = (1 + this.#random.below(12)) * 2 ** page;
    const whole = this.#random.below(6) === 0 ? 2 ** block : 0;
    return this.#random.below(30) === 0 ? pages + 1 : pages + whole;
  }

  #map(): void {
    const random = this.#random;
    const iovaPfn = this.#pfn();
    const physPfn = random.below(4) === 0 ? iovaPfn : this.#pfn();
    const args = [iovaPfn, physPfn, this.#pageCount(), random.pick(prots)] as const;
    const result = this.#core.exports.iommuMap(this.#domain, ...args);
    assert.equal(result, this.#model.map(...args), `map(${args.join(", ")})`);
  }

  #unmap(): void {
    const args = [this.#pfn(), this.#pageCount()] as const;
    const result = this.#core.exports.iommuUnmap(this.#domain, ...args);
    assert.equal(result, this.#model.unmap(...args), `unmap(${args.join(", ")})`);
  }

  #access(): void {
    const pfn = this.#pfn();
    const access = this.#random.pick(accesses);
    const count = this.#core.exports.dmaSpans(this.#device, pfn, 0, 1, access);
    const found = count < 0 ? count : (this.#core.scratch[0] ?? 0) / 4096;
    assert.equal(found, this.#expected(pfn, access), `access ${access} of page ${pfn}`);
  }

  #expected(pfn: number, access: number): number {
    const prot = this.#model.prot(pfn);
    const wanted = access & RW;
    const phys = this.#model.lookup(pfn);
    if ((prot & wanted) !== wanted || (access & prot & NOEXEC) !== 0) return EFAULT;
    if ((prot & PRIV) !== 0 && (access & PRIV) === 0) return EFAULT;
    return phys < this.#core.u8.length / 4096 ? phys : EFAULT; // no memory there
  }
}
