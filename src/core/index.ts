/**
 * `dmabuf/core`: the core itself, as numbers. For allocator authors, emulators and benchmarks;
 * nothing here is checked beyond what the core checks.
 *
 * @module
 */
export {
  Core,
  type CoreOptions,
  type CoreShare,
  joinCore,
  type MemoryBytes,
  openCore,
  openCoreSync,
} from "./core.ts";
export type { CoreConstant, CoreExports } from "./exports.ts";
export { invariantName } from "./instantiate.ts";
export { type CoreSource, inlinedModule } from "./module.ts";
export { type TableFormat, tableFlags, tableFormatWord } from "./table-format.ts";
