// Cores that stop where a test wants: the built ones, with a call before every step that other
// threads can see, or that a death can fall before.
//
//   i32.atomic.rmw.cmpxchg     ──►  env.yield(ATOMIC), then the same
//   i32.store                  ──►  env.yield(STORE), then the same
//   memory.atomic.wait32       ──►  env.wait(address, expected, timeout)
//   memory.atomic.notify       ──►  env.yield(ATOMIC), env.notify(address, count)
//
// Made from the finished module: what is tested is the code that ships, no atomic access can be
// forgotten, and the other builds know nothing of it.
import { readFileSync, writeFileSync } from "node:fs";
import binaryen from "assemblyscript/binaryen";

const ATOMIC = 0;
const STORE = 1;

const IMPORTS = [
  `(import "env" "yield" (func $yield (param i32)))`,
  `(import "env" "wait" (func $wait (param i32 i32 i64) (result i32)))`,
  `(import "env" "notify" (func $notify (param i32 i32) (result i32)))`,
].join("\n");

/** One instruction, with what comes before it, or in its place. */
function stepped(instruction) {
  const yields = (kind) => `i32.const ${kind}\ncall $yield\n`;
  if (/^memory\.atomic\.(wait|notify).*offset=/.test(instruction))
    throw new Error(`an address with an offset is not handled: ${instruction}`);
  if (instruction.startsWith("memory.atomic.wait")) return "call $wait";
  if (instruction.startsWith("memory.atomic.notify")) return `${yields(ATOMIC)}call $notify`;
  if (/^i(32|64)\.atomic\./.test(instruction)) return yields(ATOMIC) + instruction;
  if (/^(\w+\.store|memory\.(fill|copy))/.test(instruction)) return yields(STORE) + instruction;
  return instruction;
}

/** Writes the module in the file `from`, with its yields, to the file `to`. */
export function writeYielding(from, to) {
  const plain = binaryen.readBinary(readFileSync(from));
  plain.setFeatures(binaryen.Features.All);
  const lines = plain.emitStackIR().split("\n"); // one instruction a line, none folded
  plain.dispose();
  const firstImport = lines.findIndex((line) => line.trim().startsWith("(import"));
  const text = lines.map((line) => stepped(line.trim()));
  text.splice(firstImport, 0, IMPORTS);
  const yielding = binaryen.parseText(text.join("\n"));
  yielding.setFeatures(binaryen.Features.All);
  writeFileSync(to, yielding.emitBinary());
  yielding.dispose();
}
