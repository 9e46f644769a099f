// Package execio serves tasks with a child process that speaks frames on its standard
// input and output: a model in Python, C++ or anything else that can read and write
// bytes. [New] makes the handler; examples/exec-python/echo.py is a child, move.py beside
// it one that can be canceled, and examples/typescript/src/serve.ts one for Node.
//
// # Frames
//
// A frame is, in both directions:
//
//	4 bytes   length of the header, big endian
//	          header: a JSON object, UTF-8, at most 64 KiB
//	4 bytes   length of the body, big endian
//	          body: bytes, at most 64 MiB (Options.MaxBody)
//
// The header's "type" says what the frame is. Fields that a side does not know are
// ignored; absent fields are empty or zero. What the agent sends:
//
//	{"type":"request","id":7,"task":"detect","class":"inference","deadline_ms":180,
//	 "content_type":"image/jpeg","request":"…","attempt":1,"origin":"robot-1",
//	 "key":"cam","seq":12,"episode":"…",
//	 "stream":true}                              body: the request's
//	{"type":"cancel","id":7}                     no body; the answer to 7 is not wanted
//
// id counts the requests to this child and stands in every frame about one. deadline_ms
// is what is left when the frame is written; without it there is no deadline. A child
// may ignore cancel, but answers every request, canceled ones too: until it has, the
// request keeps its place, so that no other is begun late behind it. What the child
// sends:
//
//	{"type":"ready"}                             first, once, when the model is loaded
//	{"type":"result","id":7,"content_type":"…"}  body: the answer
//	{"type":"error","id":7,"code":"bad_request","message":"…"}
//	{"type":"progress","id":7,"done":0.25,"note":"epoch 1 of 4"}
//	{"type":"partial","id":7,"content_type":"…"} body: a part of the answer
//
//	{"type":"log","id":7,"message":"…"}          a line for whoever watches a job
//	{"type":"checkpoint","id":7}                 body: what a job has done so far
//	{"type":"checkpoint","id":7,"file":"…"}      likewise, all of a file; no body
//
// "stream" says that the caller takes partial results and progress; a child may send them
// always, they are dropped where nobody does (of a job, progress is always taken).
//
// # Checkpoints of jobs
//
// A job that is begun again, here or on another agent, continues where its last checkpoint
// is, if the child stores some. A checkpoint frame carries it as its body, or names a file
// (relative names: from the child's working directory). The agent stores it and answers
//
//	{"type":"checkpointed","id":7}               stored; with "code" and "message": not
//
// Until then the file must not change, and no other checkpoint of that request may be sent.
// Only the newest is kept. After "conflict" another agent has the job, and a cancel frame
// comes. A request that continues has "resume":"/…": a file with the checkpoint, to be read
// before the request is answered; without it the job begins from nothing.
//
// While one request is under way, what the child writes to standard error stands in the
// job's log, too.
//
// code is one of the codes of package messages; without it the error is backend_failed,
// and may be tried elsewhere. Answers may come in any order. An answer to a request
// whose time is over is dropped.
//
// # Batches
//
// Where the task declares max_batch, requests come together: every request frame of a
// batch says how many it has ("batch":3), and they follow one another without any other
// frame in between, cancel frames included. A child reads that many, makes one call of its
// model, and answers each by its id. FLEETBUS_MAX_BATCH is the most that come together; it
// is 1, and "batch" absent, where requests come one by one.
//
// Up to FLEETBUS_SLOTS requests are under way at once; with one (the default) a child
// that reads, works and writes in a loop is right.
//
// # The child's surroundings
//
// It inherits the agent's environment and finds in it FLEETBUS_REPLICA, FLEETBUS_TASK,
// FLEETBUS_CLASS, FLEETBUS_AGENT, FLEETBUS_SLOTS and FLEETBUS_MAX_BATCH. What it writes to standard error
// goes to the agent's log, line by line. Nothing but frames may go to standard output:
// anything else ends the child with an error that says so. In Python, print goes to
// standard output unless told otherwise.
//
// It runs in a process group of its own. To stop, its standard input is closed and the
// group gets SIGTERM, and SIGKILL after Options.StopTimeout. On Linux the child is
// killed when the agent is, whatever way the agent ends; processes that the child has
// started itself then see only that their standard input is closed, unless a guard ends them
// (Options.Guard, package proc).
//
// A child that exits or sends garbage fails its requests at once with backend_failed,
// and the agent starts another one, at first after 0.2 s, then with growing pauses. So
// does a child that has not answered a canceled request within Options.StopTimeout: it
// hangs.
package execio
