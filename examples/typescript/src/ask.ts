// Asks a fleetbus router over NATS. What is decided stands in wire.ts.

import { setTimeout as sleep } from "node:timers/promises";
import { readFileSync } from "node:fs";
import { connect as dial, credsAuthenticator, errors, headers, type Msg, type NatsConnection } from "@nats-io/transport-node";
import * as wire from "./wire.js";

export async function connect(servers: string, origin: string, creds?: string): Promise<NatsConnection> {
  let authenticator;
  if (creds) {
    try {
      authenticator = credsAuthenticator(readFileSync(creds));
    } catch (err) {
      throw new wire.CallError(`credentials ${creds}: ${err}`);
    }
  }
  try {
    // Answers come to an inbox of our own: it is what a client is allowed to read.
    return await dial({ servers, name: origin, inboxPrefix: `_INBOX_${origin}`, timeout: 5000, maxReconnectAttempts: -1, ...(authenticator && { authenticator }) });
  } catch (err) {
    throw new wire.FleetError("unavailable", `no NATS server takes us on ${servers}: ${err}`);
  }
}

/** What an answer's header says, or "" where it is not there. */
export function reader(m: Msg): wire.Read {
  return (name) => (m.headers?.has(name) ? m.headers.get(name) : "");
}

function fill(fields: wire.Fields) {
  const h = headers();
  // Every request has an id of its own, also one that asks the same again.
  for (const [name, value] of Object.entries({ "Fb-Id": wire.newId(), ...fields })) h.set(name, String(value));
  return h;
}

function nobody(err: unknown): boolean {
  return err instanceof errors.NoRespondersError || (err instanceof errors.RequestError && err.isNoResponders());
}

/** What went wrong on the way, as one of the codes. */
function failed(kind: wire.Kind, err: unknown): wire.FleetError {
  if (nobody(err)) return new wire.FleetError("unavailable", "nobody listens: no router runs for this fleet, and nothing was done");
  if (err instanceof errors.TimeoutError) return wire.lost(kind);
  if (err instanceof errors.InvalidArgumentError) return new wire.FleetError("payload_too_large", String(err));
  // The connection was closed while we waited.
  return kind === "action" ? wire.lost(kind) : new wire.FleetError("unavailable", String(err));
}

function leftOf(deadline: wire.Deadline): number {
  const left = deadline.leftMs();
  if (left < 1) throw new wire.FleetError("deadline_exceeded", "no time was left to ask; nothing was sent");
  return left;
}

/**
 * Asks the server for a sign of life before an action is sent, within a second: a command that lies in a buffer
 * while the link is down would reach the robot late, with all the time that it once had.
 */
async function link(nc: NatsConnection, deadline: wire.Deadline): Promise<void> {
  const giveUp = new AbortController();
  const down = sleep(Math.min(1000, leftOf(deadline)), "down", { signal: giveUp.signal }).catch(() => "down");
  const up = nc.flush().then(() => "up", (err) => String(err));
  const state = await Promise.race([up, down]);
  giveUp.abort();
  if (state !== "up") throw new wire.FleetError("unavailable", `the link to the server is ${state}; nothing was sent`);
}

/** Sends one request, once. Not for actions, which stream sends. */
export async function once(nc: NatsConnection, kind: "inference" | "training", subject: string, body: Uint8Array, deadline: wire.Deadline, fields: wire.Fields): Promise<Msg> {
  const left = leftOf(deadline);
  let m;
  try {
    m = await nc.request(subject, body, { timeout: left + wire.graceMs, headers: fill({ ...fields, "Fb-Left-Ms": left }) });
  } catch (err) {
    throw failed(kind, err);
  }
  const err = wire.errorOf(reader(m));
  if (err) throw err;
  return m;
}

/** Like once, with partial results and progress: onProgress is called for each message before the answer. */
export async function stream(
  nc: NatsConnection, kind: wire.Kind, subject: string, body: Uint8Array, deadline: wire.Deadline, fields: wire.Fields, onProgress: (read: wire.Read, body: Uint8Array) => void,
): Promise<Msg> {
  if (kind === "action") await link(nc, deadline);
  const left = leftOf(deadline);
  const parts = new wire.Parts();
  try {
    for await (const m of await nc.requestMany(subject, body, { maxWait: left + wire.graceMs, headers: fill({ ...fields, "Fb-Left-Ms": left, "Fb-Stream": 1 }) })) {
      const read = reader(m);
      if (read("Fb-Kind") !== "progress") {
        const err = wire.errorOf(read);
        if (err) throw err;
        return m;
      }
      if (parts.take(read, m.data)) onProgress(read, m.data);
    }
  } catch (err) {
    throw err instanceof wire.FleetError ? err : failed(kind, err);
  }
  throw wire.lost(kind); // it ended without an answer
}

/** Asks until there is an answer or an error that another try does not change, within the deadline. */
export async function retried(deadline: wire.Deadline, ask: () => Promise<Msg>): Promise<Msg> {
  for (let tries = 1; ; tries++) {
    try {
      return await ask();
    } catch (err) {
      const pause = err instanceof wire.FleetError ? wire.pauseMs(err, tries, deadline.leftMs()) : undefined;
      if (pause === undefined) throw err;
      await sleep(pause);
      if (deadline.leftMs() < wire.leastMs) throw err;
    }
  }
}

/**
 * Tells a robot to stop an action. true: it ran, and was told; its caller then gets unknown_outcome, because it
 * ran in part. false: the robot does not have it. undefined: no word came back within so many ms.
 */
export async function cancel(nc: NatsConnection, at: wire.Place, robot: string, id: string, withinMs = 2000): Promise<boolean | undefined> {
  try {
    const m = await nc.request(wire.cancelSubject(at, robot), wire.cancelBody(id), { timeout: withinMs });
    return Buffer.from(m.data).includes(id);
  } catch (err) {
    return nobody(err) ? false : undefined;
  }
}
