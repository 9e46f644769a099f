// Package httpio serves tasks with a model server that speaks HTTP: any that takes a POST
// with the request's body and answers with the result's, and those of the Open Inference
// Protocol v2 (KServe, Triton, OpenVINO Model Server). The server is started by somebody
// else; [New] makes the handler that asks it.
//
// # What it sends
//
// A POST to Options.URL (with Options.OIP: to the model's …/infer) with the body as it is,
// the request's content type, and these headers where there is something to say: Fb-Id,
// Fb-Task, Fb-Class, Fb-Origin, Fb-Attempt, Fb-Key, Fb-Seq, Fb-Episode, traceparent, and
// Fb-Left-Ms: the milliseconds that are left of the deadline. A caller who gives up, or
// whose time is over, closes the connection, which is how HTTP says so; another one is
// opened for the next request. Otherwise connections are kept.
//
// The parameters inference-header-content-length and model-version of a content type (see
// package messages) become the header Inference-Header-Content-Length and the version in
// the path, and the former one the other way round in the answer. Bodies are never read.
//
// # What an answer means
//
//	2xx            the result
//	400, 422, …    bad_request, with what the server said
//	404            backend_failed: the agent has the wrong URL; not_found where the caller
//	               named a version of the model
//	401, 403       backend_failed: the server does not take the agent's credentials
//	413            payload_too_large
//	429            busy, with its Retry-After
//	3xx            backend_failed: redirects are not followed
//	5xx            backend_failed, with what the server said; it may be tried elsewhere
//	none           backend_failed: it closed the connection, or sent something else
//
// # When it is ready
//
// With OIP when GET …/ready answers 2xx, else when Options.ReadyURL does, else when it
// takes connections. The replica loads until then, and says what it waits for. Afterwards
// it is asked once a second, and at once when a connection fails. A server that refuses
// connections, or says twice that it is not ready, has died: its requests end as
// backend_failed at once, the replica as failed, and it is opened again with growing
// pauses. One that does not answer is given Options.HangTimeout, counted from its last
// answer to anything: one that computes may well not answer.
package httpio
