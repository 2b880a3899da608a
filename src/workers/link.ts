/**
 * Link: what this thread asks another for, about one buffer or one attachment to it.
 *
 *     ask() ─► its turn ─► words in shared memory, a bell ─► … ─► answer
 *       └── aborted, or out of time: the caller hears at once; what is answered later is undone
 *
 * - LK1  A link's questions are asked one by one, in order: who gives something back after another
 *        question is heard after it.
 * - LK2  A link that is closed, or whose thread has died, is given up by the other side with all
 *        that was done for it.
 * - LK3  Nobody answers for a thread that is gone: EOWNERDEAD, or ENODEV if it had left.
 *
 * Compare assembly/link.ts.
 *
 * @module
 */

import { armWait, requireTimeout, type WaitOptions, waitError } from "../clock.ts";
import type { Core } from "../core/core.ts";
import { loadWord, onceChanged } from "../core/wait-word.ts";
import { checked, DmaBufError, fail } from "../errors.ts";
import { freeText, makeText } from "../mm/text-table.ts";
import {
  ANSWERED,
  answeredError,
  IDLE,
  type LinkOp,
  linkOps,
  linkWords,
  reasonOf,
} from "./link-words.ts";
import { callAgain } from "./retry.ts";

/** What to ask. */
export interface Question {
  readonly op: LinkOp;
  /** For people: "map frame 7 for gpu". */
  readonly operation: string;
  readonly a?: number | undefined;
  readonly b?: number | undefined;
  /** Goes as text, in the place of `a`. */
  readonly text?: unknown;
  /** What undoes the answer, if nobody waits for it any more. */
  readonly undo?: ((answer: Answer) => Question) | undefined;
}

/** A question on its way. */
interface Asked extends Question {
  /** Whether somebody waits for the answer. */
  isAwaited: boolean;
  isUndone: boolean;
}

function told(question: Question): Asked {
  return { ...question, isAwaited: false, isUndone: false };
}

/** What was answered. */
export interface Answer {
  readonly value: number;
  readonly more: number;
}

/** @internal A link of this thread's. */
export class Link {
  readonly #core: Core;
  readonly #handle: number;
  readonly #at: number;
  readonly #sizeBytes: number;
  /** The end of the last question (LK1). */
  #last: Promise<unknown> = Promise.resolve();
  #unanswered = 0;
  /** How many questions somebody waits for; the host is kept alive for these only. */
  #awaited = 0;
  /** Ends the wait for an answer. */
  #wake: (() => void) | null = null;

  /** To who serves the buffer of a token that this thread holds. ENOMEM, and LK3. */
  constructor(core: Core, token: number, name: string, sizeBytes: number) {
    const operation = `ask for ${name}`;
    this.#core = core;
    this.#sizeBytes = sizeBytes;
    this.#handle = checked(core.exports.linkAlloc(token), operation, reasonOf);
    this.#at = core.exports.linkAt(this.#handle) >>> 0;
  }

  /** Asks, and waits for the answer. ETIME, EINTR, LK3, and what the other side throws. */
  ask(question: Question, wait: WaitOptions): Promise<Answer> {
    const timeout = requireTimeout(wait, question.operation);
    const sent: Asked = { ...told(question), isAwaited: true };
    const asked = this.#inTurn(async () => {
      if (!sent.isAwaited) throw waitError(0, question.operation, wait);
      const answer = await this.#exchange(sent);
      if (!sent.isAwaited) await this.#undo(sent, answer);
      return answer;
    });
    return new Promise((resolve, reject) => {
      const subscribe = (wake: () => void): (() => void) => {
        asked.then(wake, wake);
        return () => {};
      };
      this.#awaited += 1;
      this.#wake?.(); // what is told before this one must be waited for too
      armWait(wait, timeout, subscribe, (left) => {
        this.#awaited -= 1;
        if (left > 0) {
          asked.then(resolve, reject);
          return;
        }
        sent.isAwaited = false;
        const undone = asked.then((answer) => this.#undo(sent, answer));
        undone.catch(() => {}); // nothing was done, or nobody is there to undo it
        this.#cancel(sent);
        reject(waitError(left, question.operation, wait));
      });
    });
  }

  /** Says what cannot fail, in its turn; nobody hears how that went (LK3: it does not matter). */
  tell(question: Question): void {
    void this.#inTurn(() => this.#exchange(told(question))).catch(() => {});
  }

  /** Gives the link up, when what was asked before has been answered (LK2). */
  close(): void {
    const free = (): void => void this.#core.exports.linkFree(this.#handle);
    if (this.#unanswered === 0) free();
    else void this.#last.then(free);
  }

  #inTurn<T>(call: () => Promise<T>): Promise<T> {
    this.#unanswered += 1;
    const result = this.#last.then(call).finally(() => {
      this.#unanswered -= 1;
    });
    this.#last = result.catch(() => {});
    return result;
  }

  /** Takes back what nobody waits for, before the next question is asked (LK1). */
  async #undo(sent: Asked, answer: Answer): Promise<void> {
    if (sent.undo === undefined || sent.isUndone) return;
    sent.isUndone = true;
    await this.#exchange(told(sent.undo(answer))).catch(() => {});
  }

  /** The question that is being asked just now. */
  #current: Asked | null = null;

  #cancel(question: Asked): void {
    if (this.#current !== question) return;
    this.#core.exports.linkCancel(this.#handle);
    this.#wake?.();
  }

  async #exchange(question: Asked): Promise<Answer> {
    const { op, operation, a = 0, b = 0, text } = question;
    const make = (): number => makeText(this.#core, text, operation);
    const words = text === undefined ? 0 : await callAgain(make, {}, operation);
    this.#current = question;
    try {
      const number = words === 0 ? a : words;
      const post = this.#core.exports.linkPost(this.#handle, linkOps.indexOf(op), number, b);
      checked(post, operation, reasonOf);
      await this.#answered();
      return this.#answer(operation);
    } finally {
      this.#current = null;
      freeText(this.#core, words);
    }
  }

  /** Waits until the question has been answered, or was taken back. */
  async #answered(): Promise<void> {
    for (;;) {
      const state = loadWord(this.#core, this.#at);
      if (state === ANSWERED || state === IDLE) return;
      await new Promise<void>((resolve) => {
        const stop = onceChanged(this.#core, this.#at, state, resolve, this.#awaited > 0);
        this.#wake = () => {
          stop();
          resolve();
        };
      });
      this.#wake = null;
    }
  }

  #answer(operation: string): Answer {
    const word = (name: keyof typeof linkWords): number =>
      this.#core.word(this.#at, linkWords[name]);
    if (word("state") !== ANSWERED) fail("ECANCELED", operation, "it was taken back");
    const [result, value, more, reply] = [
      loadWord(this.#core, this.#at + 4 * linkWords.result),
      word("value"),
      word("more"),
      word("reply"),
    ];
    if (result < 0) throw answeredError(this.#core, result, reply, operation, this.#sizeBytes);
    return { value, more };
  }
}

/** Whether an error says that nobody is there who could be told (LK3). */
export function isNobodyThere(error: unknown): boolean {
  return error instanceof DmaBufError && ["EOWNERDEAD", "ENODEV"].includes(error.code);
}
