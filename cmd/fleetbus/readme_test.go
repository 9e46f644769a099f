package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestReadme runs the commands of the README: those of the quickstart together, as a
// reader types them, and every other fleetbus command that ends by itself.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	script := []string{"# Made of README.md by TestReadme."}
	var running []string
	blocks := shellBlocks(string(readme))
	found := false
	for _, b := range blocks {
		if !b.quickstart {
			continue
		}
		found = true
		for _, line := range b.lines {
			command, background := strings.CutSuffix(line, " &")
			if !background {
				script = append(script, "exec "+command)
				continue
			}
			name := fmt.Sprintf("p%d", len(running))
			running = append(running, name)
			if strings.HasPrefix(command, "fleetbus up") {
				// A port of its own: 4222 may be taken, by this test's neighbour for one.
				script = append(script, "exec "+command+" --listen 127.0.0.1:0 --port-file url &"+name+"&", "server url")
			} else {
				script = append(script, "exec "+command+" &"+name+"&")
			}
		}
	}
	if !found || len(running) < 4 {
		t.Fatalf("README.md has no quickstart that starts a server and three agents: %v", blocks)
	}
	for _, b := range blocks {
		for _, line := range b.lines {
			if !b.quickstart && strings.HasPrefix(line, "fleetbus plan") {
				script = append(script, "exec "+line, "stdout .")
			}
		}
	}
	for i := len(running) - 1; i >= 0; i-- {
		script = append(script, "kill -INT "+running[i], "wait "+running[i])
	}

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "readme.txt"), []byte(strings.Join(script, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := params(dir)
	setup := p.Setup
	p.Setup = func(env *testscript.Env) error {
		if err := setup(env); err != nil {
			return err
		}
		return os.CopyFS(filepath.Join(env.WorkDir, "configs"), os.DirFS("../../configs"))
	}
	testscript.Run(t, p)
}

type block struct {
	quickstart bool
	lines      []string
}

// shellBlocks returns the shell blocks of a Markdown file; the comment
// "<!-- quickstart…" stands right before the one that is meant.
func shellBlocks(text string) []block {
	var out []block
	var now *block
	last := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case now == nil && line == "```sh":
			now = &block{quickstart: strings.HasPrefix(last, "<!-- quickstart")}
		case now != nil && line == "```":
			out = append(out, *now)
			now = nil
		case now != nil && line != "":
			now.lines = append(now.lines, line)
		}
		last = line
	}
	return out
}
