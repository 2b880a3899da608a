/**
 * The words of the records of area A: numbers, flags, and files by what they are.
 *
 * @module
 */

import * as dmabuf from "dmabuf";
import type { UapiWorld } from "./uapi-world.ts";

/** Flags that the library does not name. */
const otherFlags: Readonly<Record<string, number>> = { O_ASYNC: 0o20000, O_SYNC: 0o4010000 };

/** A number: decimal, hexadecimal, or flags by name with bars between them. Null: none. */
export function numberOf(text: string): bigint | null {
  let sum = 0n;
  for (const part of text.split("|")) {
    const word = part.trim();
    const named = Object.hasOwn(otherFlags, word)
      ? otherFlags[word]
      : (dmabuf as unknown as Record<string, unknown>)[word];
    if (typeof named === "number") sum |= BigInt(named);
    else if (/^(-?\d+|0x[0-9a-f]+)$/i.test(word)) sum |= BigInt(word);
    else return null;
  }
  return sum;
}

/** Files by a word in the text that names them; what a process cannot open here is a device. */
const files: readonly (readonly [RegExp, (world: UapiWorld, buf?: number) => number])[] = [
  [/closed/, (world) => closed(world)],
  [/dma-?buf/, (world, buf) => buf ?? world.alloc()],
  [/heap/, ({ process }) => process.open("/dev/dma_heap/system")],
  [/sync[_ ]file|fence/, (world) => world.fence(world.timeline("t"), 1)],
  [/sw_sync|timeline/, (world) => world.timeline("t")],
  [/memfd/, ({ process }) => process.memfdCreate("m")],
  [
    /udmabuf|pipe|socket|std|eventfd|epoll|directory|\/dev\//,
    ({ process }) => process.open("/dev/udmabuf"),
  ],
];

/** The descriptor that a text names: a number, or a file of a kind. Null: another text. */
export function fileNamed(world: UapiWorld, text: string, buf?: number): number | null {
  const number = /^(?:(?:mem)?fd )?(-?\d+)(?! ?(?:pages|bytes|MiB))\b/.exec(text)?.[1];
  if (number !== undefined) return Number(number);
  return files.find(([words]) => words.test(text))?.[1](world, buf) ?? null;
}

function closed(world: UapiWorld): number {
  const fd = world.alloc();
  world.process.close(fd);
  return fd;
}
