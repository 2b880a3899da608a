/**
 * The golden files of a folder, read and checked.
 *
 * @module
 */

import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { GoldenRecord } from "./fields.ts";

/** One file: `{"area", "records": [{"k", …}, …], …}`. */
export interface GoldenFile {
  readonly name: string;
  readonly area: string;
  readonly records: readonly GoldenRecord[];
}

/** The repository that this program belongs to. */
export function repositoryRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json"))) folder = dirname(folder);
  return folder;
}

/** The repository's own copy of the records. */
export function ownRecords(): string {
  return join(repositoryRoot(), "test/golden/records");
}

/** Reads every `*.json` of a folder. What is wrong is a line in `failures`. */
export function readFolder(folder: string): { files: GoldenFile[]; failures: string[] } {
  if (!existsSync(folder) || !statSync(folder).isDirectory()) {
    return { files: [], failures: [`${folder} is not a folder`] };
  }
  const names = readdirSync(folder).filter((name) => name.endsWith(".json"));
  if (names.length === 0) return { files: [], failures: [`${folder} holds no *.json`] };
  const files: GoldenFile[] = [];
  const failures: string[] = [];
  for (const name of names.sort()) {
    const parsed = parseFile(name, readFileSync(join(folder, name), "utf8"));
    if (typeof parsed === "string") failures.push(parsed);
    else files.push(parsed);
  }
  return { files, failures };
}

/** The file in a text, or one line about what is wrong with it. */
export function parseFile(name: string, text: string): GoldenFile | string {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (cause) {
    return `${name} is not JSON: ${cause instanceof Error ? cause.message : String(cause)}`;
  }
  if (!isObject(content)) return `${name} must hold an object`;
  const { area, records } = content;
  if (typeof area !== "string") return `${name} must name its "area"`;
  if (!Array.isArray(records)) return `${name} must have a list "records"`;
  const wrong = records.findIndex((record) => !isObject(record) || typeof record.k !== "string");
  if (wrong !== -1) return `${name}, record ${wrong}: must be an object with its kind as "k"`;
  return { name, area, records };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
