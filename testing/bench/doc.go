// Command bench runs the benchmarks of fleetbus: `go run ./testing/bench NAME [flags]`,
// a table for people, or with --json one object a line for programs.
//
//	gap [--time 1s] [--best best.csv] [--json] FILE…   the allocation engine on public instances
package main
