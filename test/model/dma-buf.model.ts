/**
 * The naive twin of one buffer: what each call answers and which callbacks it makes, told from
 * counts and lists alone.
 *
 * @module
 */

import type { Direction } from "../../src/index.ts";

/** Static and caching exporters stay where they are; a dynamic one pins. */
export type ExporterKind = "static" | "caching" | "dynamic";

/** Now, as the importer holds the lock; with the lock held by the call; or after waiting. */
export type Form = "now" | "unlocked" | "async";

/** What is done to the buffer. `at` picks an attachment or mapping, modulo how many there are. */
export interface Command {
  readonly verb: Verb;
  readonly at: number;
  readonly which: number;
  readonly isDynamic: boolean;
  readonly form: Form;
  readonly direction: Direction;
  /** The exporter's callback that fails during this command, or answers later, and how. */
  readonly faultAt: string;
  readonly fault: "throw" | "promise" | "reject";
}

export const verbs = [
  "attach",
  "detach",
  "map",
  "unmap",
  "pin",
  "unpin",
  "lock",
  "unlock",
  "moveNotify",
  "vmap",
  "vunmap",
  "mmap",
  "munmap",
  "begin",
  "end",
  "fence",
  "signal",
  "get",
  "put",
] as const;

/** One of {@link verbs}. */
export type Verb = (typeof verbs)[number];

interface AttachmentModel {
  readonly name: string;
  readonly isDynamic: boolean;
  kept: Direction | null;
  keptUses: number;
  readonly own: Direction[];
  pins: number;
}

/** What the counts must be after a command. */
export interface Counts {
  readonly refCount: number;
  readonly attachmentCount: number;
  readonly mapCount: number;
  readonly pinCount: number;
  readonly vmapCount: number;
  readonly cpuMappingCount: number;
}

/** Callbacks that give: a synchronous call gets no promise of theirs. */
const GIVING = ["attach", "pin", "map", "begin", "end", "vmap"];
/** Callbacks that always answer at once. */
const PROMPT = ["mmap", "release"];
const sum = (values: number[]): number => values.reduce((total, value) => total + value, 0);

/** The twin. */
export class DmaBufModel {
  readonly attachments: AttachmentModel[] = [];
  /** Callbacks of the last command. */
  calls: string[] = [];
  readonly #kind: ExporterKind;
  #command: Command | null = null;
  #refs = 1;
  #vmaps = 0;
  #cpu = 0;
  #isLocked = false;
  #isFenced = false;

  constructor(kind: ExporterKind) {
    this.#kind = kind;
  }

  get counts(): Counts {
    return {
      refCount: this.#refs,
      attachmentCount: this.attachments.length,
      mapCount: sum(this.attachments.map(({ own, keptUses }) => own.length + keptUses)),
      pinCount: sum(this.attachments.map(({ pins }) => pins)),
      vmapCount: this.#vmaps,
      cpuMappingCount: this.#cpu,
    };
  }

  get isLocked(): boolean {
    return this.#isLocked;
  }

  /** What a command answers: "ok", or a code. */
  apply(command: Command): string {
    this.calls = [];
    this.#command = command;
    try {
      this.#do(command);
      return "ok";
    } catch (code) {
      if (typeof code === "string") return code;
      throw code;
    }
  }

  #do(command: Command): void {
    const attachment = this.attachments[command.at % Math.max(1, this.attachments.length)];
    if (command.verb === "attach") this.#attach(`gpu${command.at % 3}`, command.isDynamic);
    else if (attachment !== undefined) this.#doAttachment(attachment, command);
    this.#doBuffer(command.verb);
  }

  #doAttachment(attachment: AttachmentModel, command: Command): void {
    const calls: Partial<Record<Verb, () => void>> = {
      detach: () => this.#detach(attachment),
      map: () => this.#map(attachment, command),
      unmap: () => this.#unmap(attachment, command),
      pin: () => this.#pin(attachment),
      unpin: () => this.#unpin(attachment),
    };
    calls[command.verb]?.();
  }

  #doBuffer(verb: Verb): void {
    const calls: Partial<Record<Verb, () => void>> = {
      lock: () => {
        if (this.#isLocked) throw "EAGAIN";
        this.#isLocked = true;
      },
      unlock: () => {
        if (!this.#isLocked) throw "EINVAL";
        this.#isLocked = false;
      },
      moveNotify: () => this.#moveNotify(),
      vmap: () => {
        this.#requireLive();
        if (this.#vmaps === 0) this.#ask("vmap");
        this.#vmaps += 1;
      },
      vunmap: () => {
        if (this.#vmaps === 0) throw "EINVAL";
        if (this.#vmaps === 1) this.#ask("vunmap");
        this.#vmaps -= 1;
      },
      mmap: () => {
        this.#requireLive();
        this.#ask("mmap");
        this.#cpu += 1;
        this.#refs += 1;
      },
      munmap: () => {
        if (this.#cpu === 0) return;
        this.#put(1);
        this.#cpu -= 1;
      },
      begin: () => this.#begin(),
      end: () => {
        this.#requireLive();
        this.#ask("end");
      },
      fence: () => {
        this.#isFenced = true;
      },
      signal: () => {
        this.#isFenced = false;
      },
      get: () => {
        this.#requireLive();
        this.#refs += 1;
      },
      put: () => this.#put(),
    };
    calls[verb]?.();
  }

  get #isAsync(): boolean {
    return this.#command?.form === "async";
  }

  #begin(): void {
    this.#requireLive();
    if (this.#isFenced && !this.#isAsync) throw "EAGAIN";
    this.#ask("begin");
    if (!this.#isFenced) return;
    this.#try("end");
    throw "ETIME";
  }

  #requireLive(): void {
    if (this.#refs === 0) throw "ESTALE";
  }

  /** A callback, with the device it is for; fails if the command says so. */
  #ask(verb: string, name = ""): void {
    this.calls.push(`${verb}${name === "" ? "" : ` ${name}`} ${this.#isLocked ? "" : "un"}locked`);
    if (this.#command?.faultAt !== verb) return;
    const { fault } = this.#command;
    const rejects = fault === "reject" && this.#isAsync && !PROMPT.includes(verb);
    if (fault === "throw" || rejects) throw "EIO";
    if (!this.#isAsync && GIVING.includes(verb)) throw "EWOULDBLOCK";
  }

  /** The same where nobody hears of a failure; whether it failed. */
  #try(verb: string, name = ""): boolean {
    try {
      this.#ask(verb, name);
      return false;
    } catch {
      return true;
    }
  }

  #locked(isLocking: boolean, call: () => void): void {
    if (isLocking && this.#isLocked) throw this.#isAsync ? "ETIME" : "EAGAIN";
    this.#isLocked ||= isLocking;
    try {
      call();
    } finally {
      if (isLocking) this.#isLocked = false;
    }
  }

  #attach(name: string, isDynamic: boolean): void {
    this.#requireLive();
    if (this.#isLocked && !this.#isAsync) throw "EAGAIN";
    this.#ask("attach", name);
    const exporterPins = this.#kind === "dynamic";
    const made = { name, isDynamic, kept: null, keptUses: 0, own: [], pins: 0 };
    const attachment: AttachmentModel = made;
    try {
      if (this.#isLocked) throw "ETIME";
      if (isDynamic !== exporterPins) this.#locked(exporterPins, () => this.#keep(attachment));
    } catch (code) {
      this.#try("detach", name);
      throw code;
    }
    this.attachments.push(attachment);
  }

  #keep(attachment: AttachmentModel): void {
    const exporterPins = this.#kind === "dynamic";
    if (exporterPins) this.#ask("pin", attachment.name);
    try {
      this.#askForMapping(attachment);
    } catch (code) {
      if (exporterPins) this.#try("unpin", attachment.name);
      throw code;
    }
    attachment.kept = "bidirectional";
  }

  /** Static importers wait for fences: a synchronous call before it asks, others after that. */
  #askForMapping({ name, isDynamic }: AttachmentModel): void {
    const mustWait = !isDynamic && this.#isFenced;
    if (mustWait && !this.#isAsync) throw "EAGAIN";
    this.#ask("map", name);
    if (!mustWait) return;
    this.#try("unmap", name);
    throw "ETIME";
  }

  /** Whether a detach would go on after its time: then it is not tried. */
  wouldGoOn({ verb, form, at }: Command): boolean {
    const attachment = this.attachments[at % Math.max(1, this.attachments.length)];
    const isDetach = verb === "detach" && form === "async" && attachment !== undefined;
    return isDetach && this.#isLocked && this.#kind !== "dynamic" && attachment.kept !== null;
  }

  #detach(attachment: AttachmentModel): void {
    if (attachment.own.length + attachment.pins > 0) throw "EBUSY";
    if (this.#isLocked) throw this.#isAsync ? "ETIME" : "EAGAIN";
    let hasFailed = false;
    if (attachment.kept !== null) {
      const exporterPins = this.#kind === "dynamic";
      this.#locked(exporterPins, () => {
        this.#ask("unmap", attachment.name);
        if (exporterPins) hasFailed = this.#try("unpin", attachment.name);
      });
    }
    this.attachments.splice(this.attachments.indexOf(attachment), 1);
    hasFailed = this.#try("detach", attachment.name) || hasFailed;
    if (hasFailed) throw "EIO";
  }

  /** Whether a call locks; EINVAL: its importer should have. */
  #locks({ isDynamic }: AttachmentModel, form: Form): boolean {
    if (form === "now" && isDynamic && !this.#isLocked) throw "EINVAL";
    return form === "unlocked" || (form === "async" && (isDynamic || this.#kind === "dynamic"));
  }

  #map(attachment: AttachmentModel, { form, direction }: Command): void {
    this.#locked(this.#locks(attachment, form), () => {
      if (attachment.kept !== null) {
        if (attachment.kept !== "bidirectional" && attachment.kept !== direction) throw "EBUSY";
        attachment.keptUses += 1;
        return;
      }
      this.#askForMapping(attachment);
      if (this.#kind !== "caching") attachment.own.push(direction);
      else {
        attachment.kept = direction;
        attachment.keptUses = 1;
      }
    });
  }

  /** Of the mappings that were given out, the kept one comes first. */
  #unmap(attachment: AttachmentModel, { form, which }: Command): void {
    const uses = Math.min(attachment.keptUses, 1) + attachment.own.length;
    if (uses === 0) throw "EINVAL";
    this.#locked(this.#locks(attachment, form), () => {
      const index = (which % uses) - Math.min(attachment.keptUses, 1);
      if (index < 0) {
        attachment.keptUses -= 1;
        return;
      }
      this.#ask("unmap", attachment.name);
      attachment.own.splice(index, 1);
    });
  }

  #pin(attachment: AttachmentModel): void {
    if (!attachment.isDynamic || (!this.#isLocked && !this.#isAsync)) throw "EINVAL";
    this.#locked(this.#isAsync, () => {
      if (this.#kind === "dynamic") this.#ask("pin", attachment.name);
      attachment.pins += 1;
    });
  }

  #unpin(attachment: AttachmentModel): void {
    if (attachment.pins === 0 || (!this.#isLocked && !this.#isAsync)) throw "EINVAL";
    this.#locked(this.#isAsync, () => {
      if (this.#kind === "dynamic") this.#ask("unpin", attachment.name);
      attachment.pins -= 1;
    });
  }

  #moveNotify(): void {
    this.#requireLive();
    if (!this.#isLocked) throw "EINVAL";
    for (const { name, isDynamic } of [...this.attachments].reverse())
      if (isDynamic) this.calls.push(`moveNotify ${name} locked`);
  }

  /** `ending`: the CPU mappings that end with it. */
  #put(ending = 0): void {
    this.#requireLive();
    if (this.#refs <= this.#cpu - ending) throw "EBUSY";
    if (this.#refs === 1) {
      if (this.attachments.length + this.#vmaps > 0) throw "EBUSY";
      this.#ask("release");
    }
    this.#refs -= 1;
  }
}
