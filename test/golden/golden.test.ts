/**
 * The judge itself: the repository's records pass, and what must fail does.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { classes, type DifferenceClass } from "./classes.ts";
import type { GoldenRecord } from "./fields.ts";
import { type GoldenFile, ownRecords, parseFile, readFolder, repositoryRoot } from "./files.ts";
import { type JudgeOptions, judge, type Report } from "./judge.ts";

const options: JudgeOptions = { core: { shared: false }, mustUseClasses: false };

const fromPages = {
  k: "from_pages",
  runs: [[5, 3]],
  offset: 0,
  size: 12288,
  maxSeg: 8192,
  ret: 0,
  nents: 2,
  origNents: 2,
  sgl: [
    [5, 0, 8192],
    [7, 0, 4096],
  ],
};

function judgeRecords(records: readonly GoldenRecord[], area = "C", more = {}): Report {
  return judge([{ name: "test.json", area, records }], { ...options, ...more });
}

describe("the repository's records", () => {
  let files: readonly GoldenFile[];
  let report: Report;

  beforeAll(() => {
    const read = readFolder(ownRecords());
    expect(read.failures).toEqual([]);
    files = read.files;
    report = judge(files, { ...options, mustUseClasses: true });
  });

  test("pass, and every class matches one", () => {
    expect(report.failures).toEqual([]);
  });

  test("are counted once each", () => {
    const total = files
      .filter(({ area }) => area !== "selftests")
      .reduce((sum, { records }) => sum + records.length, 0);
    let counted = 0;
    for (const tally of report.areas.values()) {
      const { records, equal, explained, pending, different } = tally;
      expect(records).toBe(equal + explained + pending + different);
      counted += records;
    }
    expect(counted).toBe(total);
  });
});

describe("a record fails", () => {
  test("control: as recorded, it passes", () => {
    const report = judgeRecords([fromPages]);
    expect(report.failures).toEqual([]);
    expect(report.areas.get("C")).toMatchObject({ records: 1, equal: 1, different: 0 });
  });

  test.each([
    ["a changed number", { nents: 3 }],
    ["a changed list", { sgl: [[5, 0, 12288]] }],
    ["a changed return value", { ret: -22 }],
  ])("with %s", (_, change) => {
    const report = judgeRecords([{ ...fromPages, ...change }]);
    expect(report.failures).toHaveLength(1);
    expect(report.failures[0]).toMatch(/test\.json, record 0 \(from_pages\): .*expected/);
    expect(report.areas.get("C")).toMatchObject({ equal: 0, different: 1 });
  });

  test.each([
    ["without a field", { size: undefined }, /the field "size" .* must be a number/],
    ["with a field of another type", { runs: "none" }, /the field "runs" .* lists of numbers/],
    ["with a short row", { runs: [[5]] }, /has no element 1/],
  ])("%s", (_, change, message) => {
    const { failures } = judgeRecords([{ ...fromPages, ...change }]);
    expect(failures).toHaveLength(1);
    expect(failures[0]).toMatch(message);
  });

  test("of an unknown kind, also one named like a method", () => {
    const { failures } = judgeRecords([{ k: "teleport" }, { k: "toString" }]);
    expect(failures).toEqual([
      "test.json, record 0 (teleport): unknown kind",
      "test.json, record 1 (toString): unknown kind",
    ]);
  });

  test("of an unknown area", () => {
    expect(judgeRecords([], "Z").failures).toEqual(['test.json: unknown area "Z"']);
  });

  test.each([
    ["a placement", [0, 4, 0, 0], [0, 4, 0, 5]],
    ["a release", [0, 4, 0, 0], [1, 8, 4]],
    ["the number of used bits", [0, 4, 0, 0], [2, 5]],
  ])("of a script with another result of %s", (_, ...ops) => {
    const script = { k: "script", basePfn: 7, count: 64, orderPerBit: 0, ops };
    const { failures } = judgeRecords([{ ...script, finalWeight: 0, finalFnv: 0 }], "D");
    expect(failures[0]).toMatch(/op 1 /);
  });

  test("when a range is found where none was taken", () => {
    const iova = { k: "plain", startPfn: 1, ops: [[2, 100, 90, 110]] };
    expect(judgeRecords([iova], "E").failures[0]).toMatch(/contradicts itself/);
  });
});

describe("a class", () => {
  const short = { ...fromPages, k: "odd_size", size: 40960 };

  test("explains a record that it matches, whatever the record says", () => {
    const report = judgeRecords([short]);
    expect(report.failures).toEqual([]);
    expect(report.areas.get("C")).toMatchObject({ explained: 1, equal: 0 });
    expect(report.matched.get("size-must-fit-pages")).toBe(1);
  });

  test("fails a record that gives another result than the class says", () => {
    const wrong = classes.map((one): DifferenceClass => ({ ...one, instead: () => ({ ret: -5 }) }));
    const { failures } = judgeRecords([short], "C", { classes: wrong });
    expect(failures[0]).toMatch(/ret is -22, expected -5/);
  });

  test("that matches nothing fails the run on the repository's records", () => {
    const { failures } = judgeRecords([fromPages], "C", { mustUseClasses: true });
    expect(failures).toContain("The class size-must-fit-pages matches no record: remove it.");
    expect(failures).toHaveLength(classes.length);
  });

  test("is a row of docs/differences-from-linux.md", () => {
    const text = readFileSync(join(repositoryRoot(), "docs/differences-from-linux.md"), "utf8");
    const rows = text.matchAll(/^\| `([a-z0-9-]+)` +\|/gm);
    expect([...rows].map(([, name]) => name).sort()).toEqual(
      classes.map(({ name }) => name).sort(),
    );
  });
});

describe("a scenario", () => {
  const counts = { fileCount: 1, vmapCount: 0 };
  const done = { trace: [] as string[], ...counts };
  const attach = { op: "attach", a: 0, importer: "dynamic", ret: 0, ...done };
  const lastPut = { op: "dma_buf_put", last: true, ret: null, trace: ["release unlocked"] };

  function replay(ops: readonly string[], ...steps: object[]): Report {
    const record = { k: "scenario", ops, size: 4096, fileCountAfterExport: 1, steps };
    return judgeRecords([record], "B");
  }

  test("goes on as Linux did behind a detach that is refused", () => {
    const map = { op: "map", a: 0, dir: "TO_DEVICE", how: "resv_held" };
    const report = replay(
      ["pin+unpin", "vmap"],
      attach,
      { ...map, ret: "sgt1", ...done, trace: ["map a0 TO_DEVICE locked -> sgt1"] },
      { op: "pin", a: 0, ret: 0, ...done, trace: ["pin a0 locked"] },
      { op: "vmap", ret: 0, ...done, trace: ["vmap unlocked"], vmapCount: 1 },
      { op: "inject", what: "vmap", value: -12 },
      { op: "vmap", ret: 0, ...done, vmapCount: 2 },
      { op: "detach", a: 0, ret: null, ...done, vmapCount: 2 },
      { op: "move_notify", ret: null, ...done, vmapCount: 2 },
      { ...attach, vmapCount: 2 },
      { op: "detach", a: 0, ret: null, ...done, vmapCount: 2 },
      { op: "vunmap", ret: null, ...done, vmapCount: 1 },
      { op: "vunmap", ret: null, ...done },
      lastPut,
    );
    expect(report.failures).toEqual([]);
    expect(report.areas.get("B")).toMatchObject({ explained: 1 });
  });

  test("whose importer detaches with a pin left is explained", () => {
    const pin = { op: "pin", a: 0, ret: 0, ...done, trace: ["pin a0 locked"] };
    const detach = { op: "detach", a: 0, ret: null, ...done };
    const report = replay(["pin+unpin"], attach, pin, detach, lastPut);
    expect(report.failures).toEqual([]);
    expect(report.matched.get("in-use-is-not-freed")).toBe(1);
  });

  test.each([-110, -512, 7])("may inject %i, which the library has no name for", (value) => {
    const report = replay(
      ["vmap"],
      { op: "inject", what: "vmap", value },
      { op: "vmap", ret: value, ...done, trace: ["vmap unlocked"] },
      lastPut,
    );
    expect(report.failures).toEqual([]);
  });

  test("may be about a buffer that is larger than the memory", () => {
    const trace = ["mmap pgoff=268435455 pages=1 fileIsDmabuf=1 unlocked"];
    const mmap = { op: "mmap", pgoff: "268435455", pages: 1, ret: 0, trace, ...counts };
    const steps = [mmap, { ...mmap, pages: 2, ret: -22, trace: [] }, lastPut];
    const record = { k: "scenario", ops: ["mmap"], size: 2 ** 40, fileCountAfterExport: 1, steps };
    expect(judgeRecords([record], "B").failures).toEqual([]);
  });
});

describe("null arguments and broken exports", () => {
  test.each([
    "dma_buf_attach(NULL,NULL)",
    "dma_buf_dynamic_attach(buf,NULL,NULL,NULL)",
    "dma_buf_map_attachment_unlocked(NULL,TO_DEVICE)",
    "dma_buf_mmap(buf,NULL,0)",
  ])("%s is EINVAL", (call) => {
    expect(judgeRecords([{ k: "null_args", call, ret: -22 }], "B").failures).toEqual([]);
  });

  test.each(["unpin only and cache_sgt_mapping", "pin only"])("%s is EINVAL", (name) => {
    expect(judgeRecords([{ k: "export", case: name, ret: -22 }], "B").failures).toEqual([]);
  });

  test("a case that nobody knows fails", () => {
    const { failures } = judgeRecords([{ k: "export", case: "pin and moon", ret: -22 }], "B");
    expect(failures[0]).toMatch(/what is moon\?/);
  });
});

describe("a record of system calls", () => {
  const created = { r: "OK", seekEnd: 4096 };
  const udmabuf = { k: "udmabuf_create", flags: 0, offset: "0", size: "4096" };

  test.each<readonly [string, GoldenRecord]>([
    ["a seal beside a size", { ...udmabuf, what: "memfd of 3 pages, F_SEAL_GROW", r: "EINVAL" }],
    ["seals", { ...udmabuf, what: "memfd of 9 pages, F_SEAL_SHRINK|F_SEAL_SEAL", ...created }],
    ["no sealing", { ...udmabuf, what: "memfd without MFD_ALLOW_SEALING", r: "EINVAL" }],
    ["another file", { ...udmabuf, what: "sync_file fd", r: "EBADFD" }],
    ["a closed descriptor", { ...udmabuf, what: "closed memfd", r: "EBADFD" }],
    ["a long list", { k: "udmabuf_list", what: "n items", count: 2 ** 32 - 1, r: "EINVAL" }],
    ["an item", { k: "udmabuf_list", what: "third item no seals", count: 3, r: "EINVAL" }],
    ["a negative number", { k: "heap_multi", heap: "system", what: "fd -1", r: "EINVAL" }],
    ["flags", { k: "heap_multi", heap: "system", what: "fdFlags O_RDWR|O_CLOEXEC", r: "OK" }],
    ["a command", { k: "fdop", op: "F_SETFL O_APPEND|O_NONBLOCK", r: "OK", getfl: 3074 }],
    ["a file's call", { k: "fdop", op: "sw_sync pread", r: "EINVAL" }],
    ["what is imported", { k: "import_sync_file_badfd", fd: "pipe and flags 4", r: "EINVAL" }],
    ["what is merged", { k: "merge_args", what: "fd2 is a memfd", r: "ENOENT" }],
    [
      "64 bits",
      {
        k: "mmap",
        size: 8192,
        mode: "R shared",
        len: "18446744073709551615",
        offset: 0,
        r: "ENOMEM",
      },
    ],
    [
      "an offset",
      { k: "lseek", size: 8192, offset: "-9223372036854775808", whence: 2, r: -1, errno: "EINVAL" },
    ],
  ])("may name %s", (_, record) => {
    const report = judgeRecords([record], "A");
    expect(report.failures).toEqual([]);
    expect(report.areas.get("A")).toMatchObject({ equal: 1 });
  });
});

describe("a file is refused", () => {
  test.each([
    ["that is not JSON", "{", /^x\.json is not JSON: /],
    ["that holds a list", "[]", /^x\.json must hold an object$/],
    ["without an area", '{"records":[]}', /"area"/],
    ["without records", '{"area":"C"}', /"records"/],
    ["with a record without a kind", '{"area":"C","records":[{}]}', /^x\.json, record 0: /],
  ])("%s", (_, text, message) => {
    expect(parseFile("x.json", text)).toMatch(message);
  });

  test("that lies in no folder", () => {
    expect(readFolder("/no/such/folder").failures).toEqual(["/no/such/folder is not a folder"]);
  });
});
