// The object of a kind that was named last: a handle that comes again needs no look-up.
//
//   WARM_AT  ├ handle ┼ at ┤ of kind 0 ├ handle ┼ at ┤ of kind 1 ├ …        at: a region's payload,
//                                                                            a domain's body
//
// O5  Warm.of(kind) is a live object of the kind, or 0 and 0: what then seems to lie there are the
//     zeros at address 0, which are no object's. It is 0 and 0 for ever where several threads may
//     run, and in the debug build: who finds his handle here needs no lock (lock.ts), and no fault
//     is injected into what he does.
//
// Only for kinds of which most calls name the same one.

import { WARM_AT, header } from "./layout";

@unmanaged
export class Warm {
  handle: u32;
  at: usize;

  static of(kind: u32): Warm {
    return changetype<Warm>(WARM_AT + ((<usize>kind) << 3));
  }
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
  const warm = Warm.of(kind);
  if (warm.handle != handle) return;
  warm.handle = 0;
  warm.at = 0;
}
