// What the door of a fleetbus router wants and says (docs/protocol.md), without a network.

import { randomUUID } from "node:crypto";

export type Kind = "inference" | "action" | "training";

/** A code of docs/protocol.md. Codes are only ever added: one that is not known here means stop. */
export type Code =
  | "no_capacity" | "not_placed" | "not_found" | "deadline_exceeded" | "expired" | "busy" | "payload_too_large"
  | "bad_request" | "backend_failed" | "unknown_outcome" | "unauthorized" | "superseded" | "not_connected" | "stale"
  | "draining" | "canceled" | "unavailable" | "conflict" | "internal" | "stopped" | (string & {});

/** What may be asked again, after a pause. Of an action these also say that it did not run. */
const retryHere: ReadonlySet<Code> = new Set<Code>(["no_capacity", "not_placed", "busy", "not_connected", "unavailable", "conflict"]);

/** NATS should wait longer than the deadline: silence for longer than this after it means that the router is gone. */
export const graceMs = 1000;

/** The least that is worth trying with. */
export const leastMs = 10;

const maxLeftMs = 86_400_000;

/** A request that ended in an error. */
export class FleetError extends Error {
  constructor(readonly code: Code, text: string, readonly retryAfterMs?: number) {
    super(`${code}: ${text}`);
  }
}

/** A call that cannot be right, found before anything is sent. */
export class CallError extends Error {}

/** A deadline on the clock of this process. Only what is left of it is ever sent. */
export class Deadline {
  private readonly until: number;

  constructor(ms: number, private readonly clock: () => number = () => performance.now()) {
    if (!(ms >= 1 && ms <= maxLeftMs)) throw new CallError(`deadline: found ${ms} ms, allowed are 1 to ${maxLeftMs}`);
    this.until = clock() + ms;
  }

  /** What is left, in whole milliseconds, rounded down; 0 when it is over. */
  leftMs(): number {
    return Math.max(0, Math.floor(this.until - this.clock()));
  }
}

/** Numbers the actions of one run. A new run is a new episode. */
export class Episode {
  private seq = 0;

  constructor(readonly name: string = newId()) {
    checkName("episode", name);
  }

  next(): number {
    return ++this.seq;
  }
}

export function newId(): string {
  return randomUUID().replaceAll("-", "");
}

export function checkName(what: string, name: string): string {
  if (!/^[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?$/.test(name) || name.includes("__")) {
    throw new CallError(`${what}: found ${JSON.stringify(name)}, allowed are 1 to 64 ASCII letters, digits, "-" and "_", a letter or digit first and last, and no "__"`);
  }
  return name;
}

/** Who asks whom. site is where the question comes from. */
export interface Place {
  fleet: string;
  site: string;
  origin: string;
}

export function subject(kind: "inference" | "training", at: Place, task: string): string {
  checkPlace(at);
  return `fb.${at.fleet}.${at.site}.req.${kind}.${at.origin}.${checkName("task", task)}`;
}

export function actionSubject(at: Place, robot: string, task: string): string {
  checkPlace(at);
  return `fb.${at.fleet}.${at.site}.req.action.${at.origin}.${checkName("robot", robot)}.${checkName("task", task)}`;
}

/** Where to say that an action is not wanted any more. The site is the robot's. */
export function cancelSubject(at: Place, robot: string): string {
  checkPlace(at);
  return `fb.${at.fleet}.${at.site}.cancel.${checkName("robot", robot)}.${at.origin}`;
}

/** The msgpack map {"v": 1, "ids": [id]}, by hand: it is the only one needed. */
export function cancelBody(id: string): Uint8Array {
  const text = Buffer.from(checkName("id", id));
  return Buffer.concat([Buffer.from([0x82, 0xa1]), Buffer.from("v"), Buffer.from([1, 0xa3]), Buffer.from("ids"), Buffer.from([0x91, 0xd9, text.length]), text]);
}

function checkPlace(at: Place): void {
  checkName("fleet", at.fleet);
  checkName("site", at.site);
  checkName("origin", at.origin);
}

/** Fields of a request, by the names of their headers. */
export interface Fields {
  "Fb-Left-Ms"?: number;
  "Fb-Key"?: string;
  "Fb-Episode"?: string;
  "Fb-Seq"?: number;
  "Fb-Stream"?: 1;
  "Fb-Id"?: string;
  "Content-Type"?: string;
}

/** What is read of an answer's headers: the value of one, or "" where it is not there. */
export type Read = (name: string) => string;

/** The error that an answer tells, or undefined: their absence is success. */
export function errorOf(read: Read): FleetError | undefined {
  const code = read("Fb-Error");
  if (!code) return undefined;
  const after = read("Fb-Retry-After-Ms");
  return new FleetError(code, read("Fb-Error-Message"), /^\d+$/.test(after) ? Number(after) : undefined);
}

/** The error where no answer came in time and a second: the router itself was lost. */
export function lost(kind: Kind): FleetError {
  if (kind === "action") return new FleetError("unknown_outcome", "the router was lost while the action was under way; it may have run: look before acting again");
  return new FleetError("unavailable", "no answer within the deadline and a second more: the router was lost");
}

/**
 * How long to wait before asking again, in ms, or undefined: do not ask again. tries counts the requests
 * sent so far, from 1. It is the same for all kinds: lost() says unknown_outcome of an action, which is never
 * asked again, and what another replica could answer (backend_failed, draining) the router has tried already.
 */
export function pauseMs(err: FleetError, tries: number, leftMs: number): number | undefined {
  if (!retryHere.has(err.code)) return undefined;
  const wait = err.retryAfterMs ?? Math.min(2000, 50 * 2 ** Math.min(tries - 1, 10));
  return wait + leastMs <= leftMs ? wait : undefined;
}

/** Collects partial results. An attempt begins from part 1 again, so those of an older one are dropped. */
export class Parts {
  private attempt = 0;
  readonly bodies = new Map<number, Uint8Array>();

  /** Whether a progress message is news: a part or a report that counts. */
  take(read: Read, body: Uint8Array): boolean {
    const attempt = Number(read("Fb-Attempt") || "1");
    if (attempt < this.attempt) return false;
    if (attempt > this.attempt) {
      this.attempt = attempt;
      this.bodies.clear();
    }
    const part = read("Fb-Part");
    if (part === "") return true;
    if (this.bodies.has(Number(part))) return false;
    this.bodies.set(Number(part), body);
    return true;
  }
}
