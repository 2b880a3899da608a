/**
 * How each symbol of the framework is exported: EXPORT_SYMBOL, EXPORT_SYMBOL_GPL, and in which
 * namespace. As in Linux 6.1.
 *
 * @module
 */

import { hasKey } from "../arguments.ts";
import { fail, textOf } from "../errors.ts";
import type { SymbolName } from "./module.ts";

/** How a symbol is exported. */
export interface SymbolMark {
  /** "gpl": EXPORT_SYMBOL_GPL; "any": EXPORT_SYMBOL. */
  readonly license: "gpl" | "any";
  readonly namespace: string | null;
}

const buffer: SymbolMark = { license: "gpl", namespace: "DMA_BUF" };
const gpl: SymbolMark = { license: "gpl", namespace: null };
const any: SymbolMark = { license: "any", namespace: null };

const marks: Readonly<Record<SymbolName, SymbolMark>> = {
  dma_buf_export: buffer,
  dma_buf_fd: buffer,
  dma_buf_get: buffer,
  dma_buf_put: buffer,
  dma_buf_attach: buffer,
  dma_buf_dynamic_attach: buffer,
  dma_buf_detach: buffer,
  dma_buf_pin: buffer,
  dma_buf_unpin: buffer,
  dma_buf_map_attachment: buffer,
  dma_buf_unmap_attachment: buffer,
  dma_buf_move_notify: buffer,
  dma_buf_begin_cpu_access: buffer,
  dma_buf_end_cpu_access: buffer,
  dma_buf_mmap: buffer,
  dma_buf_vmap: buffer,
  dma_buf_vunmap: buffer,
  dma_fence_init: any,
  dma_fence_get_stub: any,
  dma_fence_context_alloc: any,
  dma_fence_signal: any,
  dma_fence_signal_timestamp: any,
  dma_fence_get_status: any,
  dma_fence_add_callback: any,
  dma_fence_remove_callback: any,
  dma_fence_enable_sw_signaling: any,
  dma_fence_wait_timeout: any,
  dma_fence_wait_any_timeout: any,
  dma_fence_array_create: any,
  dma_fence_match_context: any,
  dma_fence_chain_init: any,
  dma_fence_chain_walk: any,
  dma_fence_chain_find_seqno: any,
  dma_fence_unwrap_first: gpl,
  __dma_fence_unwrap_merge: gpl,
  sync_file_create: any,
  sync_file_get_fence: any,
  dma_resv_init: any,
  dma_resv_reserve_fences: any,
  dma_resv_add_fence: any,
  dma_resv_replace_fences: any,
  dma_resv_copy_fences: any,
  dma_resv_get_fences: gpl,
  dma_resv_get_singleton: gpl,
  dma_resv_wait_timeout: gpl,
  dma_resv_test_signaled: gpl,
};

/** Whether the framework has a symbol of this name. */
export function isSymbolName(name: string): name is SymbolName {
  return hasKey(marks, name);
}

/** All symbols, in the order of the kernel's files. */
export const symbolNames: readonly SymbolName[] = Object.keys(marks).filter(isSymbolName);

/** How a symbol is exported. ENOENT: the framework has none of this name. */
export function markOf(name: SymbolName): SymbolMark {
  if (!isSymbolName(name)) fail("ENOENT", "look up a symbol", `there is no ${textOf(name)}`);
  return marks[name];
}
