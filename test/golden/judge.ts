/**
 * The judge: replays records and sorts each into equal, explained, not replayed yet, or different.
 *
 *     record ──handler──► facts ──┬── all as recorded ───────────────► equal
 *                                 ├── as a class says instead ───────► explained
 *                                 └── neither, or an error ──────────► different, a failure
 *            └─no handler, or "not yet"──────────────────────────────► not replayed yet
 *
 * - J1  Every record is counted in exactly one of the four.
 * - J2  A class is asked about the record's input before its facts are compared.
 * - J3  An unknown area or kind is a failure, and so is an invariant that the core breaks.
 *
 * @module
 */

import { isDeepStrictEqual } from "node:util";
import { Bed, type CoreChoice } from "./bed.ts";
import { classes, type DifferenceClass } from "./classes.ts";
import { Fields, type GoldenRecord } from "./fields.ts";
import type { GoldenFile } from "./files.ts";
import { kindsByArea, NAMES_AREA } from "./kinds.ts";
import type { Fact, Handler } from "./outcome.ts";

/** The counts of one area. */
export interface Tally {
  records: number;
  operations: number;
  equal: number;
  explained: number;
  pending: number;
  different: number;
}

/** What a run found. */
export interface Report {
  readonly areas: Map<string, Tally>;
  /** Records by what is not replayed yet. */
  readonly pending: Map<string, number>;
  /** Records that each class matches. */
  readonly matched: Map<string, number>;
  readonly notes: Map<string, number>;
  readonly failures: string[];
}

/** How to judge. */
export interface JudgeOptions {
  readonly core: CoreChoice;
  /** Whether a class without a record is a failure: on the repository's own records. */
  readonly mustUseClasses: boolean;
  readonly classes?: readonly DifferenceClass[];
}

/** Replays the files and judges every record. */
export function judge(files: readonly GoldenFile[], options: JudgeOptions): Report {
  const report: Report = {
    areas: new Map(),
    pending: new Map(),
    matched: new Map((options.classes ?? classes).map(({ name }) => [name, 0])),
    notes: new Map(),
    failures: [],
  };
  for (const file of files) judgeFile(file, options, report);
  if (!options.mustUseClasses) return report;
  for (const [name, count] of report.matched) {
    if (count === 0) report.failures.push(`The class ${name} matches no record: remove it.`);
  }
  return report;
}

function judgeFile(file: GoldenFile, options: JudgeOptions, report: Report): void {
  if (file.area === NAMES_AREA) return;
  const kinds = kindsByArea.get(file.area);
  if (kinds === undefined) {
    report.failures.push(`${file.name}: unknown area "${file.area}"`);
    return;
  }
  const bed = new Bed(options.core);
  const tally = tallyOf(report, file.area);
  for (const [i, record] of file.records.entries()) {
    const kind = String(record.k);
    const where = `${file.name}, record ${i} (${kind})`;
    const handler = Object.hasOwn(kinds, kind) ? kinds[kind] : undefined;
    tally.records += 1;
    if (handler === undefined) {
      tally.different += 1;
      report.failures.push(`${where}: unknown kind`);
    } else if (handler === null) {
      tally.pending += 1;
      add(report.pending, `${file.area} ${kind}`, 1);
    } else {
      judgeRecord(record, handler, { bed, tally, report, area: file.area, where, options });
    }
  }
  for (const broken of bed.close()) {
    report.failures.push(`${file.name}: the core breaks its invariant ${broken}`);
  }
}

interface Place {
  readonly bed: Bed;
  readonly tally: Tally;
  readonly report: Report;
  readonly area: string;
  readonly where: string;
  readonly options: JudgeOptions;
}

function judgeRecord(record: GoldenRecord, handler: Handler, place: Place): void {
  const { tally, report, where } = place;
  try {
    const fields = new Fields(record);
    const outcome = handler(fields, place.bed);
    for (const [note, count] of Object.entries(outcome.notes ?? {})) add(report.notes, note, count);
    if (outcome.pending !== undefined) {
      tally.pending += 1;
      add(report.pending, `${place.area} ${fields.kind}: ${outcome.pending}`, 1);
      return;
    }
    tally.operations += outcome.facts.length;
    const { isExplained, differences } = compare(fields, outcome.facts, place);
    if (differences.length > 0) {
      tally.different += 1;
      const more = differences.length > 1 ? ` (and ${differences.length - 1} more)` : "";
      report.failures.push(`${where}: ${differences[0]}${more}`);
    } else if (isExplained) {
      tally.explained += 1;
    } else {
      tally.equal += 1;
    }
  } catch (cause) {
    tally.different += 1;
    report.failures.push(`${where}: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
}

function compare(fields: Fields, facts: readonly Fact[], { report, options }: Place) {
  let isExplained = false;
  const instead = new Map<string, unknown>();
  for (const one of options.classes ?? classes) {
    if (!one.kinds.includes(fields.kind) || !one.matches(fields)) continue;
    add(report.matched, one.name, 1);
    isExplained ||= one.leavesOut !== undefined;
    for (const [name, value] of Object.entries(one.instead(fields))) instead.set(name, value);
  }
  const differences: string[] = [];
  for (const { name, actual, recorded } of facts) {
    const expected = instead.has(name) ? instead.get(name) : recorded;
    if (!isDeepStrictEqual(actual, expected)) {
      differences.push(`${name} is ${show(actual)}, expected ${show(expected)}`);
    } else if (!isDeepStrictEqual(expected, recorded)) {
      isExplained = true;
    }
  }
  return { isExplained, differences };
}

function tallyOf(report: Report, area: string): Tally {
  const tally = report.areas.get(area) ?? {
    records: 0,
    operations: 0,
    equal: 0,
    explained: 0,
    pending: 0,
    different: 0,
  };
  report.areas.set(area, tally);
  return tally;
}

function add(counts: Map<string, number>, name: string, count: number): void {
  counts.set(name, (counts.get(name) ?? 0) + count);
}

function show(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}
