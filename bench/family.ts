/**
 * Measures one row of a family, or lists them all, and sends that to run.ts.
 *
 *     node family.js <bench file> [<name of a row>]        started by run.ts, with a channel
 *
 * @module
 */

import { type Family, type FamilyResult, Suite } from "./suite.ts";

const [file = "", only = null] = process.argv.slice(2);
const suite = new Suite(only);
const { family } = (await import(`./${file}`)) as { readonly family: Family };
family(suite);
const result: FamilyResult = { names: suite.names, measured: suite.measured };
process.send?.(result);
