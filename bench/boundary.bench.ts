/**
 * What does it cost to call the core at all? The floor under every other row.
 *
 * One call from JavaScript to an exported function of the core that does next to nothing, beside
 * ways to read a word without a call. Nanoseconds per call; the loop around it is in the numbers.
 *
 * @module
 */

import assert from "node:assert/strict";
import { openCoreSync } from "dmabuf/core";
import type { Family, Job, Suite } from "./suite.ts";

const INDEX_MASK = 511;
const ESTALE = -116;

/** Adds the rows. Each has a loop of its own, so that every call site knows one function. */
export const family: Family = (suite: Suite) => {
  const core = openCoreSync({ memoryBytes: 16 * 2 ** 20 });
  const { scratchAt, frameWord, sgNentsForLen, dmaSpans } = core.exports;

  suite.row("boundary/call/0-arguments", "call", () => ({
    run(count) {
      let seen = 0;
      for (let i = 0; i < count; i++) seen |= scratchAt();
      assert.equal(seen, core.scratch.byteOffset);
    },
  }));
  suite.row("boundary/call/1-argument", "call", () => ({
    run(count) {
      let seen = 0;
      for (let i = 0; i < count; i++) seen |= frameWord(i & INDEX_MASK);
      assert.notEqual(seen, 0);
    },
  }));
  suite.row("boundary/call/2-arguments", "call", () => ({
    run(count) {
      let seen = -1;
      for (let i = 0; i < count; i++) seen &= sgNentsForLen(0, i);
      assert.equal(seen, ESTALE);
    },
  }));
  suite.row("boundary/call/5-arguments", "call", () => ({
    run(count) {
      let seen = -1;
      for (let i = 0; i < count; i++) seen &= dmaSpans(0, i, 0, 1, 1);
      assert.equal(seen, ESTALE);
    },
  }));

  const peer = (by: string, setUp: () => Job): void =>
    suite.peer("boundary/call/1-argument", by, "call", setUp);
  peer("word of a cached Uint32Array", () => {
    const words = core.scratch.fill(1);
    return {
      run(count) {
        let seen = 0;
        for (let i = 0; i < count; i++) seen |= words[i & INDEX_MASK] ?? 0;
        assert.equal(seen, 1);
      },
    };
  });
  peer("word through a DataView", () => {
    const view = new DataView(core.memory.buffer, core.scratch.fill(1).byteOffset);
    return {
      run(count) {
        let seen = 0;
        for (let i = 0; i < count; i++) seen |= view.getUint32((i & INDEX_MASK) * 4, true);
        assert.equal(seen, 1);
      },
    };
  });
};
