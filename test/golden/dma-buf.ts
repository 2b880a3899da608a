/**
 * `export`, `export_flags`, `null_args` and `refcount`: single calls on buffers and descriptors.
 *
 * @module
 */

import {
  type Attachment,
  type Device,
  type DmaBuf,
  type DmaBufOps,
  type ExportInfo,
  FdTable,
  getDmaBuf,
  isReadable,
  isWritable,
  ReferencedFile,
  Resv,
  type System,
} from "dmabuf";
import type { Bed } from "./bed.ts";
import { errnoOr, onNone } from "./fence-world.ts";
import { type Fields, MalformedRecord } from "./fields.ts";
import { type Fact, factsOf, type Outcome } from "./outcome.ts";

const VALID_BYTES = 8192;
/** A number that no record's table has open. */
const NOT_OPEN = 9999;

type Changes = Partial<Record<keyof ExportInfo, unknown>>;

/** Replays an `export` record. */
export function exportBuffer(fields: Fields, bed: Bed): Outcome {
  const exporter = new Exporter();
  const changes = changesOf(fields.text("case"), exporter.ops);
  const result = errnoOr(() => exporter.export(bed.system, changes));
  if (typeof result === "number") return { facts: factsOf(fields, { ret: result }) };
  const buf = result;
  const { sizeBytes } = buf;
  const seekEnd = buf.seek(0, "end");
  const ownResv = buf.resv !== changes.resv;
  buf.put();
  const traceOnPut = exporter.trace;
  return {
    facts: factsOf(fields, {
      ret: 0,
      seekEnd,
      size: sizeBytes,
      iSize: sizeBytes,
      ownResv,
      traceOnPut,
    }),
  };
}

/** Replays an `export_flags` record. */
export function exportFlags(fields: Fields, bed: Bed): Outcome {
  const buf = new Exporter().export(bed.system, { flags: fields.number("flags") });
  const modes = { fModeRead: Number(isReadable(buf)), fModeWrite: Number(isWritable(buf)) };
  const facts = factsOf(fields, { ret: 0, fFlags: buf.fileFlags, ...modes });
  buf.put();
  return { facts };
}

/** Replays a `null_args` record. */
export function nullArgs(fields: Fields, bed: Bed): Outcome {
  const text = fields.text("call");
  const [, name = "", args = ""] = /^(\w+)\((.*)\)$/.exec(text) ?? [];
  const call = nullCalls(bed.system)[name] ?? unknown(`the call "${text}" is unknown`);
  return { facts: factsOf(fields, { ret: call(args.split(",")) }) };
}

/** Replays a `refcount` record: each step with the references after it, the last with a trace. */
export function refcount(fields: Fields, bed: Bed): Outcome {
  const exporter = new Exporter();
  const files = new FdTable();
  const fds: number[] = [];
  const buf = exporter.export(bed.system, {});
  const getAgain = (): boolean => getDmaBuf(files, fds[0] ?? NOT_OPEN) === buf;
  const steps: Readonly<Record<string, () => string>> = {
    export: () => "",
    dma_buf_fd: () => (fds.push(files.install(buf)) > 1 ? ` different=${Number(isNew(fds))}` : ""),
    dma_buf_get: () => ` same=${Number(getAgain())}`,
    get_dma_buf: () => (buf.get() === buf ? "" : " another"),
    dma_buf_put: silently(() => buf.put()),
    "close second fd": silently(() => files.close(fds[1] ?? NOT_OPEN)),
    "close first fd": silently(() => files.close(fds[0] ?? NOT_OPEN)),
  };
  const facts = (fields.list("steps") as readonly [string, unknown][]).map(
    ([what, recorded], i): Fact => {
      const found = Object.keys(steps).find((name) => what.startsWith(name));
      if (found === undefined) throw new MalformedRecord(`the step "${what}" is unknown`);
      const answer = (steps[found] as () => string)();
      const actual = typeof recorded === "number" ? buf.refCount : exporter.trace;
      return {
        name: `step ${i}`,
        actual: [actual, what.endsWith(answer)],
        recorded: [recorded, true],
      };
    },
  );
  return { facts };
}

/** A step whose answer is not written down. */
function silently(call: () => unknown): () => string {
  return () => {
    call();
    return "";
  };
}

function isNew(fds: readonly number[]): boolean {
  return new Set(fds).size === fds.length;
}

/** An exporter with the ops that must be there. */
class Exporter {
  readonly trace: string[] = [];
  #buf: DmaBuf | null = null;

  readonly ops: DmaBufOps = {
    map: ({ device }) => device.dma.mapSgtable(null as never, "to-device"),
    unmap: () => {},
    release: () => void this.trace.push(`release ${this.#buf?.resv.isLocked ? "" : "un"}locked`),
  };

  export(system: System, changes: Changes): DmaBuf {
    const valid = { ops: this.ops, sizeBytes: VALID_BYTES, exporterName: "golden" };
    this.#buf = system.export({ ...valid, ...changes } as ExportInfo);
    return this.#buf;
  }
}

/** What a case breaks: "priv NULL", "pin without unpin", "size 4097". */
function changesOf(name: string, ops: DmaBufOps): Changes {
  const [subject = "", verb = ""] = name.split(" ");
  const nulls: Readonly<Record<string, Changes>> = {
    priv: { priv: null },
    ops: { ops: null },
    exp_name: { exporterName: undefined },
    owner: {},
    resv: {},
    map_dma_buf: { ops: { ...ops, map: null } },
    unmap_dma_buf: { ops: { ...ops, unmap: null } },
    release: { ops: { ...ops, release: null } },
  };
  if (name === "valid") return {};
  if (verb === "NULL" && nulls[subject] !== undefined) return nulls[subject];
  if (name === "owner module going away")
    return { owner: { name: "golden", tryGet: () => false, put: () => {} } };
  if (name === "resv given") return { resv: new Resv() };
  if (subject === "size") return { sizeBytes: Number(verb) };
  return { ops: { ...ops, ...optionalOps(name) } };
}

/** "pin+unpin and cache_sgt_mapping", "unpin without pin", "pin only": which of the three. */
function optionalOps(name: string): Partial<DmaBufOps> {
  const given = name
    .split(" without ")[0]
    ?.replace(/ only\b/, "")
    .split(/\+| and /);
  const op = (): void => {};
  const known: Readonly<Record<string, Partial<DmaBufOps>>> = {
    pin: { pin: op },
    unpin: { unpin: op },
    cache_sgt_mapping: { cacheSgtMapping: true },
  };
  return Object.assign(
    {},
    ...(given ?? []).map(
      (one) => known[one] ?? unknown(`the case "${name}" is unknown: what is ${one}?`),
    ),
  );
}

function unknown(reason: string): never {
  throw new MalformedRecord(reason);
}

/** A file that is no dma-buf. */
class RegularFile extends ReferencedFile {
  readonly description = "a regular file";

  protected release(): void {}
}

/** The calls of the records by the kernel's name, each of the arguments that stand behind it. */
function nullCalls(system: System): Readonly<Record<string, (args: readonly string[]) => number>> {
  const none = null as unknown as DmaBuf;
  const noDevice = null as unknown as Device;
  const onBuffer = (call: (buf: DmaBuf) => unknown): number => {
    const buf = new Exporter().export(system, {});
    const result = errnoOr(() => call(buf));
    buf.put();
    return typeof result === "number" ? result : 0;
  };
  const onBufferOrNone = (name: string | undefined, call: (buf: DmaBuf) => unknown): number =>
    name === "NULL" ? onNone(() => call(none)) : onBuffer(call);
  const map = (how: "map" | "mapUnlocked") => (args: readonly string[]) =>
    args[0] === "NULL"
      ? onNone(() => (null as unknown as Attachment)[how]("to-device"))
      : onBuffer((buf) => {
          const device = system.addDevice({ name: "device" });
          const attachment = buf.attach(device);
          attachment.detach();
          device.remove();
          return attachment[how]("to-device");
        });
  return {
    dma_buf_attach: ([buf]) => onBufferOrNone(buf, (one) => one.attach(noDevice)),
    dma_buf_dynamic_attach: ([buf]) =>
      onBufferOrNone(buf, (one) => one.dynamicAttach(noDevice, null)),
    dma_buf_map_attachment: map("map"),
    dma_buf_map_attachment_unlocked: map("mapUnlocked"),
    dma_buf_fd: () => onFiles((files) => files.install(none)),
    dma_buf_get: ([fd = ""]) => onFiles((files) => getDmaBuf(files, fdOf(files, fd))),
    dma_buf_begin_cpu_access: () => onNone(() => none.beginCpuAccess("to-device")),
    dma_buf_mmap: ([buf]) => onBufferOrNone(buf, (one) => one.mmap(null as never)),
    dma_buf_vmap: () => onNone(() => none.vmap()),
  };
}

function onFiles(call: (files: FdTable) => unknown): number {
  const result = errnoOr(() => call(new FdTable()));
  return typeof result === "number" ? result : 0;
}

/** "fd of a regular file", "closed fd", or a number. */
function fdOf(files: FdTable, name: string): number {
  if (!name.includes("fd")) return Number(name);
  const fd = files.install(new RegularFile(0));
  if (name.startsWith("closed")) files.close(fd);
  return fd;
}
