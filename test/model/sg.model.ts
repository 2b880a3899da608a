// Scatterlists that are obviously right: lists of [frame, offset, length], built page by page.
//
// What the core refuses with EINVAL is null here. Every number is an ordinary number, so nothing
// wraps.

const PS = 4096;

export type ModelEntry = [pfn: number, offset: number, length: number];

/** Bytes of all entries. */
export function bytesOf(list: readonly ModelEntry[]): number {
  return list.reduce((sum, [, , length]) => sum + length, 0);
}

/** Bytes [offset, offset + size) of the frames, in entries of whole frames up to `maxBytes`. */
export function entriesOfPages(
  pfns: readonly number[],
  offset: number,
  size: number,
  maxBytes: number,
): ModelEntry[] | null {
  const maxPages = Math.floor(maxBytes / PS);
  if (pfns.length === 0 || offset >= PS || size === 0 || maxPages === 0) return null;
  const runs: [number, number][] = [];
  for (const pfn of pfns) {
    const run = runs.at(-1);
    if (run !== undefined && pfn === run[0] + run[1] && run[1] < maxPages) run[1] += 1;
    else runs.push([pfn, 1]);
  }
  const lastPages = runs.at(-1)?.[1] ?? 0;
  const missing = pfns.length * PS - offset - size;
  if (missing < 0 || missing > lastPages * PS) return null; // the bytes reach the last entry
  let left = size;
  return runs.map(([pfn, pages], i) => {
    const start = i === 0 ? offset : 0;
    const length = Math.min(left, pages * PS - start);
    left -= length;
    return [pfn, start, length];
  });
}

/** The list with the first `size` bytes of the frames appended, page by page. */
export function entriesAppended(
  list: readonly ModelEntry[],
  pfns: readonly number[],
  size: number,
  maxBytes: number,
): ModelEntry[] | null {
  const max = maxBytes - (maxBytes % PS);
  const missing = pfns.length * PS - size;
  if (pfns.length === 0 || size === 0 || max === 0 || missing < 0) return null;
  if (list.at(-1)?.[2] === 0) return null;
  const result = list.map((entry): ModelEntry => [...entry]);
  for (const pfn of pfns) {
    const last = result.at(-1) as ModelEntry;
    const end = last[0] * PS + last[1] + last[2];
    if (end === pfn * PS && last[2] + PS <= max) last[2] += PS;
    else result.push([pfn, 0, PS]);
  }
  const last = result.at(-1) as ModelEntry;
  if (result.length > list.length && last[2] <= missing) return null;
  last[2] -= missing;
  return result;
}

/** The bytes [from, to) of a list, entry by entry. */
export function entriesBetween(
  list: readonly ModelEntry[],
  from: number,
  to: number,
): ModelEntry[] {
  let begin = 0;
  return list.flatMap(([pfn, offset, length]): ModelEntry[] => {
    const first = Math.max(from, begin);
    const last = Math.min(to, begin + length);
    const at = offset + first - begin;
    begin += length;
    return first < last ? [[pfn + Math.floor(at / PS), at % PS, last - first]] : [];
  });
}

/** How many leading entries hold `length` bytes; null: the list is shorter. */
export function entriesForLength(list: readonly ModelEntry[], length: number): number | null {
  let [count, bytes] = [0, 0];
  while (bytes < length) {
    const entry = list[count];
    if (entry === undefined) return null;
    bytes += entry[2];
    count += 1;
  }
  return count;
}
