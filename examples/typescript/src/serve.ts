#!/usr/bin/env node
// A fleetbus child process: it answers requests that come as frames on standard input, word by word.
//
// A frame is the length of its header (4 bytes, big endian), the header (JSON), the length of its body, the body;
// agent/backend/execio/doc.go has the rest. Standard output belongs to the frames: write to console.error.

interface Header {
  type: string;
  id: number;
  content_type?: string;
  deadline_ms?: number;
  stream?: boolean;
}

interface Frame {
  header: Header;
  body: Buffer;
}

/** Cuts a stream of bytes into frames, wherever its chunks begin and end. */
export class Frames {
  private rest: Buffer = Buffer.alloc(0);

  push(chunk: Buffer): Frame[] {
    this.rest = this.rest.length ? Buffer.concat([this.rest, chunk]) : chunk;
    const frames: Frame[] = [];
    for (;;) {
      if (this.rest.length < 4) return frames;
      const at = 4 + this.rest.readUInt32BE(0); // of the body's length
      if (this.rest.length < at + 4) return frames;
      const end = at + 4 + this.rest.readUInt32BE(at);
      if (this.rest.length < end) return frames;
      frames.push({ header: JSON.parse(this.rest.toString("utf8", 4, at)) as Header, body: this.rest.subarray(at + 4, end) });
      this.rest = this.rest.subarray(end);
    }
  }
}

export function encode(header: object, body: Uint8Array = Buffer.alloc(0)): Buffer {
  const text = Buffer.from(JSON.stringify(header));
  const out = Buffer.alloc(8 + text.length + body.length);
  out.writeUInt32BE(text.length, 0);
  text.copy(out, 4);
  out.writeUInt32BE(body.length, 4 + text.length);
  out.set(body, 8 + text.length);
  return out;
}

/** The place of your model: the answer, in parts. */
async function* caption(body: Buffer, canceled: AbortSignal): AsyncGenerator<string> {
  if (body.length === 0) throw new BadRequest("found an empty body, expected an image");
  for (const word of ["a wrench", " on", " a table"]) {
    canceled.throwIfAborted();
    yield word;
  }
}

class BadRequest extends Error {}

function main(): void {
  const frames = new Frames();
  const running = new Map<number, AbortController>();
  const write = (header: object, body?: Uint8Array) => process.stdout.write(encode(header, body));

  // Requests are answered beside each other: as many come at once as the task's concurrency says.
  const serve = async ({ header: { id }, body }: Frame) => {
    const stop = new AbortController();
    running.set(id, stop);
    try {
      const parts: string[] = [];
      for await (const part of caption(body, stop.signal)) {
        parts.push(part);
        write({ type: "partial", id, content_type: "text/plain" }, Buffer.from(part)); // dropped where nobody takes parts
      }
      write({ type: "result", id, content_type: "text/plain" }, Buffer.from(parts.join("")));
    } catch (err) {
      // Every request is answered, canceled ones too. Without a code it is backend_failed: another agent may try.
      write({ type: "error", id, message: err instanceof Error ? err.message : String(err), ...(err instanceof BadRequest && { code: "bad_request" }) });
    } finally {
      running.delete(id);
    }
  };

  process.stdin.on("data", (chunk: Buffer) => {
    for (const f of frames.push(chunk)) {
      if (f.header.type === "request") void serve(f);
      else if (f.header.type === "cancel") running.get(f.header.id)?.abort(new Error("canceled"));
    }
  });
  process.stdin.on("end", () => process.exit(0)); // the agent is gone, or wants us to end
  console.error("serving task", process.env.FLEETBUS_TASK ?? "?");
  write({ type: "ready" });
}

main();
