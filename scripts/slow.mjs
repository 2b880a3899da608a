// A transform for asc: functions of the core whose names end in Slow are never inlined.
//
//   fast path ─ return somethingSlow(…) ─► the rest of the work, with calls, locks and loops
//
// Binaryen inlines what has one caller, and V8 then spills on entry whatever is alive across a call
// anywhere in the function: the fast path would pay for the slow one.

/** What asc makes an instance of. */
export default class {
  /** Runs before anything is optimised: the pass marks the functions, and they stay marked. */
  afterCompile(module) {
    this.binaryen.setPassArgument("no-inline", "*Slow");
    module.runPasses(["no-inline"]);
  }
}
