// Package httpgate is the front door for HTTP clients: the Open Inference Protocol v2, as
// clients of KServe, Triton and OpenVINO Model Server speak it. A model of the protocol is a
// task of class inference.
//
//	GET  /v2                                     what this server is
//	GET  /v2/health/live                         200: it runs
//	GET  /v2/health/ready                        200: it knows the fleet's routes, and has its server
//	GET  /v2/models/MODEL[/versions/V]           what the model's server says of it
//	GET  /v2/models/MODEL[/versions/V]/ready     200: some replica is ready
//	POST /v2/models/MODEL[/versions/V]/infer     asks; the body is passed on byte for byte
//	GET  /healthz                                200: it runs
//	GET  /openapi.yaml                           this, for machines
//
// # A request
//
// The body may be JSON, JSON with binary tensors behind it (the binary extension, with the
// header Inference-Header-Content-Length), or anything else that the backend takes: it is
// not read. Headers: Fb-Left-Ms is the deadline, in milliseconds (without it the task's
// own), Fb-Id an id of the caller's, Fb-Key makes of several observations the newest count,
// traceparent is passed on, Authorization has the key where the door wants one.
//
// # An answer
//
// The model's bytes with its content type, 200, and Fb-Id, Fb-Agent, Fb-Attempt,
// Fb-Service-Us. Or an error, {"error":"…","code":"…","retry_after_ms":…} with the code in
// Fb-Error too:
//
//	400  bad_request                        502  backend_failed, unknown_outcome
//	401  unauthorized                       503  busy, no_capacity, not_placed, unavailable, …,
//	404  not_found                               with Retry-After
//	409  superseded, stale, conflict        504  deadline_exceeded, expired
//	413  payload_too_large                  500  anything else
//
// # Versions
//
// Where the backend speaks the protocol, the version in the path is passed on and its server
// decides. Any other task has one version: its revision in the fleet.
package httpgate
