package archtest

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

const (
	module = "github.com/fleetbus/fleetbus"
	server = "github.com/nats-io/nats-server/v2"
)

// pkg is what `go list` says of a package of ours.
type pkg struct {
	ImportPath string
	Imports    []string // of the files that are not tests
	Deps       []string // all that it is linked with
}

// row says what a package may import of ours. A path that ends in "/…" stands for the
// package and everything below it. The first row that fits a package counts.
type row struct {
	who string
	may []string
}

// table is the import table of ARCHITECTURE.md. Imports of tests are free: a test may
// wire together what production code must keep apart.
var table = []row{
	{"messages", nil},
	{"messages/bus", []string{"messages"}},
	{"coordinator/alloc", []string{"messages", "coordinator/alloc/assign", "coordinator/alloc/packing"}},
	{"coordinator/alloc/assign", []string{"messages"}},
	{"coordinator/alloc/packing", []string{"coordinator/alloc/assign"}},
	{"coordinator/placement", []string{"messages", "coordinator/alloc"}},
	{"router/route", []string{"messages"}},
	{"agent/backend/openpi", []string{"messages", "agent/…", "internal/openpiwire"}},
	{"router/gateway/openpi", []string{"messages", "messages/bus", "router/…", "internal/openpiwire"}},
	{"agent/…", []string{"messages", "messages/bus", "agent/…", "internal/artifact", "internal/bodyfile"}},
	{"router/…", []string{"messages", "messages/bus", "router/…"}},
	{"coordinator/…", []string{"messages", "messages/bus", "coordinator/…"}},
	{"exchange/data/drift", []string{"messages"}},
	{"exchange/mail/order", []string{"messages"}},
	{"exchange/…", []string{"messages", "messages/bus", "exchange/…", "internal/bodyfile"}},
	{"internal/embed", []string{"messages"}},
	{"internal/openpiwire", nil},
	{"internal/heap", nil},
	{"internal/bodyfile", []string{"messages", "messages/bus"}},
	{"internal/artifact", []string{"messages", "messages/bus", "internal/bodyfile"}},
	{"internal/fleetfile", []string{"messages", "coordinator/alloc"}},
	{"internal/planreport", []string{"messages", "coordinator/alloc", "internal/fleetfile"}},
	{"internal/history", []string{"messages"}},
	{"configs", nil}, // files, and the test that loads them
	{"cmd/…", []string{"messages/…", "agent/…", "router/…", "coordinator/…", "exchange/…", "internal/…", "configs", "cmd/…"}},
	{"testing/…", []string{"messages/…", "agent/…", "router/…", "coordinator/…", "exchange/…", "internal/…", "configs", "cmd/…", "testing/…"}},
}

// fits reports whether a path of ours is what a pattern of the table stands for.
func fits(pattern, name string) bool {
	prefix, below := strings.CutSuffix(pattern, "/…")
	return name == prefix || below && strings.HasPrefix(name, prefix+"/")
}

// own returns the part of an import path after the module's, or ok false for what is
// not ours.
func own(importPath string) (name string, ok bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// wrongImports returns every import of ours that the table does not allow, and every
// package that has no row.
func wrongImports(pkgs []pkg) (bad []string) {
	for _, p := range pkgs {
		name, ok := own(p.ImportPath)
		if !ok {
			continue
		}
		i := slices.IndexFunc(table, func(r row) bool { return fits(r.who, name) })
		if i < 0 {
			bad = append(bad, fmt.Sprintf("%s has no row in the import table: add one with what it may import", name))
			continue
		}
		for _, imported := range p.Imports {
			other, ok := own(imported)
			if ok && !slices.ContainsFunc(table[i].may, func(pattern string) bool { return fits(pattern, other) }) {
				bad = append(bad, fmt.Sprintf("%s imports %s; it may import %v", name, other, table[i].may))
			}
		}
	}
	return bad
}

// Only these are linked with the NATS server, and only the first two of them name it:
// agents, routers and coordinators are clients.
var (
	mayImportServer = []string{"internal/embed", "testing/…"}
	mayLinkServer   = []string{"internal/embed", "testing/…", "cmd/…"}
)

// wrongLinks returns every package that must not be linked with the NATS server, and is.
func wrongLinks(pkgs []pkg) (bad []string) {
	isServer := func(p string) bool { return p == server || strings.HasPrefix(p, server+"/") }
	for _, p := range pkgs {
		name, ok := own(p.ImportPath)
		if !ok {
			continue
		}
		allowed := func(list []string) bool {
			return slices.ContainsFunc(list, func(pattern string) bool { return fits(pattern, name) })
		}
		if slices.ContainsFunc(p.Imports, isServer) && !allowed(mayImportServer) {
			bad = append(bad, name+" imports the NATS server; only internal/embed does")
		} else if slices.ContainsFunc(p.Deps, isServer) && !allowed(mayLinkServer) {
			bad = append(bad, name+" is linked with the NATS server, through a package that it imports")
		}
	}
	return bad
}

// pure packages decide and do nothing else, so that the same input gives the same result
// in a test, in a simulation and in production. messages is one of them by its own word.
var pure = []string{"messages", "coordinator/alloc", "coordinator/alloc/assign", "coordinator/alloc/packing", "coordinator/placement", "router/route", "agent/latch", "exchange/data/drift", "exchange/mail/order"}

// impureImports are packages of the standard library by which the world gets in; all that
// is below them too.
var impureImports = []string{"net", "os", "sync", "context", "math/rand", "crypto/rand", "io/fs", "log"}

// clockCalls are the functions of package time that read a clock or wait for one.
var clockCalls = []string{"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep"}

// wrongInPure returns what a file that is not a test does in a pure package and must not.
func wrongInPure(files []file) (bad []string) {
	for _, f := range files {
		if f.test || !slices.Contains(pure, path.Dir(f.path)) {
			continue
		}
		for _, imported := range f.imports() {
			for _, no := range impureImports {
				if imported == no || strings.HasPrefix(imported, no+"/") {
					bad = append(bad, fmt.Sprintf("%s imports %s; the package is pure", f.path, imported))
				}
			}
		}
		for _, call := range f.uses("time", clockCalls) {
			bad = append(bad, call+": a pure package takes the time as an argument")
		}
		for _, at := range f.goroutines() {
			bad = append(bad, at+": a pure package starts no goroutine")
		}
	}
	return bad
}
