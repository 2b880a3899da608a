// Fault injection: allocations of the debug build that fail on purpose, so that a test sees every
// way out of a call.
//
//   faultArm(nth, times)     … nth - 1 allocations succeed ┼ `times` fail ┼ all others succeed …
//   faultDisarm()            how many of the `times` were left
//
// W1  A call that fails by injection leaves what any failing call leaves: nothing.
//
// An allocation is one frame, run or list of frames, one record of a slab, one range of device
// pages, one run of a CMA region, or one run of bounce slots. A sweep arms nth = 1, 2, 3 … and ends
// when a call leaves its fault unused. The words are the whole memory's: arm only while one thread
// is inside. The release build has the two exports, and no allocation looks.
//
// Compare lib/fault-inject.c in the kernel: failslab, fail_page_alloc.

import { header } from "./layout";

/** From the `nth` allocation on, 1 for the next, `times` fail. The release build ignores it. */
export function faultArm(nth: u32, times: u32): void {
  header().faultNth = nth;
  header().faultTimes = times;
}

/** Ends the injection. How many failures are left: `times` if none happened. */
export function faultDisarm(): u32 {
  const left = header().faultTimes;
  faultArm(0, 0);
  return left;
}

/** Whether the allocation that asks is to fail. */
@inline export function faultHits(): bool {
  if (!CHECKS) return false;
  return faultCount();
}

function faultCount(): bool {
  const h = header();
  if (h.faultTimes == 0) return false;
  if (h.faultNth > 1) {
    h.faultNth -= 1;
    return false;
  }
  h.faultTimes -= 1;
  return true;
}
