package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/configs"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestReadme runs the commands of the README's quickstart, as they stand there, but for
// the port: tests that run at the same time must not meet on 4222.
func TestReadme(t *testing.T) {
	lines := quickstart(t)
	var script, stop strings.Builder
	started := 0
	for _, line := range lines {
		command, background := strings.CutSuffix(line, " &")
		isUp := strings.HasPrefix(command, "fleetbus up")
		switch {
		case isUp:
			fmt.Fprintf(&script, "exec %s --listen 127.0.0.1:0 --port-file url &up&\nserver url\n", command)
		case background:
			started++
			fmt.Fprintf(&script, "exec %s &agent%d&\n", command, started)
			fmt.Fprintf(&stop, "kill -INT agent%d\n", started)
		default:
			fmt.Fprintf(&script, "exec %s\n", command)
			if strings.HasPrefix(command, "fleetbus request") {
				script.WriteString("stdout .\n")
			}
		}
	}
	if started < 3 {
		t.Fatalf("the README's quickstart starts %d agents, expected one of each tier:\n%s", started, strings.Join(lines, "\n"))
	}
	for i := range started { // all are told first, so that they drain together
		fmt.Fprintf(&stop, "wait agent%d\n", i+1)
	}
	dir := t.TempDir()
	text := script.String() + stop.String() + "kill -INT up\nwait up\n"
	if err := os.WriteFile(filepath.Join(dir, "readme.txt"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := params(dir)
	isolate := p.Setup
	p.Setup = func(env *testscript.Env) error {
		// The README's reader stands in the root of the repository.
		if err := os.CopyFS(filepath.Join(env.WorkDir, "configs"), fs.FS(configs.Files)); err != nil {
			return err
		}
		return isolate(env)
	}
	testscript.Run(t, p)
}

// quickstart returns the lines of the block after the README's quickstart mark.
func quickstart(t *testing.T) []string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(readme), "<!-- quickstart")
	if !ok {
		t.Fatal("README.md has no <!-- quickstart mark")
	}
	_, block, _ := strings.Cut(after, "```sh\n")
	block, _, ok = strings.Cut(block, "```")
	if !ok {
		t.Fatal("README.md has no block of commands after its quickstart mark")
	}
	var lines []string
	for line := range strings.Lines(block) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}
