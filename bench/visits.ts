/**
 * Visits: a row is measured until two medians agree, and the quickest counts.
 *
 * - VI1  What else a host does only adds time: a neighbour on the same processor makes everything
 *        1.7 times slower for seconds to minutes, one in the same cache what misses it up to five
 *        times. So visits lie a whole table apart, and the smallest median is nearest to the work.
 * - VI2  Nothing is hidden: lowest and highest sample are those of all visits, and every median is
 *        kept. A row whose medians are far apart was measured on a busy host.
 *
 * @module
 */

import type { Row } from "./suite.ts";

/** Visits to each row at most, unless told otherwise. */
export const VISITS = 4;
/** The quickest visits to a row agree if they are not further apart. */
const AGREEMENT = 1.05;

/** Whether the row needs no further visit: its two quickest ones agree. */
export function isSettled({ medians }: Row): boolean {
  const [quickest = 0, next = Number.POSITIVE_INFINITY] = [...medians].sort((a, b) => a - b);
  return next <= quickest * AGREEMENT;
}

/** Of two measurements of one row the quicker one, with the range of both (VI1, VI2). */
export function quickest(one: Row, other: Row): Row {
  return {
    ...(one.nsPerOp <= other.nsPerOp ? one : other),
    lowNs: Math.min(one.lowNs, other.lowNs),
    highNs: Math.max(one.highNs, other.highNs),
    medians: [...one.medians, ...other.medians],
  };
}
