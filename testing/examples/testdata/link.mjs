// An action that is asked for while the server is silent: node link.mjs DIST SERVER-URL PROCESS.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const [dist, url, server] = process.argv.slice(2);
const load = (file) => import(pathToFileURL(resolve(dist, file)).href);
const wire = await load("wire.js");
const ask = await load("ask.js");

const nc = await ask.connect(url, "link-test");
const at = { fleet: "fleet", site: "main", origin: "link-test" };
process.kill(Number(server), "SIGSTOP");
try {
  // On a busy machine it takes a while until every thread has stopped.
  const state = (task) => readFileSync(`/proc/${server}/task/${task}/stat`, "utf8").split(") ").at(-1)[0];
  while (readdirSync(`/proc/${server}/task`).some((task) => state(task) !== "T")) await sleep(10);
  const asked = ask.stream(nc, "action", wire.actionSubject(at, "robot-1", "move"), Buffer.from("x"), new wire.Deadline(5000), { "Fb-Episode": "e1", "Fb-Seq": 1 }, () => {});
  await assert.rejects(asked, /^Error: unavailable: the link to the server is down; nothing was sent/);
} finally {
  process.kill(Number(server), "SIGCONT");
}
await nc.close();
