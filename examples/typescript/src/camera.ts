// Sends a camera's frames at a fixed rate; of the answers only the newest counts.
//
// A frame is sent when its time has come, whether or not the last one was answered. All carry the same key, so
// when the link or the model is slower than the camera, the router ends the frames in between as superseded
// instead of letting them queue. Nothing is asked again: the next frame is newer than any retry.

import { setTimeout as sleep } from "node:timers/promises";
import type { NatsConnection } from "@nats-io/transport-node";
import * as ask from "./ask.js";
import * as wire from "./wire.js";

export interface Camera {
  subject: string;
  key: string;
  hz: number;
  seconds: number;
  bytes: number; // of a frame
  deadlineMs: number;
}

/** Keeps the newest answer: one of an older frame that comes late changes nothing. */
export class Newest {
  private number = -1;
  private ages: number[] = [];
  readonly counts = new Map<string, number>();
  quietUntil = 0; // ms, on the caller's clock: busy says when to send the next frame

  answer(number: number, age: number): boolean {
    const used = number > this.number;
    this.count(used ? "used" : "older than one that was used");
    if (!used) return false;
    this.number = number;
    this.ages.push(age);
    return true;
  }

  error(err: wire.FleetError, now: number): void {
    this.count(err.code);
    if (err.retryAfterMs !== undefined) this.quietUntil = Math.max(this.quietUntil, now + err.retryAfterMs);
  }

  summary(sent: number, skipped: number): string {
    const counts = [...this.counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([what, n]) => `, ${what} ${n}`);
    const ages = this.ages.sort((a, b) => a - b);
    const age = ages.length ? `; age of an answer: median ${ages[ages.length >> 1]!.toFixed(1)} ms, worst ${ages.at(-1)!.toFixed(1)} ms` : "";
    return `sent ${sent}, skipped ${skipped}${counts.join("")}${age}`;
  }

  private count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }
}

/** The place of your camera: a picture with its number in the first 4 bytes. */
function frame(number: number, bytes: number): Uint8Array {
  const picture = Buffer.alloc(Math.max(4, bytes));
  picture.writeUInt32BE(number);
  return picture;
}

/** Returns the exit status: 0 where at least one answer was used. */
export async function camera(nc: NatsConnection, c: Camera): Promise<number> {
  const newest = new Newest();
  const running = new Set<Promise<void>>();
  const begun = performance.now();
  let sent = 0;
  let skipped = 0;
  const one = async (number: number) => {
    const at = performance.now();
    try {
      await ask.once(nc, "inference", c.subject, frame(number, c.bytes), new wire.Deadline(c.deadlineMs), { "Fb-Key": c.key, "Content-Type": "image/raw" });
      if (newest.answer(number, performance.now() - at)) {
        // act on the answer here
      }
    } catch (err) {
      newest.error(err instanceof wire.FleetError ? err : new wire.FleetError("internal", String(err)), performance.now());
    }
  };
  for (let number = 0; number < Math.floor(c.hz * c.seconds); number++) {
    await sleep(Math.max(0, begun + (1000 * number) / c.hz - performance.now())); // against the start, so that no delay adds up
    if (performance.now() < newest.quietUntil) {
      skipped++;
      continue;
    }
    sent++;
    const p: Promise<void> = one(number).finally(() => running.delete(p));
    running.add(p);
  }
  await Promise.all(running);
  console.log(newest.summary(sent, skipped));
  return newest.counts.get("used") ? 0 : 1;
}
