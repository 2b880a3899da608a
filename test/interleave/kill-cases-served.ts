/**
 * What threads do when they die: they serve buffers, ask for them, and borrow or lend frames.
 *
 * @module
 */

import { type KillCase, type Made, NONE, ok } from "./kill-cases.ts";
import type { Exports } from "./yielding.ts";

const FRAMES = 5;
const EBUSY = -16;

/** A served buffer with details. */
function serve(exports: Exports, made: Made): void {
  made.buffer = ok(exports.bufferServe(4096));
  ok(exports.bufferSetDetails(made.buffer, ok(exports.storageAllocBlocks(1, NONE, 0))));
}

/** A thread that has a link to a served buffer. */
function link(exports: Exports, made: Made): void {
  ok(exports.shareImport(made.buffer, exports.KIND_BUFFER.value));
  made.link = ok(exports.linkAlloc(made.buffer));
}

/** Frames with pins that are in no record, and a table that names them, as JavaScript has it. */
function lend(exports: Exports, made: Made): void {
  made.pfn = ok(exports.frameAlloc(FRAMES, 0, NONE));
  ok(exports.pinRange(made.pfn, FRAMES));
  made.table = ok(exports.sgTableFromRange(made.pfn, FRAMES, 8192));
}

/** Frees what lend() made: that fails unless its frames have exactly the pins that it put there. */
function unlend(exports: Exports, made: Made): void {
  ok(exports.sgTableFree(made.table));
  ok(exports.unpinRange(made.pfn, FRAMES));
  ok(exports.frameFree(made.pfn, FRAMES));
}

const serving: KillCase[] = [
  {
    name: "serve a buffer, and stop",
    run: (d, made) => {
      serve(d, made);
      ok(d.bufferUnserve(made.buffer));
    },
  },
  {
    name: "ask another thread, and let go",
    living: (l, made) => serve(l, made),
    run: (d, made) => {
      link(d, made);
      ok(d.linkPost(made.link, 1, 2, 3));
      ok(d.linkCancel(made.link));
      ok(d.linkPost(made.link, 1, 2, 3));
      ok(d.linkFree(made.link));
      ok(d.bufferFree(made.buffer));
    },
    after: (l, made) => {
      if (l.linkNext() !== 0) throw new Error("a question of the dead is left");
      if (l.bufferUnserve(made.buffer) !== 0) throw new Error("the dead holds the buffer");
    },
  },
  {
    name: "answer another thread",
    doomed: (d, made) => serve(d, made),
    run: (d, made) => {
      const living = made as unknown as { l: Exports };
      link(living.l, made);
      ok(living.l.linkPost(made.link, 1, 2, 3));
      if (d.linkNext() !== made.link) throw new Error("the question is not there");
      ok(d.linkAnswer(made.link, 0, 4, 5, 0));
    },
    living: (l, made) => Object.assign(made, { l }),
    after: (l, made) => {
      if (l.linkPost(made.link, 1, 0, 0) >= 0) throw new Error("a dead thread was asked");
      ok(l.linkFree(made.link));
      ok(l.bufferFree(made.buffer));
    },
  },
  {
    name: "leave while another thread asks",
    doomed: (d, made) => {
      serve(d, made);
      const { l } = made as unknown as { l: Exports };
      link(l, made);
      ok(l.linkPost(made.link, 1, 2, 3));
    },
    run: (d) => d.coreLeave(),
    living: (l, made) => Object.assign(made, { l }),
    after: (l, made) => {
      if (l.linkPost(made.link, 1, 0, 0) === EBUSY) throw new Error("nobody answers for the dead");
      ok(l.linkFree(made.link));
      ok(l.bufferFree(made.buffer));
    },
  },
];

const borrowing: KillCase[] = [
  {
    name: "borrow a table of another thread, and return it",
    living: (l, made) => lend(l, made),
    run: (d, made) => {
      const copy = ok(d.tableBorrow(made.table));
      const pin = ok(d.pinAdd(copy));
      ok(d.pinRemove(pin));
      ok(d.tableReturn(copy));
    },
    after: unlend,
  },
  {
    name: "take back what another thread has borrowed",
    living: (l, made) => Object.assign(made, { l }),
    doomed: (d, made) => {
      lend(d, made);
      const { l } = made as unknown as { l: Exports };
      made.copy = ok(l.tableBorrow(made.table));
    },
    run: (d, made) => {
      ok(d.sgTableFree(made.table));
      ok(d.unpinRange(made.pfn, FRAMES));
      if (d.frameFree(made.pfn, FRAMES) !== EBUSY) throw new Error("borrowed frames were freed");
    },
    after: (l, made) => {
      ok(l.tableReturn(made.copy));
      if (l.threadState(1) !== 0) throw new Error("the dead thread's slot is taken");
    },
  },
  {
    name: "borrow a table twice",
    living: (l, made) => lend(l, made),
    run: (d, made) => {
      const copies = [ok(d.tableBorrow(made.table)), ok(d.tableBorrow(made.table))];
      for (const copy of copies) ok(d.tableReturn(copy));
    },
    after: unlend,
  },
];

/** The cases with served buffers, links and borrowed tables. */
export const servedCases: readonly KillCase[] = [...serving, ...borrowing];
