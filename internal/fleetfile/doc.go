// Package fleetfile reads fleet files: the YAML that says what a fleet is made of and
// what is to run there, for `fleetbus plan`, `apply` and `up`. configs/fleet.yaml
// shows every field.
//
// Reading is strict. An unknown field, a wrong unit, a value out of range, a name used
// twice or a reference to something that is not there is an error with file, line,
// field, what was found and what is allowed; and all errors of a file are reported, not
// only the first. See [Errors].
//
// A bare number is in the base unit of its field (package messages lists them); with a
// unit it may be larger or smaller: 500TFLOPS, 1.5TB, 10Gbps, 5Mbit, 100ms. See [Unit].
package fleetfile
