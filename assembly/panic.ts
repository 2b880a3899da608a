// Invariants that trap: in the debug build a broken one reports its number, then stops the program.
//
// An invariant's number is its file's letter (as a character code) times 100 plus its place: B2 is
// 6602. The walker in
// `check.ts` returns the same numbers, and TypeScript prints both as "B2".
//
// CHECKS is given by asconfig.json: 1 in the debug build, 0 in the release build, where the import
// disappears.

@external("env", "panic")
declare function panic(invariant: u32, detail: u32): void;

/** Stops the debug build with the number of the invariant that `holds` says is broken. */
export function must(holds: bool, invariant: u32, detail: u32 = 0): void {
  if (CHECKS) {
    if (!holds) {
      panic(invariant, detail);
      unreachable();
    }
  }
}
