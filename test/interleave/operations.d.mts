/** What programs of a stage do, by name. */
export declare const operations: Readonly<Record<string, (...args: never[]) => number>>;
