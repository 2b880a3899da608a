/**
 * Calls with one argument made bad: a number for an object, an object for a number, what belongs to
 * another system.
 *
 * @module
 */

/** Values that some argument or other does not take. */
export const badValues: readonly (readonly [name: string, value: unknown])[] = [
  ["undefined", undefined],
  ["null", null],
  ["0", 0],
  ["-1", -1],
  ["0.5", 0.5],
  ["NaN", Number.NaN],
  ["Infinity", Number.POSITIVE_INFINITY],
  ["2^32 + 1", 2 ** 32 + 1],
  ["2^53", 2 ** 53],
  ["true", true],
  ["text", "no such thing"],
  ["bigint", 7n],
  ["object", {}],
  ["array", []],
  ["array of null", [null]],
  ["function", () => "nothing"],
  ["Date", new Date(0)],
  ["foreign bytes", new Uint8Array(8)],
  ["symbol", Symbol("nothing")],
  ["object without a prototype", Object.create(null)],
  ["object that cannot be a text", { toString: 1, valueOf: 1 }],
];

/** Arguments of a call, and which of them is bad. */
export interface BadCall {
  readonly what: string;
  readonly args: readonly unknown[];
}

const isPlain = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;

/** Every value that a valid one may be replaced with, by name; options are replaced one by one. */
function* replacements(
  valid: unknown,
  foreign: ReadonlyMap<unknown, unknown>,
): Generator<readonly [string, unknown]> {
  yield* badValues;
  const twin = foreign.get(valid);
  if (twin !== undefined) yield ["another system's", twin];
  if (isPlain(valid)) {
    for (const [key, inner] of Object.entries(valid))
      for (const [name, value] of replacements(inner, foreign))
        yield [`{ ${key}: ${name} }`, { ...valid, [key]: value }];
  } else if (Array.isArray(valid) && valid.length > 0) {
    for (const [name, value] of replacements(valid[0], foreign))
      yield [`[${name}]`, [value, ...valid.slice(1)]];
  }
}

/** The calls that one bad argument makes of a valid one. */
export function* badCalls(
  args: readonly unknown[],
  foreign: ReadonlyMap<unknown, unknown>,
): Generator<BadCall> {
  for (const [i, valid] of args.entries())
    for (const [name, value] of replacements(valid, foreign))
      yield { what: `argument ${i} ${name}`, args: args.map((one, k) => (k === i ? value : one)) };
}
