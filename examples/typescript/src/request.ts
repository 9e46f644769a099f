#!/usr/bin/env node
// Asks a fleet: an inference, an action, a training job, or a camera's frames.
//
// The answer's bytes go to standard output, all else to standard error. Exit status: 0 for an answer, 1 for an
// error, 2 for a wrong call, 3 for an action of which nobody knows whether it ran.

import { parseArgs } from "node:util";
import type { Msg, NatsConnection } from "@nats-io/transport-node";
import * as ask from "./ask.js";
import { camera } from "./camera.js";
import * as wire from "./wire.js";

const usage = `usage: node request.js COMMAND [flags]
  infer TASK --data TEXT [--key CAMERA] [--stream]
  act ROBOT TASK --data TEXT [--episode NAME] [--cancel-after SECONDS]
  train TASK --data TEXT --key NAME
  camera TASK [--key CAMERA] [--hz 15] [--seconds 10] [--bytes 301436]
flags of all: [--server URL] [--creds FILE] [--fleet fleet] [--site main] [--origin NAME] [--deadline-ms 5000]`;

const { values, positionals } = parse();
const at: wire.Place = { fleet: values.fleet, site: values.site, origin: values.origin };

function parse() {
  const text = (value: string) => ({ type: "string", default: value }) as const;
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        server: text(process.env.NATS_URL || "nats://127.0.0.1:4222"), creds: { type: "string" },
        fleet: text("fleet"), site: text("main"), origin: text("typescript-example"), "deadline-ms": text("5000"),
        data: { type: "string" }, key: { type: "string" }, stream: { type: "boolean", default: false },
        episode: { type: "string" }, "cancel-after": { type: "string" }, hz: text("15"), seconds: text("10"), bytes: text("301436"),
      },
    });
  } catch (err) {
    console.error(`${err instanceof Error ? err.message : err}\n${usage}`);
    process.exit(2);
  }
}

function need(value: string | undefined, what: string): string {
  if (value === undefined) throw new wire.CallError(`${what} is missing\n${usage}`);
  return value;
}

function positive(name: "deadline-ms" | "hz" | "seconds" | "bytes" | "cancel-after"): number {
  const n = Number(values[name]);
  if (!(n > 0 && n < 1e9)) throw new wire.CallError(`--${name}: found ${values[name]}, expected a number above 0`);
  return n;
}

/** Shows what comes before the answer. */
function progress(read: wire.Read, body: Uint8Array): void {
  if (read("Fb-Part")) console.error(`part ${read("Fb-Part")}: ${Buffer.from(body)}`);
  else console.error(`${Number(read("Fb-Done") || "0") / 10} % done ${read("Fb-Note")}`);
}

async function infer(nc: NatsConnection, task: string): Promise<Msg> {
  const body = Buffer.from(need(values.data, "--data"));
  const deadline = new wire.Deadline(positive("deadline-ms"));
  const to = wire.subject("inference", at, task);
  const fields: wire.Fields = values.key === undefined ? {} : { "Fb-Key": values.key };
  return ask.retried(deadline, () =>
    values.stream ? ask.stream(nc, "inference", to, body, deadline, fields, progress) : ask.once(nc, "inference", to, body, deadline, fields));
}

async function act(nc: NatsConnection, robot: string, task: string): Promise<Msg> {
  const body = Buffer.from(need(values.data, "--data"));
  const deadline = new wire.Deadline(positive("deadline-ms"));
  const episode = new wire.Episode(values.episode);
  const to = wire.actionSubject(at, robot, task);
  // Sent again only after an error that says that it did not run; never after unknown_outcome.
  if (values["cancel-after"] === undefined) {
    return ask.retried(deadline, () => ask.stream(nc, "action", to, body, deadline, { "Fb-Episode": episode.name, "Fb-Seq": episode.next() }, progress));
  }
  const id = wire.newId();
  const timer = setTimeout(async () => {
    const heard = await ask.cancel(nc, at, robot, id);
    console.error(heard === undefined ? "no word from the robot" : heard ? "the robot was told to stop" : "the robot does not have it");
  }, 1000 * positive("cancel-after"));
  try {
    return await ask.stream(nc, "action", to, body, deadline, { "Fb-Episode": episode.name, "Fb-Seq": episode.next(), "Fb-Id": id }, progress);
  } finally {
    clearTimeout(timer);
  }
}

/** The key makes it safe to submit again: the same key is the same job. */
async function train(nc: NatsConnection, task: string): Promise<Msg> {
  const body = Buffer.from(need(values.data, "--data"));
  const key = wire.checkName("--key", need(values.key, "--key"));
  const deadline = new wire.Deadline(10_000);
  return ask.retried(deadline, () => ask.once(nc, "training", wire.subject("training", at, task), body, deadline, { "Fb-Key": key }));
}

async function main(): Promise<number> {
  const [command, ...names] = positionals;
  wire.checkName("origin", at.origin); // it stands in the name of the inbox, too
  if (!["infer", "act", "train", "camera"].includes(command ?? "")) throw new wire.CallError(usage);
  const nc = await ask.connect(values.server, at.origin, values.creds);
  try {
    const task = () => need(names[0], "TASK");
    switch (command) {
      case "camera":
        return await camera(nc, {
          subject: wire.subject("inference", at, task()), key: wire.checkName("--key", values.key ?? "camera-0"),
          hz: positive("hz"), seconds: positive("seconds"), bytes: positive("bytes"), deadlineMs: positive("deadline-ms"),
        });
      case "act": {
        const m = await act(nc, need(names[0], "ROBOT"), need(names[1], "TASK"));
        process.stdout.write(Buffer.concat([m.data, Buffer.from("\n")]));
        return 0;
      }
      default: {
        const m = await (command === "train" ? train : infer)(nc, task());
        process.stdout.write(Buffer.concat([m.data, Buffer.from("\n")]));
        return 0;
      }
    }
  } finally {
    await nc.close();
  }
}

try {
  process.exitCode = await main();
} catch (err) {
  if (err instanceof wire.FleetError) {
    console.error(err.message);
    process.exitCode = err.code === "unknown_outcome" ? 3 : 1;
  } else if (err instanceof wire.CallError) {
    console.error(err.message);
    process.exitCode = 2;
  } else throw err;
}
