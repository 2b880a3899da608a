/**
 * Iommu: where a system's groups and domains come from.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { BuiltInDomain } from "./built-in-domain.ts";
import type { DomainOptions } from "./domain-options.ts";
import { IommuGroup, type IommuGroupOptions } from "./iommu-group.ts";

/** The IOMMU of a system. Found as `system.iommu`. */
export class Iommu {
  readonly #core: Core;
  readonly #requireOpen: (operation: string) => void;

  /** @internal */
  constructor(core: Core, requireOpen: (operation: string) => void) {
    this.#core = core;
    this.#requireOpen = requireOpen;
  }

  /** A group for devices that share one domain. EINVAL: an option; ENOMEM. */
  group(options: IommuGroupOptions = {}): IommuGroup {
    this.#requireOpen("make a group");
    return new IommuGroup(this.#core, options);
  }

  /** A domain to attach devices to, empty. EINVAL: an option; ENOMEM. */
  domain(options: DomainOptions = {}): BuiltInDomain {
    this.#requireOpen("make a domain");
    return new BuiltInDomain(this.#core, options);
  }
}
