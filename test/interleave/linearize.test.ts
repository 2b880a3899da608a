import { describe, expect, test } from "vitest";
import { linearize, type Model, type Operation } from "./linearize.ts";

/** A register: `write(x)` gives 0, `read()` the last value written. */
const register: Model<number> = {
  initial: 0,
  apply: (value, { name, args, result }) => {
    if (name === "write") return args[0] as number;
    return result === value ? value : null;
  },
  key: String,
};

/** Operations from lines such as "1 write 5 = 0 @ 3..9". */
function history(...lines: string[]): Operation[] {
  return lines.map((line) => {
    const [, thread, name, arg, result, start, end] =
      /^(\d) (\w+)(?: (\d+))? = (\d+) @ (\d+)\.\.(\d+)$/.exec(line) as RegExpExecArray;
    return {
      thread: Number(thread),
      name: name as string,
      args: arg === undefined ? [] : [Number(arg)],
      result: Number(result),
      start: Number(start),
      end: Number(end),
    };
  });
}

describe("linearize()", () => {
  test("finds the order of operations that overlap", () => {
    const order = linearize(
      register,
      history("1 write 5 = 0 @ 1..10", "2 read = 0 @ 2..4", "2 read = 5 @ 5..6"),
    );
    expect(order?.map(({ name, result }) => [name, result])).toEqual([
      ["read", 0],
      ["write", 0],
      ["read", 5],
    ]);
  });

  test("refuses a read of a value that was written over before it was called", () => {
    expect(linearize(register, history("1 write 5 = 0 @ 1..2", "2 read = 0 @ 3..4"))).toBeNull();
  });

  test("refuses two reads that see two writes in turns", () => {
    const lines = ["1 write 1 = 0 @ 1..20", "2 write 2 = 0 @ 2..21"];
    const reads = ["3 read = 1 @ 3..4", "3 read = 2 @ 5..6"];
    expect(linearize(register, history(...lines, ...reads))).not.toBeNull();
    expect(linearize(register, history(...lines, ...reads, "3 read = 1 @ 7..8"))).toBeNull();
  });

  test("refuses what one thread alone could not see", () => {
    expect(linearize(register, history("1 read = 7 @ 1..2"))).toBeNull();
    expect(linearize(register, [])).toEqual([]);
  });

  test("tries no set of operations twice in one state", () => {
    let calls = 0;
    const counting = {
      ...register,
      apply: (value: number, operation: Operation) => {
        calls += 1;
        return register.apply(value, operation);
      },
    };
    // Twelve writes of one value at once, and a read of another: 12! orders, 2^12 sets.
    const writes = Array.from({ length: 12 }, (_, i) => `1 write 3 = 0 @ ${i}..100`);
    expect(linearize(counting, history(...writes, "2 read = 4 @ 50..101"))).toBeNull();
    expect(calls).toBeLessThan(200_000);
  });
});
