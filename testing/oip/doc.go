// Package oip is a stand-in for a model server of the Open Inference Protocol v2, and a
// conformance run that a server, or a door in front of one, passes or not: live, ready,
// metadata, inference in JSON and with binary tensors, versions, errors.
package oip
