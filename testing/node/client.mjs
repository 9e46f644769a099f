// A client of fleetbus in Node, written from docs/protocol.md alone: one inference, one
// action, one training job, partial results, and the errors of requests that cannot succeed. It prints
// what came back as one line of JSON; node_test.go compares it.
//
//	node client.mjs SERVER-URL FLEET

import { connect, headers } from "@nats-io/transport-node";

const [server, fleet] = process.argv.slice(2);
if (!server || !fleet) {
  console.error("usage: node client.mjs SERVER-URL FLEET");
  process.exit(2);
}
const origin = "node-client";
const nc = await connect({ servers: server, name: origin });

// ask sends one request and returns the answer; an error is an answer with a code.
async function ask(what, body, fields = {}) {
  const h = headers();
  for (const [name, value] of Object.entries(fields)) h.set(name, String(value));
  // The router answers at the deadline at the latest: a second more than that means that
  // the router itself is gone.
  const timeout = Number(fields["Fb-Left-Ms"] ?? 30_000) + 1000;
  const m = await nc.request(`fb.${fleet}.main.req.${what}`, body, { headers: h, timeout });
  const of = (name) => (m.headers?.has(name) ? m.headers.get(name) : undefined);
  const answer = { id: of("Fb-Id"), agent: of("Fb-Agent"), attempt: of("Fb-Attempt"), type: of("Content-Type"), job: of("Fb-Job") };
  if (of("Fb-Error")) {
    return { ...answer, error: of("Fb-Error"), message: of("Fb-Error-Message"), bytes: m.data.length };
  }
  return { ...answer, body: Buffer.from(m.data).toString("base64") };
}

// Every value that a byte can have: the body must arrive as it is, and come back as it is.
const body = Uint8Array.from({ length: 256 }, (_, i) => i);
const action = { "Fb-Left-Ms": 5000, "Fb-Episode": "episode-1" };

const out = {
  inference: await ask(`inference.${origin}.detect`, body, { "Fb-Left-Ms": 5000, "Fb-Key": "camera-1", "Content-Type": "image/raw", "Fb-Id": "node-1" }),
  action: await ask(`action.${origin}.robot-1.move`, body, { ...action, "Fb-Seq": 1 }),
  again: await ask(`action.${origin}.robot-1.move`, body, { ...action, "Fb-Seq": 1 }),
  absent: await ask(`action.${origin}.robot-9.move`, body, { ...action, "Fb-Seq": 2 }),
  training: await ask(`training.${origin}.learn`, body, { "Fb-Key": "night-1" }),
  resubmitted: await ask(`training.${origin}.learn`, body, { "Fb-Key": "night-1" }),
  unknown: await ask(`inference.${origin}.nothing`, body, { "Fb-Left-Ms": 5000 }),
  failed: await ask(`inference.${origin}.broken`, body, { "Fb-Left-Ms": 5000 }),
  malformed: await ask(`inference.${origin}.detect`, body, { "Fb-Left-Ms": "soon" }),
};

// streamed asks for partial results and collects all that comes, up to the answer.
async function streamed(what, body, fields = {}) {
  const h = headers();
  for (const [name, value] of Object.entries({ ...fields, "Fb-Stream": 1 })) h.set(name, String(value));
  const all = [];
  for await (const m of await nc.requestMany(`fb.${fleet}.main.req.${what}`, body, { headers: h, maxWait: 10_000 })) {
    const of = (name) => (m.headers?.has(name) ? m.headers.get(name) : undefined);
    all.push({ kind: of("Fb-Kind"), part: of("Fb-Part"), done: of("Fb-Done"), note: of("Fb-Note"), error: of("Fb-Error"), body: Buffer.from(m.data).toString("base64") });
    if (of("Fb-Kind") !== "progress") break;
  }
  return all;
}
out.streamed = await streamed(`inference.${origin}.describe`, body, { "Fb-Left-Ms": 5000 });
out.streamedAction = await streamed(`action.${origin}.robot-1.move`, body, { ...action, "Fb-Seq": 3 });
out.streamedError = await streamed(`inference.${origin}.nothing`, body, { "Fb-Left-Ms": 5000 });

// Nobody answers for a fleet that does not exist, and NATS says so at once.
try {
  await nc.request("fb.nobody.main.req.inference.x.y", body, { timeout: 1000 });
} catch (err) {
  out.nobody = err.isNoResponders?.() ? "no responders" : String(err);
}

await nc.close();
console.log(JSON.stringify(out));
