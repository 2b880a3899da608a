/**
 * Areas: CMA regions and carve-outs, declared when a system is opened.
 *
 *     frames of the buddy ………………………┼ carve-outs ┼ … ┼ second region ┼ first region ┤ end of memory
 *
 * Compare the `reusable` and `no-map` nodes of /reserved-memory in a kernel's device tree.
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { type CmaOptions, declareRegion } from "../mm/cma-declare.ts";
import type { CmaRegion } from "../mm/cma-region.ts";

/** Areas by name: bytes, or more about the place. */
type AreaOptions = Readonly<Record<string, number | CmaOptions>>;

/** What areas are declared from. */
interface AreasOptions {
  readonly physicalBase?: number | undefined;
  readonly cma?: AreaOptions | undefined;
  readonly carveout?: AreaOptions | undefined;
}

/** Declares the regions, then the carve-outs, in their order. Throws as declareRegion(). */
export function declareAreas(
  core: Core,
  { physicalBase = 0, cma = {}, carveout = {} }: AreasOptions,
): CmaRegion[] {
  const { cmaDeclare, carveoutDeclare } = core.exports;
  for (const [name, areas] of Object.entries({ cma, carveout })) requireAreas(areas, name);
  const declareAll = (areas: AreaOptions, declare: typeof cmaDeclare): CmaRegion[] =>
    Object.entries(areas).map(([name, options]) =>
      declareRegion(core, physicalBase, name, options, declare),
    );
  return [...declareAll(cma, cmaDeclare), ...declareAll(carveout, carveoutDeclare)];
}

/** Throws EINVAL unless each area of an option is a size, or tells more about its place. */
function requireAreas(areas: AreaOptions, option: string): void {
  requireObject(areas, option, "open a system");
  for (const [name, area] of Object.entries(areas))
    if (typeof area !== "number") requireObject(area, `${option}.${name}`, "open a system");
}
