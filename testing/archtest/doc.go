// Package archtest holds tests of the shape of the module: who may import whom, what a
// pure package may not touch, what links the NATS server, and the few rules of style
// that a compiler does not know. It has no code of its own for others to call.
//
// A new package needs a row in the import table of imports_test.go.
package archtest
