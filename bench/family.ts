/**
 * Runs one family, or one of its peers, and sends the rows to run.ts.
 *
 *     node family.js <bench file> <filter> [<peer>]        started by run.ts, with a channel
 *
 * @module
 */

import { type Family, type FamilyResult, Suite } from "./suite.ts";

const [file = "", filter = "", onlyPeer = null] = process.argv.slice(2);
const suite = new Suite(new RegExp(filter), onlyPeer);
const { family } = (await import(`./${file}`)) as { readonly family: Family };
family(suite);
const result: FamilyResult = { rows: suite.rows, peers: suite.peers };
process.send?.(result);
