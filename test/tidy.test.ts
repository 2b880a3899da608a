import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { describe, expect, test } from "vitest";

const root = new URL("..", import.meta.url).pathname;

function filesBelow(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return filesBelow(path);
    return /\.(ts|mjs)$/.test(entry.name) && !entry.name.includes(".generated.") ? [path] : [];
  });
}

const read = (file: string): string => readFileSync(join(root, file), "utf8");
const assembly = filesBelow("assembly").map((file) => relative("assembly", file));
const sources = filesBelow("src").map((file) => relative("src", file));
const programs = ["bench", "examples", "scripts", "test"].flatMap(filesBelow);
const everything = [
  ...assembly.map((f) => join("assembly", f)),
  ...sources.map((f) => join("src", f)),
  ...programs,
];

/** Files that a file imports, without folders or endings. */
function imports(text: string): string[] {
  return [...text.matchAll(/from "(\.[^"]+)"/g)].map((match) => match[1] as string);
}

/** The core, bottom-up: a file imports only files of earlier lines. */
const coreOrder = [
  "errno bits panic layout",
  "fault",
  "thread page",
  "lock",
  "bitmap-lanes bitmap-words bitmap-check bitmap-count bitmap",
  "chunk free-list steal quarantine buddy magazine pin",
  "warm",
  "slab",
  "object",
  "share",
  "region",
  "movable",
  "migrate",
  "contig",
  "cma",
  "cma-release",
  "sg-entries sg-pack sg sg-grow sg-split",
  "pin-table",
  "storage",
  "buffer",
  "pool-table pool",
  "frames",
  "iova-node iova-space iova-path iova-tree iova-slots iova-table",
  "iova-block iova-dissolve iova-check iova",
  "pte pgtable-format pgtable-tree pgtable-walk pgtable-dirty pgtable pgtable-frames",
  "boundary bounce sg-pin",
  "iotlb flush-queue",
  "iommu iommu-iova iommu-access iommu-dirty",
  "dma-device",
  "iommu-dma",
  "dma-bounce dma-cache dma-order",
  "dma-sync",
  "dma dma-access",
  "dma-frames",
  "fence",
  "check-frames check-dma check",
  "link",
  "rebuild",
  "iova-mark iova-rebuild",
  "sweep",
  "reap-dma",
  "reap",
  "borrow",
  "boot",
  "index",
].map((line) => line.split(" "));

/** The library, bottom-up: a folder or file imports only earlier lines, or its own folder. */
const sourceOrder = [
  [
    "errors.ts",
    "arguments.ts",
    "units.ts",
    "direction.ts",
    "clock.ts",
    "stacks.ts",
    "dma-buf/formats.ts",
  ],
  ["core"],
  ["files"],
  ["fence"],
  ["mm"],
  ["iommu"],
  ["device"],
  ["dma-buf"],
  ["heaps", "module"],
  ["workers"],
  ["system-options.ts", "system-stats.ts", "system-closing.ts"],
  ["system.ts"],
  ["adapters"],
  ["uapi"],
  ["index.ts", "inspect"],
];

const lines = (text: string): string[] => text.split("\n");

/** Pictures of memory may be as wide as what they show, and titles of tests as what they say. */
const isPicture = (line: string): boolean =>
  /[├┼┤│└►┌┘]|^\s*(test|describe)\(/.test(line) && line.length <= 130;

const functionHead = new RegExp(
  [
    String.raw`^(\s*)(?:export )?(?:async )?`,
    String.raw`(?:function\*? (\w+)|(?:static |readonly |async |get |set )*(#?\w+)\(.*\{$)`,
  ].join(""),
);

/** [name, length] of every function of a file, by its indentation. */
function functionLengths(text: string): [name: string, length: number][] {
  const found: [string, number][] = [];
  const all = lines(text);
  for (const [start, line] of all.entries()) {
    const head = functionHead.exec(line);
    if (head === null || /^\s*(if|for|while|switch|return|describe|test|it)\b/.test(line)) continue;
    const end = all.findIndex((other, i) => i > start && other.startsWith(`${head[1]}}`));
    if (end > start) found.push([head[2] ?? head[3] ?? "?", end - start + 1]);
  }
  return found;
}

/** What a file gives to others. */
const exported =
  /^(?:@inline )?export (?:(?:abstract|async) )?(?:class|function\*?|const|type|interface) (\w+)/gm;

/** What opens an invariant in a file's head: "// B1  A block …", " * - FD1  A slot …". */
const invariantHead = /^(?:\/\/| \* -) ([A-Z]{1,3}\d{1,2})(?: {2}|(?<=\d\d) )\S/gm;

describe("tidy", () => {
  test("files of the core import only files below them", () => {
    const rank = new Map(coreOrder.flatMap((names, i) => names.map((name) => [name, i] as const)));
    expect(
      assembly.map((file) => file.replace(".ts", "")).filter((name) => !rank.has(name)),
    ).toEqual([]);
    const wrong = assembly.flatMap((file) => {
      const own = rank.get(file.replace(".ts", "")) ?? -1;
      return imports(read(join("assembly", file)))
        .filter((target) => (rank.get(target.replace("./", "")) ?? 99) > own)
        .map((target) => `${file} imports ${target}`);
    });
    expect(wrong).toEqual([]);
  });

  test("no two files of the core import each other", () => {
    const graph = new Map(
      assembly.map((file) => [
        file.replace(".ts", ""),
        imports(read(join("assembly", file))).map((t) => t.replace("./", "")),
      ]),
    );
    const cycles: string[] = [];
    const visit = (name: string, path: string[]): void => {
      if (path.includes(name)) cycles.push([...path.slice(path.indexOf(name)), name].join(" > "));
      else for (const target of graph.get(name) ?? []) visit(target, [...path, name]);
    };
    for (const name of coreOrder.flat()) if (cycles.length === 0) visit(name, []);
    expect(cycles).toEqual([]);
  });

  test("files of the library import only layers below them", () => {
    const layerOf = (path: string): number =>
      sourceOrder.findIndex((names) =>
        names.some((name) => path === name || path.startsWith(`${name}/`)),
      );
    const wrong = sources.flatMap((file) => {
      expect(layerOf(file), file).toBeGreaterThanOrEqual(0);
      return imports(read(join("src", file)))
        .map((target) => join(file, "..", target))
        .filter((target) => layerOf(target) > layerOf(file) || layerOf(target) < 0)
        .map((target) => `${file} imports ${target}`);
    });
    expect(wrong).toEqual([]);
  });

  test("only src/core knows WebAssembly, and only units.ts shifts", () => {
    for (const file of sources.filter((name) => !name.startsWith("core/"))) {
      const code = read(join("src", file)).replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, "");
      expect(/\bWebAssembly\b|\.buffer\b|\bDataView\b/.exec(code)?.[0], file).toBeUndefined();
      if (file !== "units.ts") expect(/ (<<|>>|>>>) (?!0\b)/.exec(code)?.[0], file).toBeUndefined();
    }
  });

  test("load and store stay in struct helpers and bit arithmetic", () => {
    const structs =
      "page thread slab object pte pgtable pgtable-tree bitmap bitmap-lanes bitmap-words";
    const nodes = "bitmap-check bitmap-count iova-node iova-space iova-path iova-slots iova-tree";
    const allowed = `${structs} ${nodes}`.split(" ").map((name) => `${name}.ts`);
    for (const file of assembly.filter((name) => !allowed.includes(name))) {
      expect(
        /(?<!atomic\.)\b(load|store)</.exec(read(join("assembly", file)))?.[0],
        file,
      ).toBeUndefined();
    }
  });

  test("the core keeps no state of its own and throws no strings", () => {
    for (const file of assembly) {
      const text = read(join("assembly", file));
      expect(
        /^(export )?let |^\s+static (?!at\(|of\()|\bnew \w+\(|memory\.data|\bthrow\b/m.exec(
          text,
        )?.[0],
        file,
      ).toBeUndefined();
    }
  });

  test("every file opens by saying what it owns", () => {
    for (const file of everything) {
      if (/\.test\.ts$|vitest\.config/.test(file)) continue;
      const text = read(file).replace(/^#!.*\n/, "");
      expect(/^(\/\/ |\/\*\*)/.test(text), file).toBe(true);
    }
  });

  test("an invariant's id means one thing in the core, and one in the library", () => {
    const areas = [
      assembly.map((file) => join("assembly", file)),
      sources.map((file) => join("src", file)),
    ];
    for (const files of areas) {
      const homes = new Map<string, string>();
      for (const file of files) {
        const ids = [...read(file).matchAll(invariantHead)].map(([, id]) => id as string);
        for (const id of ids) {
          expect(homes.get(id), `${id} of ${file}`).toBeUndefined();
          homes.set(id, file);
        }
      }
      expect(homes.size).toBeGreaterThan(100);
    }
  });

  test("files have at most 400 lines of at most 100 columns, functions at most 70 lines", () => {
    const long = everything.flatMap((file) => {
      const text = read(file);
      const wide = lines(text).flatMap((line, i) =>
        line.length > 100 && !isPicture(line)
          ? [`${file}:${i + 1} has ${line.length} columns`]
          : [],
      );
      const functions = functionLengths(text).flatMap(([name, count]) =>
        count > 70 ? [`${file} ${name}() has ${count} lines`] : [],
      );
      const { length } = lines(text);
      const tall = length > 401 ? [`${file} has ${length} lines`] : [];
      return [...wide, ...functions, ...tall];
    });
    expect(long).toEqual([]);
  });

  test("what a file exports, another one uses", () => {
    const users = new Map<string, number>();
    const wordsOf = (file: string): Set<string> => new Set(read(file).match(/\w+/g));
    for (const word of everything.flatMap((file) => [...wordsOf(file)]))
      users.set(word, (users.get(word) ?? 0) + 1);
    const toUsers = "src/uapi/constants.ts"; // all of it is the package's
    const unused = everything
      .filter((f) => /^(assembly|src)\b/.test(f) && f !== toUsers)
      .flatMap((file) =>
        [...read(file).matchAll(exported)]
          .map(([, name]) => name as string)
          .filter((name) => (users.get(name) ?? 0) < 2)
          .map((name) => `${file} exports ${name}`),
      );
    expect(unused).toEqual([]);
  });

  test("index files only export", () => {
    for (const file of everything.filter((name) => /(^|\/)index\.ts$/.test(name))) {
      const code = read(file).replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, "");
      expect(
        code
          .split(";")
          .map((part) => part.trim())
          .filter((part) => part !== "" && !part.startsWith("export ")),
        file,
      ).toEqual([]);
    }
  });

  test("every file of the core and the library is reached from an entry point", () => {
    const reachable = (start: string[], folder: string): Set<string> => {
      const seen = new Set<string>();
      const visit = (file: string): void => {
        if (seen.has(file)) return;
        seen.add(file);
        for (const target of imports(read(join(folder, file)))) {
          const path = join(file, "..", target);
          if (!path.includes(".generated.")) visit(path.endsWith(".ts") ? path : `${path}.ts`);
        }
      };
      for (const file of start) visit(file);
      return seen;
    };
    expect(assembly.filter((file) => !reachable(["index.ts"], "assembly").has(file))).toEqual([]);
    const entries = [
      "index.ts",
      "core/index.ts",
      "inspect/index.ts",
      "uapi/index.ts",
      "adapters/index.ts",
    ];
    expect(sources.filter((file) => !reachable(entries, "src").has(file))).toEqual([]);
  });

  test("every exported name of the library has a doc comment", () => {
    const bare = sources.flatMap((file) => {
      const all = lines(read(join("src", file)));
      return all.flatMap((line, i) => {
        if (
          !/^export (?:async )?(?:abstract )?(?:function|class|const|interface|type) \w/.test(line)
        )
          return [];
        return (all[i - 1] ?? "").trim().endsWith("*/") ? [] : [`${file}:${i + 1} ${line}`];
      });
    });
    expect(bare).toEqual([]);
  });

  test("every invariant that is cited is stated at the head of a file", () => {
    const texts = assembly.map((file) => read(join("assembly", file)));
    const stated = new Set(
      texts.flatMap((text) =>
        [...text.matchAll(/^\/\/ ([A-Z]\d+) {2}/gm)].map((match) => match[1]),
      ),
    );
    const cited = texts.flatMap((text) =>
      [...text.matchAll(/must\([^;]*?, ([A-Z]\d+)\b/g)].map((match) => match[1]),
    );
    expect(cited.length).toBeGreaterThan(10);
    expect(cited.filter((id) => !stated.has(id))).toEqual([]);
  });
});
