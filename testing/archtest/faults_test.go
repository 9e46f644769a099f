package archtest

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// Each rule is shown faults that it must find, and what it must leave alone beside them.

// found compares what a rule reports with a part of each line that it should report.
func found(t *testing.T, got, want []string) {
	t.Helper()
	for _, w := range want {
		if !slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, w) }) {
			t.Errorf("not found: %s", w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d found, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
}

func ours(names ...string) (list []string) {
	for _, n := range names {
		list = append(list, module+"/"+n)
	}
	return list
}

func TestImportsFindsFaults(t *testing.T) {
	var pkgs []pkg
	add := func(name string, imports ...string) {
		pkgs = append(pkgs, pkg{ImportPath: module + "/" + name, Imports: append(ours(imports...), "fmt", "github.com/nats-io/nats.go")})
	}
	// Allowed.
	add("messages")
	add("messages/bus", "messages")
	add("coordinator/alloc", "messages")
	add("coordinator/placement", "messages", "coordinator/alloc")
	add("coordinator", "messages", "messages/bus", "coordinator/alloc", "coordinator/placement")
	add("router", "messages", "messages/bus", "router/route")
	add("agent/backend/execio", "messages", "agent/backend")
	add("internal/planreport", "messages", "coordinator/alloc", "internal/fleetfile")
	add("cmd/fleetbus", "agent", "router", "coordinator", "internal/embed", "messages/bus")
	add("exchange/data", "messages", "messages/bus", "exchange/data/drift")
	add("testing/natstest", "internal/embed", "agent")
	good := len(wrongImports(pkgs))
	if good != 0 {
		t.Fatalf("good imports are refused: %v", wrongImports(pkgs))
	}
	// Not allowed.
	add("messages", "messages/bus")
	add("messages/bus", "agent")
	add("coordinator/alloc", "messages/bus")
	add("coordinator/placement", "coordinator")
	add("router/route", "messages/bus")
	add("router", "coordinator/alloc")
	add("agent", "router")
	add("agent", "exchange/data")
	add("exchange/data/drift", "messages/bus")
	add("agent/backend", "coordinator")
	add("coordinator", "agent/backend")
	add("agent", "internal/embed")
	add("internal/history", "messages/bus")
	add("internal/embed", "cmd/fleetbus")
	add("cmd/fleetbus", "testing/natstest")
	add("plugins", "messages")
	found(t, wrongImports(pkgs), []string{
		"messages imports messages/bus", "messages/bus imports agent", "coordinator/alloc imports messages/bus",
		"coordinator/placement imports coordinator;", "router/route imports messages/bus", "router imports coordinator/alloc",
		"agent imports exchange/data", "exchange/data/drift imports messages/bus", "agent imports router", "agent/backend imports coordinator", "coordinator imports agent/backend", "agent imports internal/embed",
		"internal/history imports messages/bus", "internal/embed imports cmd/fleetbus", "cmd/fleetbus imports testing/natstest", "plugins has no row",
	})
}

func TestServerLinksFindsFaults(t *testing.T) {
	srv, nats := server+"/server", "github.com/nats-io/nats.go"
	found(t, wrongLinks([]pkg{
		{ImportPath: module + "/internal/embed", Imports: []string{srv}, Deps: []string{srv}},
		{ImportPath: module + "/testing/natstest", Imports: []string{srv}, Deps: []string{srv, nats}},
		{ImportPath: module + "/cmd/fleetbus", Imports: ours("internal/embed"), Deps: []string{srv, nats}},
		{ImportPath: module + "/agent", Imports: []string{nats}, Deps: []string{nats}},
		{ImportPath: srv, Imports: []string{srv + "/ats"}, Deps: []string{srv + "/ats"}},
		// Faults.
		{ImportPath: module + "/coordinator", Imports: []string{nats}, Deps: []string{nats, srv}},
		{ImportPath: module + "/router", Imports: []string{srv}, Deps: []string{srv}},
		{ImportPath: module + "/cmd/fleetbus", Imports: []string{srv}, Deps: []string{srv}},
		{ImportPath: module + "/configs", Imports: []string{server}, Deps: []string{server}},
	}), []string{"coordinator is linked", "router imports", "cmd/fleetbus imports", "configs imports"})
}

// planted makes a tree of files.
func planted(t *testing.T, files map[string]string) []file {
	t.Helper()
	tree := fstest.MapFS{}
	for name, src := range files {
		tree[name] = &fstest.MapFile{Data: []byte(src)}
	}
	list, err := readTree(tree)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestPureFindsFaults(t *testing.T) {
	files := map[string]string{
		"coordinator/alloc/good.go":      "package alloc\nimport (\"errors\"; \"time\"; \"math\")\nvar _ = time.Second\nvar _ = errors.New\nvar _ = math.Pi\nfunc f(now time.Time) time.Duration { return now.Sub(now) }\n",
		"coordinator/alloc/good_test.go": "package alloc\nimport (\"os\"; \"time\")\nvar _ = os.Args\nvar _ = time.Now()\n",
		"coordinator/shell.go":           "package coordinator\nimport (\"os\"; \"sync\"; \"time\")\nvar _ = os.Args\nvar _ sync.Mutex\nvar _ = time.Now()\nfunc f() { go f() }\n",
		"router/route/clock.go":          "package route\nimport \"time\"\nfunc f() { _ = time.Now(); <-time.After(1); now := time.Now; _ = now }\n",
		"router/route/alias.go":          "package route\nimport clock \"time\"\nvar _ = clock.Since\n",
		"router/route/dot.go":            "package route\nimport . \"time\"\nvar _ = Now\n",
		"coordinator/placement/go.go":    "package placement\nfunc f() { go f() }\n",
	}
	want := []string{
		"clock.go:3: time.Now", "clock.go:3: time.After", "alias.go:3: time.Since", "dot.go imports time with a dot", "go.go:2: a pure package starts no goroutine",
	}
	for i, no := range []string{"net", "net/http", "os", "os/exec", "sync", "sync/atomic", "context", "math/rand", "math/rand/v2", "crypto/rand", "log/slog"} {
		name := "coordinator/alloc/bad" + string(rune('a'+i)) + ".go"
		files[name] = "package alloc\nimport _ \"" + no + "\"\n"
		want = append(want, name+" imports "+no+";")
	}
	got := wrongInPure(planted(t, files))
	// clock.go names time.Now twice, on one line.
	want = append(want, "clock.go:3: time.Now")
	found(t, got, want)
}

func TestFilesFindsFaults(t *testing.T) {
	long := "package x\n" + strings.Repeat("// line\n", maxLines)
	sleep, skip := "Sle"+"ep", "Sk"+"ip" // this file is read by the rules as well
	found(t, wrongFiles(planted(t, map[string]string{
		"x/just.go":         "package x\n" + strings.Repeat("// line\n", maxLines-1),
		"x/long_test.go":    long,
		"x/sleeps.go":       "package x\nimport \"time\"\nfunc f() { time." + sleep + "(1) }\n",
		"x/testdata/a.go":   long,
		"node_modules/a.go": long,
		".bin/a.go":         long,
		"x/other_test.go":   "package x\nimport \"testing\"\ntype dec struct{}\nfunc (dec) " + skip + "() {}\nfunc TestA(t *testing.T) { var d dec; d." + skip + "() }\n",
		// Faults.
		"testing/stray.go": "package testing\n",
		"x/long.go":        long,
		"x/luck_test.go":   "package x\nimport \"time\"\nfunc f() { time." + sleep + "(1) }\n",
		"x/a_test.go":      "package x\nimport \"testing\"\nfunc TestA(t *testing.T) { t." + skip + "(\"no\") }\n",
		"x/b_test.go":      "package x\nimport \"testing\"\nfunc TestA(t *testing.T) { t.Run(\"x\", func(tt *testing.T) { tt." + skip + "Now() }) }\n",
		"x/c_test.go":      "package x\nimport tst \"testing\"\nfunc help(tb tst.TB) { tb." + skip + "f(\"no\") }\n",
		"x/left.go":        "package x\n\n// " + "TO" + "DO: later\n",
	})), []string{
		"testing/stray.go", "x/long.go has 401 lines", "x/luck_test.go:3: time." + sleep, "x/a_test.go:3", "x/b_test.go:3", "x/c_test.go:3", "x/left.go:3",
	})
}

func TestDocsFindsFaults(t *testing.T) {
	found(t, wrongDocs(planted(t, map[string]string{
		"good/doc.go":     "// Package good is.\npackage good\n",
		"good/a.go":       "package good\n",
		"none/a.go":       "// Package none has a comment in the wrong file.\npackage none\n",
		"empty/doc.go":    "package empty\n",
		"detached/doc.go": "// Package detached.\n\npackage detached\n",
		"tests/a_test.go": "package tests\n",
		"testdata/x/a.go": "package x\n",
	})), []string{"none has no doc.go", "empty has no doc.go", "detached has no doc.go", "tests has no doc.go"})
}
