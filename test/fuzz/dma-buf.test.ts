/**
 * Random calls on one buffer and on its naive twin, with faults in every callback of the exporter:
 * answers, callbacks, lock state and counts must agree, and in the end everything is released.
 */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { MiB } from "../../src/index.ts";
import { type Command, DmaBufModel, type ExporterKind, verbs } from "../model/dma-buf.model.ts";
import { eachCore } from "../support/cores.ts";
import { callbacks, FuzzedBuffer } from "../support/fuzzed-buffer.ts";

const RUNS = 60;
const MAX_COMMANDS = 80;

const parts = {
  verb: fc.constantFrom(...verbs),
  at: fc.nat(7),
  which: fc.nat(7),
  isDynamic: fc.boolean(),
  direction: fc.constantFrom("bidirectional" as const, "to-device" as const),
  faultAt: fc.oneof(
    { weight: 4, arbitrary: fc.constant("") },
    { weight: 1, arbitrary: fc.constantFrom(...Object.keys(callbacks)) },
  ),
};

/** Calls that do not wait. */
const command: fc.Arbitrary<Command> = fc.record({
  ...parts,
  form: fc.constantFrom("now" as const, "unlocked" as const),
  fault: fc.constantFrom("throw" as const, "promise" as const),
});

/** Calls of all forms, one after the other; an exporter answers later to those that wait. */
const waiting: fc.Arbitrary<Command> = fc
  .record({
    ...parts,
    form: fc.constantFrom("now" as const, "async" as const, "async" as const),
    fault: fc.constantFrom("throw" as const, "promise" as const, "reject" as const),
  })
  .map((one) => (one.form === "now" && one.fault !== "throw" ? { ...one, faultAt: "" } : one));

const kinds: readonly ExporterKind[] = ["static", "caching", "dynamic"];

describe.each(eachCore)("a buffer and its twin on the $name core", (build) => {
  /** Applies commands to both, and releases everything. */
  async function compare(kind: ExporterKind, commands: Command[]): Promise<void> {
    const system = build.system({ memoryBytes: 2 * MiB });
    const opened = system.stats();
    const [real, model] = [new FuzzedBuffer(system, kind), new DmaBufModel(kind)];
    for (const [i, one] of commands.entries()) {
      if (model.wouldGoOn(one)) continue;
      const expected = [model.apply(one), model.calls, model.isLocked, model.counts];
      const answer = one.form === "async" ? await real.applyAsync(one) : real.apply(one);
      const actual = [answer, real.calls, real.buf.resv.isLocked, real.buf.stats()];
      const name = `command ${i}: ${one.verb} ${one.form}, ${one.fault} at ${one.faultAt}`;
      expect(actual, name).toEqual(expected);
      expect(system.check(), name).toBeNull();
    }
    if (real.buf.resv.isLocked) real.buf.resv.unlock();
    await new Promise((resolve) => setTimeout(resolve, 0)); // what comes late is given back
    real.release();
    real.end();
    expect([real.buf.holders(), system.check(true)]).toEqual([[], null]);
    expect(system.stats()).toEqual(opened);
    system.close();
  }

  const options = { numRuns: RUNS };

  test.each(kinds)("agree on every call of a %s exporter, whatever fails", async (kind) => {
    const commands = fc.array(command, { maxLength: MAX_COMMANDS });
    await fc.assert(
      fc.asyncProperty(commands, (all) => compare(kind, all)),
      options,
    );
  });

  test.each(kinds)("agree on calls that wait for a %s exporter, whatever fails", async (kind) => {
    const commands = fc.array(waiting, { maxLength: MAX_COMMANDS });
    await fc.assert(
      fc.asyncProperty(commands, (all) => compare(kind, all)),
      options,
    );
  });
});
