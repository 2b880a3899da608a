/**
 * What an exporter must bring: the checks of an export, in the kernel's order.
 *
 * Compare dma_buf_export() in the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import { fail, requireInteger, textOf } from "../errors.ts";
import { requireName } from "../files/name.ts";
import type { DmaBufOps, ExportInfo } from "./ops.ts";
import { Resv } from "./resv.ts";

const OPTIONAL_OPS = [
  "attach",
  "detach",
  "pin",
  "unpin",
  "beginCpuAccess",
  "endCpuAccess",
  "mmap",
  "vmap",
  "vunmap",
  "storage",
  "layout",
  "canAttach",
  "token",
] as const;

/** Throws EINVAL for what dma_buf_export() warns about. */
export function checkExport(info: ExportInfo): void {
  const operation = "export a buffer";
  if (info === null || typeof info !== "object")
    fail("EINVAL", operation, "what to export is not given");
  const { ops, sizeBytes, exporterName, priv } = info;
  if (priv === null) fail("EINVAL", operation, "the exporter's data is null; leave priv out");
  checkOps(ops, operation);
  if (exporterName !== undefined && typeof exporterName !== "string")
    fail("EINVAL", operation, "the exporter's name must be a string");
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0)
    fail("EINVAL", operation, `sizeBytes must be a whole number, and is ${textOf(sizeBytes)}`);
  requireInteger(info.flags ?? 0, "flags", 0, 0xffffffff, operation);
  if (info.name !== undefined) requireName(info.name, operation);
  checkSurroundings(info, operation);
}

function checkSurroundings({ flags, resv, owner }: ExportInfo, operation: string): void {
  if (flags !== undefined && !Number.isInteger(flags))
    fail("EINVAL", operation, `flags must be a whole number, and is ${flags}`);
  if (resv !== undefined && !(resv instanceof Resv))
    fail("EINVAL", operation, "resv must be a Resv; leave it out for one of the buffer's own");
  if (owner !== undefined && typeof owner?.tryGet !== "function")
    fail("EINVAL", operation, "the owner must be a module, or have tryGet() and put()");
}

function checkOps(ops: DmaBufOps, operation: string): void {
  for (const name of ["map", "unmap", "release"] as const) {
    if (typeof ops?.[name] !== "function")
      fail("EINVAL", operation, `the exporter's ops lack ${name}()`);
  }
  for (const name of OPTIONAL_OPS) {
    if (ops[name] !== undefined && typeof ops[name] !== "function")
      fail("EINVAL", operation, `the exporter's ${name} is not a function`);
  }
  if ((ops.pin === undefined) !== (ops.unpin === undefined))
    fail("EINVAL", operation, "the exporter has one of pin() and unpin(), and needs both or none");
  if (ops.cacheSgtMapping === true && ops.pin !== undefined)
    fail("EINVAL", operation, "an exporter that pins must not keep mappings (cacheSgtMapping)");
}
