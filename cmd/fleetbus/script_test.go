package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"fleetbus": main})
}

// TestScript runs the scripts in testdata/script: real processes of this program, each
// script in a directory and with a server of its own.
func TestScript(t *testing.T) {
	testscript.Run(t, params("testdata/script"))
}

func params(dir string) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			// Nothing of the developer's own may reach a script: no server, no context, no
			// credentials, no stored streams.
			for _, name := range environment {
				env.Setenv(name, "")
			}
			// With -race every process would sleep for a second when it exits.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "config"))
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, "state"))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"server": setServer,
			"status": exitStatus,
			"until":  untilOutput,

			"fetch": fetch, "policy": policyServer, "observe": observe, "address": address,
		},
	}
}

// setServer waits for a file that --port-file names and puts the URL in it into
// $NATS_URL, and its host and port into $ADDRESS: every later command finds the script's
// own server.
func setServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: server FILE")
	}
	path := ts.MkAbs(args[0])
	// A process that starts on a busy machine takes a second, not ten.
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if url, err := os.ReadFile(path); err == nil {
			ts.Setenv("NATS_URL", strings.TrimSpace(string(url)))
			ts.Setenv("ADDRESS", strings.TrimPrefix(strings.TrimSpace(string(url)), "nats://"))
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	ts.Fatalf("%s: no server wrote its URL there within 10 s", args[0])
}

// exitStatus runs a command and wants this exit status: `status 2 fleetbus …`.
func exitStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND…")
	}
	err := ts.Exec(args[1], args[2:]...)
	found := 0
	if err != nil {
		if _, scanErr := fmt.Sscanf(err.Error(), "exit status %d", &found); scanErr != nil {
			ts.Fatalf("%v", err)
		}
	}
	if fmt.Sprint(found) != args[0] {
		ts.Fatalf("exit status %d, want %s", found, args[0])
	}
}

// untilOutput runs a command until its standard output has a text: `until 'draining'
// fleetbus agents`. It is for what no command of ours waits for.
func untilOutput(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until TEXT COMMAND…")
	}
	// An agent is lost after three beats of a second; ten are enough on a busy machine.
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if err := ts.Exec(args[1], args[2:]...); err == nil && strings.Contains(ts.ReadFile("stdout"), args[0]) {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	ts.Fatalf("%q was not printed within 10 s", args[0])
}
