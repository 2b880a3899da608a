/**
 * A system with a device behind a driver's domain, and memory for it.
 *
 * @module
 */

import {
  type Device,
  type DeviceOptions,
  IommuDomain,
  type IommuGroupOptions,
  KiB,
  MiB,
  type System,
} from "../../src/index.ts";
import type { CoreVariant } from "./cores.ts";
import { ModelDriver } from "./model-driver.ts";

/** A system, and a device in a group whose default domain is the driver's. */
export function openDriven(
  build: CoreVariant,
  options: IommuGroupOptions = {},
  limits: Partial<DeviceOptions> = {},
) {
  const system = build.system({ memoryBytes: 16 * MiB, bounceBytes: 256 * KiB });
  const driver = new ModelDriver();
  const domain = new IommuDomain(driver);
  const group = system.iommu.group({ ...options, defaultDomain: domain });
  const device = system.addDevice({ name: "gpu", iommu: group, ...limits });
  return { system, driver, group, device, domain };
}

/** Frames that are pinned, and their bytes. */
export function pinnedFrames(system: System, count: number) {
  const range = system.frames.alloc(count);
  return { pfn: range.pfn, bytes: range.pin().bytes };
}

/** Bytes that a device reads. */
export function read(device: Device, address: number, length = 4): number[] {
  const bytes = new Uint8Array(length);
  device.dma.read(address, bytes);
  return [...bytes];
}
