// Package simulate serves tasks by taking as long as the model says they take: w/P for
// the work, and with [Options.Link] also d/B + L for the way. Demos and tests use it in
// the place of a real model.
//
// A job (class training) reports its progress in steps, and so does a request whose caller
// asks for it. Every request can be cancelled.
package simulate
