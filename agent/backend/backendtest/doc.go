// Package backendtest is the conformance suite of backends: what the agent, and whoever
// waits for an answer, may rely on whatever serves a task. [Run] runs it against one kind
// of backend, which brings a stand-in for its model server with a [Model] in it.
//
//   - Bodies come back byte for byte, of any size up to the limit, with their content type;
//     one over the limit is payload_too_large, with the sizes and what to raise.
//   - As many requests as the task has slots are served at once.
//   - A request ends with its context, whatever the model does; the slot is free again when
//     the model has it behind it, and the model hears of it where its protocol can say so.
//   - An error of the model is backend_failed with its words; a model that hangs, crashes,
//     answers garbage, closes in the middle of an answer or never gets ready ends in an
//     error that says so, once, and at once.
//   - A server that has died says so, with the reason, and can be opened again.
//   - Open tells what it waits for, and ends with its context.
//   - Afterwards there is no goroutine and no connection more than before.
package backendtest
