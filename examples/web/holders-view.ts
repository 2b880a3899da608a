/**
 * The table of holders: who has which frame of the pools, on which thread, and for how long.
 *
 * @module
 */

import type { FrameHolder, FrameReport, Pool } from "dmabuf";

/** Fills the table's body with a row for each frame. */
export function showHolders(body: HTMLTableSectionElement, pools: readonly Pool[]): void {
  const rows = pools.flatMap((pool) =>
    pool.report().frames.map((frame) => rowOf(pool.name, frame)),
  );
  body.replaceChildren(...rows);
}

function rowOf(pool: string, { index, holders, pending }: FrameReport): HTMLTableRowElement {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = `${pool} ${index}`;
  const tell = (what: (holder: FrameHolder) => string): string => holders.map(what).join(", ");
  row.append(
    head,
    cell(tell(({ name }) => name) || (pending.length > 0 ? "" : "free"), holders.length === 0),
    cell(tell(({ thread }) => String(thread))),
    cell(tell(({ forMs }) => `${forMs.toFixed(0)} ms`)),
    cell(pending.join(", ")),
  );
  row.cells[3]?.classList.add("number");
  return row;
}

function cell(text: string, isIdle = false): HTMLTableCellElement {
  const element = document.createElement("td");
  element.textContent = text;
  if (isIdle) element.classList.add("idle");
  return element;
}
