// The object of a kind that was named last: a handle that comes again needs no look-up.
//
//   WARM_AT  ├ handle ┼ at ┤ of kind 0 ├ handle ┼ at ┤ of kind 1 ├ …        at: a region's payload,
//                                                                            a domain's body
//
// O5  Warm.of(kind) is a live object of the kind, or empty: 0 and NOTHING_AT (L7), so that who
//     looks for handle 0 finds zeros, which are no object's. It stays empty where several threads
//     may run, and in the debug build: who finds his handle here needs no lock (lock.ts), and no
//     fault is injected into what he does.
//
// Only for kinds of which most calls name the same one.

import { NOTHING_AT, WARM_AT, header } from "./layout";

@unmanaged
export class Warm {
  handle: u32;
  at: usize;

  static of(kind: u32): Warm {
    return changetype<Warm>(WARM_AT + ((<usize>kind) << 3));
  }
}

/** Makes the place of `kind` empty. */
export function warmClear(kind: u32): void {
  const warm = Warm.of(kind);
  warm.handle = 0;
  warm.at = NOTHING_AT;
}

/** Keeps in mind that `handle`, of a live object of `kind`, was named last. */
export function warmKeep(kind: u32, handle: u32, at: usize): void {
  if (CHECKS || header().isShared != 0) return; // O5
  const warm = Warm.of(kind);
  warm.handle = handle;
  warm.at = at;
}

/** Forgets an object that ends. */
export function warmForget(kind: u32, handle: u32): void {
  if (Warm.of(kind).handle == handle) warmClear(kind);
}
