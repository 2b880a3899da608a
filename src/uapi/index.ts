/**
 * `dmabuf/uapi`: the kernel's system-call face over the library, for emulators and for programs
 * that were written for it.
 *
 * @module
 */
export * from "./constants.ts";
export { HeapDevice, UdmabufDevice } from "./device-files.ts";
export { IOC_READ, IOC_WRITE, type IoctlParts, ioctlNumber, ioctlParts } from "./ioctl-number.ts";
export type { PollRequest } from "./poll-requests.ts";
export {
  type CallOptions,
  Process,
  type ProcessOptions,
  type Stat,
} from "./process.ts";
export {
  type FieldType,
  type FieldTypes,
  type FieldValue,
  Struct,
  type StructValues,
} from "./struct.ts";
export * from "./structs.ts";
export { UserMapping } from "./user-mapping.ts";
export type { UserArgument } from "./user-pointer.ts";
