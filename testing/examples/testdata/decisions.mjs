// Tests of what decides in the TypeScript example. Run by typescript_test.go with the
// directory of what tsc has made.
import assert from "node:assert/strict";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const load = (file) => import(pathToFileURL(resolve(process.argv[2], file)).href);
const wire = await load("wire.js");
const { Newest } = await load("camera.js");

const at = { fleet: "fleet", site: "hall-2", origin: "me" };
assert.equal(wire.subject("inference", at, "detect"), "fb.fleet.hall-2.req.inference.me.detect");
assert.equal(wire.actionSubject(at, "robot-1", "move"), "fb.fleet.hall-2.req.action.me.robot-1.move");
assert.equal(wire.cancelSubject(at, "robot-1"), "fb.fleet.hall-2.cancel.robot-1.me");
for (const name of ["", "a.b", "a b", "x".repeat(65), "-x", "a__b", "é", "a\n"]) {
  assert.throws(() => wire.subject("training", at, name), wire.CallError);
}
assert.deepEqual([...wire.cancelBody("ab")], [0x82, 0xa1, 0x76, 1, 0xa3, 0x69, 0x64, 0x73, 0x91, 0xd9, 2, 0x61, 0x62]);

let now = 100;
const deadline = new wire.Deadline(500, () => now);
assert.equal(deadline.leftMs(), 500);
now = 350.4;
assert.equal(deadline.leftMs(), 249);
now = 1000;
assert.equal(deadline.leftMs(), 0);
for (const ms of [0, -1, NaN, 86_400_001]) assert.throws(() => new wire.Deadline(ms), wire.CallError);

const read = (headers) => (name) => headers[name] ?? "";
assert.equal(wire.errorOf(read({ "Fb-Kind": "result" })), undefined);
const busy = wire.errorOf(read({ "Fb-Error": "busy", "Fb-Error-Message": "full", "Fb-Retry-After-Ms": "120" }));
assert.deepEqual([busy.code, busy.message, busy.retryAfterMs], ["busy", "busy: full", 120]);
assert.equal(wire.lost("action").code, "unknown_outcome");
assert.equal(wire.lost("training").code, "unavailable");

const pause = (code, tries = 1, left = 10_000, after) => wire.pauseMs(new wire.FleetError(code, "", after), tries, left);
assert.equal(pause("busy", 1, 10_000, 120), 120);
assert.equal(pause("busy", 1, 129, 120), undefined);
assert.deepEqual([1, 2, 3, 7, 99].map((n) => pause("not_placed", n)), [50, 100, 200, 2000, 2000]);
for (const code of ["unknown_outcome", "superseded", "backend_failed", "draining", "stale", "stopped", "expired", "a_new_one"]) assert.equal(pause(code), undefined);

const parts = new wire.Parts();
const take = (attempt, part) => parts.take(read({ "Fb-Attempt": String(attempt), "Fb-Part": String(part) }), new Uint8Array());
assert.deepEqual([take(1, 1), take(1, 2), take(1, 2), take(2, 1), take(1, 3)], [true, true, false, true, false]);
assert.ok(parts.take(read({ "Fb-Attempt": "2", "Fb-Done": "500" }), new Uint8Array()));
assert.deepEqual([...parts.bodies.keys()], [1]);

const episode = new wire.Episode();
assert.deepEqual([episode.next(), episode.next()], [1, 2]);

const newest = new Newest();
assert.deepEqual([newest.answer(3, 20), newest.answer(2, 50), newest.answer(4, 30)], [true, false, true]);
newest.error(busy, 1000);
assert.equal(newest.quietUntil, 1120);
assert.match(newest.summary(5, 1), /^sent 5, skipped 1, busy 1, older than one that was used 1, used 2; age of an answer: median 30\.0 ms/);
