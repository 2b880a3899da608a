// The free frames among 64 neighbours, a chunk: a word of bits, and a place in the free lists.
//
//   frames  c * 64 … c * 64 + 63        record c + 64:  bits ┼ next ┼ prev ┼ rank
//
//   bits    its free frames, unless they are all free: then 0
//   rank    1 + the order of the largest block that begins in the chunk: 1 … 6 among its bits,
//           7 … 11 all its frames, and those of the chunks that follow; 0 none
//
// B6  A block of order n is 2^n free frames, the first a multiple of 2^n, and part of no larger
//     one.
// B7  The records in front of those of chunks are heads of lists (free-list.ts). Number 0 means
//     "none": its record's `prev` is nobody's, and may be written.
//
// All of it is derived from the frames' words, and changes under framesLock.

import { lowBits, runStarts } from "./bits";
import { CHUNKS_AT, CHUNK_BYTES, CHUNK_ORDER, FIRST_CHUNK } from "./layout";

export const CHUNK_FRAMES: u32 = (<u32>1) << CHUNK_ORDER;
/** The rank of a block that is one whole chunk. */
export const RANK_FULL: u32 = CHUNK_ORDER + 1;

@unmanaged
export class Chunk {
  bits: u64;
  next: u16; // in its list: the number of a record; 0 = end
  prev: u16; // the head's number in the first
  rank: u32;

  static at(number: u32): Chunk {
    return changetype<Chunk>(CHUNKS_AT + (<usize>number << 4));
  }

  /** The chunk that holds frame `pfn`. */
  static of(pfn: u32): Chunk {
    return Chunk.at(numberOf(pfn));
  }
}

if (offsetof<Chunk>() != CHUNK_BYTES || CHUNK_BYTES != 16) ERROR("Chunk is not 16 bytes long");

/** The number of the chunk that holds frame `pfn`. */
@inline export function numberOf(pfn: u32): u32 {
  return (pfn >> CHUNK_ORDER) + FIRST_CHUNK;
}

/** The first frame of a chunk. */
@inline export function chunkPfn(number: u32): u32 {
  return (number - FIRST_CHUNK) << CHUNK_ORDER;
}

// ---- blocks among bits

const EVEN_2: u64 = 0x5555555555555555; // where blocks of 2 may begin
const EVEN_4: u64 = 0x1111111111111111;
const EVEN_8: u64 = 0x0101010101010101;
const EVEN_16: u64 = 0x0001000100010001;
const EVEN_32: u64 = 0x0000000100000001;

/** 1 + the order of the largest block among the bits: 0 … RANK_FULL. */
export function rankOf(bits: u64): u32 {
  const of2 = bits & (bits >> 1);
  const of4 = of2 & (of2 >> 2);
  const of8 = of4 & (of4 >> 4);
  const of16 = of8 & (of8 >> 8);
  const of32 = of16 & (of16 >> 16);
  return (
    <u32>(bits != 0) +
    <u32>((of2 & EVEN_2) != 0) +
    (<u32>((of4 & EVEN_4) != 0) + <u32>((of8 & EVEN_8) != 0)) +
    (<u32>((of16 & EVEN_16) != 0) + <u32>((of32 & EVEN_32) != 0) + <u32>(bits == ~(<u64>0)))
  );
}

/** Where 2^order ones begin, at multiples of as many. For what is rare: it divides. */
export function blocksIn(bits: u64, order: u32): u64 {
  const size = (<u32>1) << order;
  return runStarts(bits, size) & (~(<u64>0) / lowBits(size));
}

/** Those of `blocks` that are no part of `pairs`. */
@inline function lonesOf(blocks: u64, pairs: u64, size: u64): u64 {
  return blocks ^ (pairs | (pairs << size));
}

/**
 * Where the lowest of the smallest blocks begins that are of `order` or above; 64 when there is
 * none. Not for bits that are all ones.
 */
export function fitIn(bits: u64, order: u32): u32 {
  let run = bits & (bits >> 1);
  const of2 = run & EVEN_2;
  let lones = lonesOf(bits, of2, 1);
  if (order == 0 && lones != 0) return <u32>ctz(lones);
  run &= run >> 2;
  const of4 = run & EVEN_4;
  lones = lonesOf(of2, of4, 2);
  if (order <= 1 && lones != 0) return <u32>ctz(lones);
  run &= run >> 4;
  const of8 = run & EVEN_8;
  lones = lonesOf(of4, of8, 4);
  if (order <= 2 && lones != 0) return <u32>ctz(lones);
  run &= run >> 8;
  const of16 = run & EVEN_16;
  lones = lonesOf(of8, of16, 8);
  if (order <= 3 && lones != 0) return <u32>ctz(lones);
  run &= run >> 16;
  const of32 = run & EVEN_32;
  lones = lonesOf(of16, of32, 16);
  if (order <= 4 && lones != 0) return <u32>ctz(lones);
  return <u32>ctz(of32);
}
