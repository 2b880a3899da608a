/**
 * Device addresses by hand, on the exports of each build: several domains in turns beside their
 * naive twins, so that a call finds the domain named last, another one, or none.
 */

import { describe, expect, test } from "vitest";
import { IovaModel } from "../model/iova.model.ts";
import { eachCore } from "../support/cores.ts";
import { Prng } from "../support/prng.ts";

const ESTALE = -116;
const LIMIT = 0xfffff;
const EVENTS = 15_000;

interface Twin {
  domain: number;
  model: IovaModel;
}

describe.each([...eachCore])("device addresses by hand, $name", ({ open }) => {
  test.each([1, 2, 3])("random events in three domains, seed %i", (seed) => {
    const { exports } = open(4096);
    const random = new Prng(seed);
    const make = (): Twin => ({ domain: exports.iommuDomainAlloc(), model: new IovaModel(1) });
    const twins = [make(), make(), make()];
    const ended: number[] = [];
    const events = {
      take({ domain, model }: Twin): void {
        const pageCount = random.below(3) === 0 ? 1 + random.below(20) : 1;
        const limit = random.below(4) === 0 ? LIMIT >> random.below(8) : LIMIT;
        const pfn = exports.iommuIovaAlloc(domain, pageCount, limit, 1) >>> 0;
        expect(pfn).toBeGreaterThan(0);
        expect(pfn + pageCount - 1).toBeLessThanOrEqual(limit);
        expect(model.isFree(pfn, pfn + pageCount - 1)).toBe(true);
        model.insert(pfn, pfn + pageCount - 1);
      },
      give({ domain, model }: Twin): void {
        const range = model.ranges[random.below(model.ranges.length)];
        const pfn = range === undefined ? 77 : range.low + random.below(range.high - range.low + 1);
        expect(exports.iommuIovaFree(domain, pfn)).toBe(model.free(pfn));
        expect(exports.iommuIovaFree(domain, pfn)).toBe(0);
      },
      giveAny({ domain, model }: Twin): void {
        const pfn = random.below(2) === 0 ? LIMIT - random.below(3000) : random.next();
        expect(exports.iommuIovaFree(domain, pfn)).toBe(model.free(pfn));
      },
      end(twin: Twin): void {
        expect(exports.iommuDomainFree(twin.domain)).toBe(0);
        ended.push(twin.domain);
        twins.splice(twins.indexOf(twin), 1, make());
      },
      nobody(): void {
        const domain = ended[random.below(ended.length)] ?? 0;
        expect(exports.iommuIovaAlloc(domain, 1, LIMIT, 1)).toBe(0);
        expect(exports.iommuIovaFree(domain, LIMIT - random.below(100))).toBe(ESTALE);
      },
    };
    for (let i = 0; i < EVENTS; i++) {
      const twin = twins[random.below(4) % 3] as Twin;
      const roll = random.below(1000);
      if (roll < 450) events.take(twin);
      else if (roll < 900) events.give(twin);
      else if (roll < 970) events.giveAny(twin);
      else if (roll < 999) events.nobody();
      else events.end(twin);
      if (i % 100 === 0) expect(exports.check(0), `seed ${seed}, event ${i}`).toBe(0);
    }
    for (const { domain } of twins) expect(exports.iommuDomainFree(domain)).toBe(0);
    expect(exports.check(0)).toBe(0);
  });
});
