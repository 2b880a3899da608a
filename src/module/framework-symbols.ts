/**
 * The framework's functions under their names in the kernel, as modules call them.
 *
 * Each is the method of the same meaning; what it throws is described there. Arguments are in the
 * kernel's order.
 *
 * @module
 */

import type { WaitOptions } from "../clock.ts";
import type { Core } from "../core/core.ts";
import type { Device } from "../device/device.ts";
import type { DeviceMapping } from "../device/device-mapping.ts";
import type { Direction } from "../direction.ts";
import type { Attachment } from "../dma-buf/attachment.ts";
import type { CpuMapping, MmapOptions } from "../dma-buf/cpu-mapping.ts";
import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import { getDmaBuf } from "../dma-buf/get-dma-buf.ts";
import type { AttachOps, ExportInfo, ExportOwner } from "../dma-buf/ops.ts";
import { Resv, type ResvUsage } from "../dma-buf/resv.ts";
import type { Vmapping } from "../dma-buf/vmap.ts";
import { type ErrnoCode, fail } from "../errors.ts";
import { Fence, type FenceCallback, type FenceOps, signaledFence } from "../fence/fence.ts";
import { FenceArray, type FenceArrayOptions, matchesContext } from "../fence/fence-array.ts";
import { FenceChain, findSeqno, walkChain } from "../fence/fence-chain.ts";
import { SyncFile } from "../fence/sync-file.ts";
import { mergeFences, unwrapFence } from "../fence/unwrap.ts";
import { waitAny } from "../fence/wait.ts";
import type { FdTable } from "../files/fd-table.ts";

/** What the functions need from their system. */
export interface FrameworkHost {
  readonly core: Core;
  export(info: ExportInfo): DmaBuf;
  fenceContexts(count: number): number;
}

/** The functions that modules can be bound to. */
export interface FrameworkSymbols {
  /** The owner and the exporter's name are the module, unless `info` says otherwise. */
  dma_buf_export(info: ExportInfo): DmaBuf;
  dma_buf_fd(buf: DmaBuf, files: FdTable): number;
  dma_buf_get(fd: number, files: FdTable): DmaBuf;
  dma_buf_put(buf: DmaBuf): void;
  dma_buf_attach(buf: DmaBuf, device: Device): Attachment;
  dma_buf_dynamic_attach(
    buf: DmaBuf,
    device: Device,
    ops: AttachOps,
    importerPriv?: unknown,
  ): Attachment;
  dma_buf_detach(buf: DmaBuf, attachment: Attachment): void;
  dma_buf_pin(attachment: Attachment): void;
  dma_buf_unpin(attachment: Attachment): void;
  dma_buf_map_attachment(attachment: Attachment, direction: Direction): DeviceMapping;
  dma_buf_unmap_attachment(
    attachment: Attachment,
    mapping: DeviceMapping,
    direction: Direction,
  ): void;
  dma_buf_move_notify(buf: DmaBuf): void;
  dma_buf_begin_cpu_access(buf: DmaBuf, direction: Direction): number;
  dma_buf_end_cpu_access(buf: DmaBuf, direction: Direction): number;
  dma_buf_mmap(buf: DmaBuf, options?: MmapOptions): CpuMapping;
  dma_buf_vmap(buf: DmaBuf): Vmapping;
  dma_buf_vunmap(buf: DmaBuf, mapping: Vmapping): void;
  dma_fence_init(name: string, context: number, seqno: number, ops?: FenceOps): Fence;
  dma_fence_get_stub(): Fence;
  dma_fence_context_alloc(count: number): number;
  dma_fence_signal(fence: Fence, error?: ErrnoCode): boolean;
  dma_fence_signal_timestamp(fence: Fence, atMs: number): boolean;
  dma_fence_get_status(fence: Fence): number;
  dma_fence_add_callback(fence: Fence, callback: FenceCallback): boolean;
  dma_fence_remove_callback(fence: Fence, callback: FenceCallback): boolean;
  dma_fence_enable_sw_signaling(fence: Fence): boolean;
  dma_fence_wait_timeout(fence: Fence, options?: WaitOptions): Promise<void>;
  dma_fence_wait_any_timeout(fences: readonly Fence[], options?: WaitOptions): Promise<number>;
  dma_fence_array_create(fences: readonly Fence[], options?: FenceArrayOptions): FenceArray;
  dma_fence_match_context(fence: Fence, context: number): boolean;
  dma_fence_chain_init(previous: Fence | null, fence: Fence, seqno: number): FenceChain;
  dma_fence_chain_walk(head: Fence | null): Iterable<Fence>;
  dma_fence_chain_find_seqno(head: Fence, seqno: number): Fence | null;
  dma_fence_unwrap_first(fence: Fence | null): Iterable<Fence>;
  __dma_fence_unwrap_merge(...fences: readonly (Fence | null)[]): Fence;
  sync_file_create(fence: Fence): SyncFile;
  /** EINVAL: the descriptor is no sync file's; EBADF. The caller keeps no reference. */
  sync_file_get_fence(fd: number, files: FdTable): Fence;
  dma_resv_init(): Resv;
  dma_resv_reserve_fences(resv: Resv, count: number): void;
  dma_resv_add_fence(resv: Resv, fence: Fence, usage: ResvUsage): void;
  dma_resv_replace_fences(resv: Resv, context: number, fence: Fence, usage: ResvUsage): void;
  dma_resv_copy_fences(to: Resv, from: Resv): void;
  dma_resv_get_fences(resv: Resv, usage: ResvUsage): readonly Fence[];
  dma_resv_get_singleton(resv: Resv, usage: ResvUsage): Fence | null;
  dma_resv_wait_timeout(resv: Resv, usage: ResvUsage, options?: WaitOptions): Promise<void>;
  dma_resv_test_signaled(resv: Resv, usage: ResvUsage): boolean;
}

/** The functions for one module. */
export function bindSymbols(host: FrameworkHost, module: ExportOwner): FrameworkSymbols {
  return { ...bufferSymbols(host, module), ...fenceSymbols(host), ...resvSymbols(host) };
}

type BufferName = Extract<keyof FrameworkSymbols, `dma_buf_${string}`>;
type ResvName = Extract<keyof FrameworkSymbols, `dma_resv_${string}`>;
type FenceName = Exclude<keyof FrameworkSymbols, BufferName | ResvName>;

/** The owner and exporter's name of a buffer: the module's, unless `info` says otherwise. */
function ownerOf(
  info: ExportInfo,
  module: ExportOwner,
): Pick<ExportInfo, "owner" | "exporterName"> {
  const { owner = module, exporterName = module.name } = info ?? {};
  return { owner, exporterName };
}

function bufferSymbols(
  host: FrameworkHost,
  module: ExportOwner,
): Pick<FrameworkSymbols, BufferName> {
  return {
    dma_buf_export: (info) => host.export({ ...info, ...ownerOf(info, module) }),
    dma_buf_fd: (buf, files) => files.install(buf),
    dma_buf_get: (fd, files) => getDmaBuf(files, fd),
    dma_buf_put: (buf) => buf.put(),
    dma_buf_attach: (buf, device) => buf.attach(device),
    dma_buf_dynamic_attach: (buf, device, ops, priv) => buf.dynamicAttach(device, ops, priv),
    dma_buf_detach: (buf, attachment) => {
      if (attachment.buf !== buf)
        fail("EINVAL", `detach from ${buf.name}`, "the attachment is another buffer's");
      attachment.detach();
    },
    dma_buf_pin: (attachment) => attachment.pin(),
    dma_buf_unpin: (attachment) => attachment.unpin(),
    dma_buf_map_attachment: (attachment, direction) => attachment.map(direction),
    dma_buf_unmap_attachment: (attachment, mapping, direction) =>
      attachment.unmap(mapping, direction),
    dma_buf_move_notify: (buf) => buf.moveNotify(),
    dma_buf_begin_cpu_access: (buf, direction) => buf.beginCpuAccess(direction),
    dma_buf_end_cpu_access: (buf, direction) => buf.endCpuAccess(direction),
    dma_buf_mmap: (buf, options) => buf.mmap(options),
    dma_buf_vmap: (buf) => buf.vmap(),
    dma_buf_vunmap: (buf, mapping) => buf.vunmap(mapping),
  };
}

function fenceSymbols(host: FrameworkHost): Pick<FrameworkSymbols, FenceName> {
  const { core } = host;
  return {
    dma_fence_init: (name, context, seqno, ops = undefined) =>
      new Fence(core, context, seqno, name, ops ?? null),
    dma_fence_get_stub: () => signaledFence(),
    dma_fence_context_alloc: (count) => host.fenceContexts(count),
    dma_fence_signal: (fence, error) => fence.signal(error ?? null),
    dma_fence_signal_timestamp: (fence, atMs) => fence.signal(null, atMs),
    dma_fence_get_status: (fence) => fence.status,
    dma_fence_add_callback: (fence, callback) => fence.addCallback(callback),
    dma_fence_remove_callback: (fence, callback) => fence.removeCallback(callback),
    dma_fence_enable_sw_signaling: (fence) => fence.enableSignaling(),
    dma_fence_wait_timeout: (fence, options) => fence.wait(options),
    dma_fence_wait_any_timeout: (fences, options) => waitAny(fences, options),
    dma_fence_array_create: (fences, options) => new FenceArray(core, fences, options),
    dma_fence_match_context: matchesContext,
    dma_fence_chain_init: (previous, fence, seqno) => new FenceChain(core, previous, fence, seqno),
    dma_fence_chain_walk: walkChain,
    dma_fence_chain_find_seqno: findSeqno,
    dma_fence_unwrap_first: unwrapFence,
    __dma_fence_unwrap_merge: mergeFences,
    sync_file_create: (fence) => new SyncFile(fence),
    sync_file_get_fence: (fd, files) => {
      const file = files.peek(fd);
      if (file instanceof SyncFile) return file.fence;
      return fail("EINVAL", `get the fence of descriptor ${fd}`, `it is ${file.description}`);
    },
  };
}

function resvSymbols({ core }: FrameworkHost): Pick<FrameworkSymbols, ResvName> {
  return {
    dma_resv_init: () => new Resv(core),
    dma_resv_reserve_fences: (resv, count) => resv.reserveFences(count),
    dma_resv_add_fence: (resv, fence, usage) => resv.addFence(fence, usage),
    dma_resv_replace_fences: (resv, context, fence, usage) =>
      resv.replaceFences(context, fence, usage),
    dma_resv_copy_fences: (to, from) => to.copyFences(from),
    dma_resv_get_fences: (resv, usage) => resv.fences(usage),
    dma_resv_get_singleton: (resv, usage) => resv.getSingleton(usage),
    dma_resv_wait_timeout: (resv, usage, options) => resv.wait(usage, options),
    dma_resv_test_signaled: (resv, usage) => resv.testSignaled(usage),
  };
}
