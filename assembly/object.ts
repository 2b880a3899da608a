// Counted records with generations: what a number given to JavaScript, or to another thread, names.
//
//   handle   31  30          18 17            0          record, 64 bytes: ├ kind ┼ handle ┼ refs ┼ owner ┼ payload: 48 ┤
//            ├ 0 ┼ generation ──┼ record index ─┤
//
//   kind 0 ──objectAlloc──► kind ──refs reach 0──► kind 0
//
// O1  A record's kind is 0 (free) or one of the kinds below; it is the record's truth word
//     (slab.ts, R1).
// O2  A handle is valid exactly while the record at its index is live and carries it: a stale or
//     forged one finds nothing. A generation comes round after 8191 objects; holders that live
//     longer than their object must remember its end themselves.
// O3  objectCount is the number of records with kind != 0.
// O4  `owner` is the index of the thread that made the object.

import { noMemory } from "./lock";
import { CACHE_OBJECTS, INDEX_BITS, recordPlace, slabAlloc, slabFree } from "./slab";

export const KIND_REGION: u32 = 1;
export const KIND_TABLE: u32 = 2;
export const KIND_DOMAIN: u32 = 3;
export const KIND_DEVICE: u32 = 4;
export const KIND_MAPPING: u32 = 5;
export const KIND_FENCE: u32 = 6;
export const KIND_MOVABLE: u32 = 7;
export const KIND_BUFFER: u32 = 8;
export const KIND_POOL: u32 = 9;
export const KIND_PIN: u32 = 10;
export const KIND_LINK: u32 = 11;
export const KINDS: u32 = 12;

export const PAYLOAD_OFFSET: usize = 16;
export const PAYLOAD_BYTES: usize = 48;

export const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

@unmanaged
export class ObjectRecord {
  kind: u32; // 0 = free
  handle: u32; // slab.ts, R5; its generation is never 0, so that a small number is no handle
  refs: u32; // > 0 while live
  owner: u32; // thread index

  /** `kind` and `handle`, read at once. */
  get identity(): u64 {
    return load<u64>(changetype<usize>(this));
  }

  static at(address: usize): ObjectRecord {
    return changetype<ObjectRecord>(address);
  }
}

if (offsetof<ObjectRecord>() != PAYLOAD_OFFSET)
  ERROR("the payload does not follow the record's head");

/**
 * A new object of `kind` with one reference and a payload of zeros. Its handle, or ENOMEM, EAGAIN.
 */
export function objectAlloc(kind: u32): i32 {
  const at = slabAlloc(CACHE_OBJECTS, kind);
  return at == 0 ? noMemory() : handleOf(at);
}

/** Frees the object at `at`: its handle finds nothing from now on. */
export function objectFree(at: usize): void {
  slabFree(at);
}

/**
 * Where the payload lies of the object that `handle` names, if objectIs() agrees. Apart from the
 * check, so that what follows need not wait for it.
 */
@inline export function objectAt(handle: u32): usize {
  return recordPlace(handle) + PAYLOAD_OFFSET;
}

/** Whether the live object of `kind` that `handle` names has its payload at `payload` (O2). */
@inline export function objectIs(payload: usize, handle: u32, kind: u32): bool {
  const identity = ((<u64>handle) << 32) | kind;
  return ObjectRecord.at(payload - PAYLOAD_OFFSET).identity == identity;
}

/** The payload of the live object of `kind` that `handle` names, or 0. */
@inline export function objectFind(handle: u32, kind: u32): usize {
  const payload = objectAt(handle);
  return objectIs(payload, handle, kind) ? payload : 0;
}

/** The handle of the object whose record lies at `at`. */
export function handleOf(at: usize): i32 {
  return <i32>ObjectRecord.at(at).handle;
}

/** The record around a payload. */
export function recordOf(payload: usize): usize {
  return payload - PAYLOAD_OFFSET;
}
