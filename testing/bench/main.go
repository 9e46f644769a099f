package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// commands are the subcommands by name. They write results to out; an error means that
// something could not be measured, or that a result is wrong.
var commands = map[string]func(args []string, out io.Writer) error{
	"acks":      acks,
	"balance":   balance,
	"deploy":    deployBench,
	"durable":   durable,
	"exec":      execBench,
	"failover":  failover,
	"gap":       gap,
	"heartbeat": heartbeat,
	"jobs":      jobs,
	"multi":     multi,
	"oip":       oipBench,
	"openpi":    openpiBench,
	"placement": placement,
	"powercut":  powercut,
	"request":   request,
	"stop":      stop,
	"sync":      syncBench,
}

func main() {
	if code, child := playChild(); child {
		os.Exit(code)
	}
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) > 0 && args[0] == roleWord && os.Getenv(roleVariable) != "" {
		return runRole(args[1:])
	}
	var names []string
	for name := range commands {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(args) == 0 {
		return fmt.Errorf("name a benchmark: %s", strings.Join(names, ", "))
	}
	f, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("there is no benchmark %q; there are: %s", args[0], strings.Join(names, ", "))
	}
	return f(args[1:], out)
}
