package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is the directory of the module.
func root(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("go env GOMOD: %v", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

// list asks the go command for all packages of the module.
func list(t *testing.T) []pkg {
	t.Helper()
	// -e: a package that does not compile is the compiler's to report; its imports are ours.
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	return pkgs
}

// tree parses all files of the module.
func tree(t *testing.T) []file {
	t.Helper()
	files, err := readTree(os.DirFS(root(t)))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func report(t *testing.T, bad []string) {
	t.Helper()
	for _, line := range bad {
		t.Error(line)
	}
}

func TestImports(t *testing.T) {
	pkgs := list(t)
	for _, name := range []string{"messages", "messages/bus", "agent", "coordinator", "router", "cmd/fleetbus"} {
		if !slices.ContainsFunc(pkgs, func(p pkg) bool { return p.ImportPath == module+"/"+name }) {
			t.Errorf("go list does not know %s: the test looks at the wrong tree", name)
		}
	}
	report(t, wrongImports(pkgs))
}

func TestServerIsLinkedByEmbedOnly(t *testing.T) {
	pkgs := list(t)
	if !slices.ContainsFunc(pkgs, func(p pkg) bool {
		return p.ImportPath == module+"/internal/embed" && slices.ContainsFunc(p.Deps, func(d string) bool { return strings.HasPrefix(d, server) })
	}) {
		t.Error("internal/embed is not linked with the NATS server: the test looks for the wrong path")
	}
	report(t, wrongLinks(pkgs))
}

func TestPurePackages(t *testing.T) {
	files := tree(t)
	for _, name := range pure {
		if !slices.ContainsFunc(files, func(f file) bool { return strings.HasPrefix(f.path, name+"/") }) {
			t.Errorf("there is no package %s", name)
		}
	}
	report(t, wrongInPure(files))
}

func TestFiles(t *testing.T) { report(t, wrongFiles(tree(t))) }

func TestDocs(t *testing.T) { report(t, wrongDocs(tree(t))) }
