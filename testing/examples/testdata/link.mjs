// An action that is asked for while the server is silent: node link.mjs DIST SERVER-URL PROCESS.
import assert from "node:assert/strict";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [dist, url, server] = process.argv.slice(2);
const load = (file) => import(pathToFileURL(resolve(dist, file)).href);
const wire = await load("wire.js");
const ask = await load("ask.js");

const nc = await ask.connect(url, "link-test");
const at = { fleet: "fleet", site: "main", origin: "link-test" };
process.kill(Number(server), "SIGSTOP");
try {
  const asked = ask.stream(nc, "action", wire.actionSubject(at, "robot-1", "move"), Buffer.from("x"), new wire.Deadline(5000), { "Fb-Episode": "e1", "Fb-Seq": 1 }, () => {});
  await assert.rejects(asked, /^Error: unavailable: the link to the server is down; nothing was sent/);
} finally {
  process.kill(Number(server), "SIGCONT");
}
await nc.close();
