import { describe, expect, test } from "vitest";
import {
  FdTable,
  isGplCompatible,
  MiB,
  type ModuleInfo,
  markOf,
  openSync,
  type SymbolName,
  type SymbolPolicy,
  symbolNames,
} from "../../../src/index.ts";
import { expectError, expectRefusal } from "../../support/errors.ts";

const open = (symbolPolicy?: SymbolPolicy) =>
  openSync({ memoryBytes: 8 * MiB, ...(symbolPolicy && { symbolPolicy }) });
const info = <Name extends SymbolName>(
  license: string,
  uses: readonly Name[],
  imports = ["DMA_BUF"],
): ModuleInfo<Name> => ({ name: "driver", license, uses, imports });

describe("symbol licensing", () => {
  test.each([
    ["gpl-only", "GPL", true],
    ["gpl-only", "Dual MIT/GPL", true],
    ["gpl-only", "Proprietary", false],
    ["gpl-only", "MIT", false],
    ["any", "GPL", true],
    ["any", "Proprietary", true],
  ] as const)(
    "under policy %s a module of licence %s sees dma_buf_export: %s",
    (policy, license, sees) => {
      const system = open(policy);
      expect(system.symbols.visibleTo(license).includes("dma_buf_export")).toBe(sees);
      const load = () => system.loadModule(info(license, ["dma_buf_export"]));
      if (sees) expect(load().symbols.dma_buf_export).toBeTypeOf("function");
      else
        expect(expectRefusal(system, "ENOENT", load)).toBe(
          "Cannot load module driver: unknown symbol dma_buf_export: only GPL-compatible modules " +
            `see it, and its licence is ${license}`,
        );
    },
  );

  test("a proprietary module sees fences, sync files and the adding side of reservations", () => {
    const seen = open().symbols.visibleTo("Proprietary");
    expect(seen.filter((name) => name.startsWith("dma_buf_"))).toEqual([]);
    expect(seen).toEqual(expect.arrayContaining(["dma_fence_signal", "sync_file_create"]));
    expect(seen.filter((name) => name.startsWith("dma_resv_"))).toEqual([
      "dma_resv_init",
      "dma_resv_reserve_fences",
      "dma_resv_add_fence",
      "dma_resv_replace_fences",
      "dma_resv_copy_fences",
    ]);
    expect(seen).not.toContain("__dma_fence_unwrap_merge");
    expect(open("any").symbols.visibleTo("Proprietary")).toEqual(symbolNames);
  });

  test("an unknown symbol is ENOENT under every policy, and is named", () => {
    for (const policy of ["gpl-only", "any"] as const) {
      const system = open(policy);
      const wrong = info("GPL", ["dma_buf_exprot" as SymbolName]);
      expect(expectRefusal(system, "ENOENT", () => system.loadModule(wrong))).toContain(
        "unknown symbol dma_buf_exprot",
      );
      const sneaky = info("GPL", ["toString" as SymbolName]);
      expectRefusal(system, "ENOENT", () => system.loadModule(sneaky));
    }
  });

  test("a symbol of a namespace needs its import", () => {
    const system = open();
    const lacking = info("GPL", ["dma_buf_put"], []);
    expect(expectRefusal(system, "EINVAL", () => system.loadModule(lacking))).toContain(
      "dma_buf_put of namespace DMA_BUF",
    );
    expect(markOf("dma_buf_put")).toEqual({ license: "gpl", namespace: "DMA_BUF" });
    system.loadModule(info("Proprietary", ["dma_fence_signal"], []));
  });

  test("licences are compatible as Linux lists them", () => {
    const compatible = ["GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL"];
    for (const license of compatible) expect(isGplCompatible(license)).toBe(true);
    for (const license of ["gpl", "BSD", "MIT", "Proprietary", "GPL v3"])
      expect(isGplCompatible(license)).toBe(false);
    expectError("EINVAL", () => open("none" as SymbolPolicy));
  });
});

describe("module owners", () => {
  const uses = ["dma_buf_export", "dma_buf_put", "dma_buf_get", "dma_buf_fd"] as const;

  test("a module in use cannot be unloaded, and its buffers hold it", () => {
    const system = open();
    const module = system.loadModule(info("GPL", uses));
    const ops = { map: unused, unmap: unused, release: () => {} };
    const buf = module.symbols.dma_buf_export({ ops, sizeBytes: 4096 });
    expect([buf.exporterName, module.refCount]).toEqual(["driver", 1]);
    expect(expectRefusal(system, "EBUSY", () => module.unload())).toContain("1 use left");
    const fd = module.symbols.dma_buf_fd(buf, system.files);
    expectRefusal(system, "EBUSY", () => module.unload());
    module.symbols.dma_buf_put(module.symbols.dma_buf_get(fd, system.files));
    system.files.close(fd);
    expect(module.refCount).toBe(0);
    module.unload();
    expect([module.isLoaded, system.symbols.modules]).toEqual([false, []]);
    expectError("ENOENT", () => module.unload());
  });

  test("an export after unload is ENOENT, through the symbol and by ExportInfo.owner", () => {
    const system = open();
    const module = system.loadModule(info("GPL", uses));
    module.unload();
    const ops = { map: unused, unmap: unused, release: () => {} };
    expectRefusal(system, "ENOENT", () => module.symbols.dma_buf_export({ ops, sizeBytes: 1 }));
    expectRefusal(system, "ENOENT", () =>
      system.export({ ops, sizeBytes: 1, exporterName: "mine", owner: module }),
    );
    const again = system.loadModule(info("GPL", uses));
    expect(again.tryGet()).toBe(true);
    again.put();
    expectError("EINVAL", () => again.put());
    again.unload();
    system.close();
  });

  test("two modules of one name, and modules without name or licence, are refused", () => {
    const system = open();
    const module = system.loadModule(info("GPL", []));
    expect(system.symbols.modules).toEqual([module]);
    expectRefusal(system, "EEXIST", () => system.loadModule(info("GPL", [])));
    expectRefusal(system, "EINVAL", () =>
      system.loadModule({ name: "", license: "GPL", uses: [] }),
    );
    expectRefusal(system, "EINVAL", () => system.loadModule({ name: "x", license: "", uses: [] }));
  });

  test("a module works through its symbols alone", async () => {
    const system = open();
    const { symbols } = system.loadModule(info("GPL", symbolNames));
    const gpu = system.addDevice({ name: "gpu", iommu: true });
    const buf = system.heap("system").alloc(8192);
    const attachment = symbols.dma_buf_attach(buf, gpu);
    const mapping = symbols.dma_buf_map_attachment(attachment, "to-device");
    expect(mapping.lengthBytes).toBe(8192);
    symbols.dma_buf_unmap_attachment(attachment, mapping, "to-device");
    expectError("EINVAL", () => symbols.dma_buf_detach(system.heap("system").alloc(1), attachment));
    symbols.dma_buf_detach(buf, attachment);
    expect(symbols.dma_buf_begin_cpu_access(buf, "to-device")).toBe(0);
    expect(symbols.dma_buf_end_cpu_access(buf, "to-device")).toBe(0);
    symbols.dma_buf_mmap(buf).unmap();
    symbols.dma_buf_vunmap(buf, symbols.dma_buf_vmap(buf));

    const context = symbols.dma_fence_context_alloc(1);
    const [first, second] = [1, 2].map((seqno) => symbols.dma_fence_init("job", context, seqno));
    if (first === undefined || second === undefined) throw new Error("no fences");
    symbols.dma_resv_reserve_fences(buf.resv, 1);
    symbols.dma_resv_add_fence(buf.resv, second, "write");
    expect(symbols.dma_resv_get_singleton(buf.resv, "write")).toBe(second);
    const merged = symbols.__dma_fence_unwrap_merge(first, second);
    expect(merged).toBe(second);
    const files = new FdTable();
    const fd = files.install(symbols.sync_file_create(merged));
    expect(symbols.sync_file_get_fence(fd, files)).toBe(second);
    const other = symbols.dma_buf_fd(buf.get(), files);
    expectError("EINVAL", () => symbols.sync_file_get_fence(other, files));
    files.closeAll();
    const chain = symbols.dma_fence_chain_init(first, second, 2);
    expect([...symbols.dma_fence_chain_walk(chain)]).toHaveLength(2);
    const waiting = symbols.dma_fence_wait_timeout(second);
    expect(symbols.dma_fence_signal(second)).toBe(true);
    await waiting;
    await symbols.dma_resv_wait_timeout(buf.resv, "read");
    expect(symbols.dma_resv_test_signaled(buf.resv, "bookkeep")).toBe(true);
    expect(symbols.dma_fence_get_status(symbols.dma_fence_get_stub())).toBe(1);
    symbols.dma_buf_put(buf);
  });
});

function unused(): never {
  throw new Error("not called");
}
