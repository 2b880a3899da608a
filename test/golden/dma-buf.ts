/**
 * `export`, `export_flags`, `null_args` and `refcount`: single calls on buffers and descriptors.
 *
 * @module
 */

import {
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
  const name = fields.text("call");
  const call = nullCalls(bed.system)[name];
  if (call === undefined) throw new MalformedRecord(`the call "${name}" is unknown`);
  return { facts: factsOf(fields, { ret: call() }) };
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
  const op = (): void => {};
  const pins: Readonly<Record<string, Partial<DmaBufOps>>> = {
    "pin without unpin": { pin: op },
    "unpin without pin": { unpin: op },
    "pin+unpin and cache_sgt_mapping": { pin: op, unpin: op, cacheSgtMapping: true },
    "pin only and cache_sgt_mapping": { pin: op, cacheSgtMapping: true },
  };
  const nulls: Readonly<Record<string, Changes>> = {
    priv: { priv: null },
    ops: { ops: null },
    exp_name: { exporterName: undefined },
    map_dma_buf: { ops: { ...ops, map: null } },
    unmap_dma_buf: { ops: { ...ops, unmap: null } },
    release: { ops: { ...ops, release: null } },
  };
  if (name === "valid") return {};
  if (pins[name] !== undefined) return { ops: { ...ops, ...pins[name] } };
  if (name === "owner module going away")
    return { owner: { name: "golden", tryGet: () => false, put: () => {} } };
  if (name === "resv given") return { resv: new Resv() };
  if (subject === "size") return { sizeBytes: Number(verb) };
  if (verb === "NULL" && nulls[subject] !== undefined) return nulls[subject];
  throw new MalformedRecord(`the case "${name}" is unknown`);
}

/** A file that is no dma-buf. */
class RegularFile extends ReferencedFile {
  readonly description = "a regular file";

  protected release(): void {}
}

function nullCalls(system: System): Readonly<Record<string, () => number>> {
  const none = null as unknown as DmaBuf;
  const onBuffer = (call: (buf: DmaBuf) => unknown) => (): number => {
    const buf = new Exporter().export(system, {});
    const result = errnoOr(() => call(buf));
    buf.put();
    return typeof result === "number" ? result : 0;
  };
  const onFile = (call: (files: FdTable) => unknown) => (): number => {
    const result = errnoOr(() => call(new FdTable()));
    return typeof result === "number" ? result : 0;
  };
  return {
    "dma_buf_attach(NULL,dev)": () => onNone(() => none.attach(null as never)),
    "dma_buf_attach(buf,NULL)": onBuffer((buf) => buf.attach(null as unknown as Device)),
    "dma_buf_map_attachment(NULL,TO_DEVICE)": () =>
      onNone(() => (null as unknown as ReturnType<DmaBuf["attach"]>).map("to-device")),
    "dma_buf_map_attachment(attachment without dmabuf,TO_DEVICE)": onBuffer((buf) => {
      const device = system.addDevice({ name: "device" });
      const attachment = buf.attach(device);
      attachment.detach();
      device.remove();
      return attachment.map("to-device");
    }),
    "dma_buf_fd(NULL,0)": onFile((files) => files.install(none)),
    "dma_buf_get(-1)": onFile((files) => getDmaBuf(files, -1)),
    "dma_buf_get(9999)": onFile((files) => getDmaBuf(files, NOT_OPEN)),
    "dma_buf_get(fd of a regular file)": onFile((files) =>
      getDmaBuf(files, files.install(new RegularFile(0))),
    ),
    "dma_buf_get(closed fd)": onFile((files) => {
      const fd = files.install(new RegularFile(0));
      files.close(fd);
      return getDmaBuf(files, fd);
    }),
    "dma_buf_begin_cpu_access(NULL)": () => onNone(() => none.beginCpuAccess("to-device")),
    "dma_buf_mmap(NULL,NULL,0)": () => onNone(() => none.mmap()),
    "dma_buf_vmap(NULL)": () => onNone(() => none.vmap()),
  };
}
