/**
 * Named checks, run one after the other, a line for each.
 *
 * @module
 */

/** Counts checks and prints them. */
export class Report {
  passed = 0;
  failed = 0;

  /** Prints one result; `reason` is empty when the check passed. */
  add(name, reason = "") {
    if (reason === "") this.passed += 1;
    else this.failed += 1;
    console.log(reason === "" ? `ok      ${name}` : `FAILED  ${name}\n        ${indent(reason)}`);
  }

  /** Prints what was not checked, and why. */
  skip(name, reason) {
    console.log(`skipped ${name}: ${reason}`);
  }

  /** Runs a check that throws when it fails. Its result, or undefined. */
  async check(name, work) {
    try {
      const result = await work();
      this.add(name);
      return result;
    } catch (error) {
      this.add(name, `${error instanceof Error ? error.message : error}` || "no reason given");
      return undefined;
    }
  }

  /** Prints the closing line and sets the exit code. */
  close() {
    console.log(`${this.passed} passed, ${this.failed} failed`);
    if (this.failed > 0 || this.passed === 0) process.exitCode = 1;
  }
}

function indent(text) {
  return text.trimEnd().replaceAll("\n", "\n        ");
}
