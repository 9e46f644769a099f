// Package policy is a policy server and a client for tests and benchmarks that speak
// openpi's wire as the stock ones do: the server computes one observation at a time and
// answers nothing else meanwhile; the client never connects again, has no timeout, and
// pings. Its messages have the form of the stock ones, arrays with keys of type bin
// included, in bytes that are kept as goldens.
package policy
