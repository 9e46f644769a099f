package deploy

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/agent/backend/execio"
	"github.com/fleetbus/fleetbus/agent/backend/httpio"
	"github.com/fleetbus/fleetbus/agent/backend/openpi"
	"github.com/fleetbus/fleetbus/internal/artifact"
	"github.com/fleetbus/fleetbus/messages"
)

// launch is one start of what a task brings: what was put in the places of {artifact} and
// {port}, and what is to be given back at its end.
type launch struct {
	d     *Deployer
	open  backend.Open
	run   messages.Run
	warm  []byte // observation, with openpi
	stop  time.Duration
	dir   string // working directory
	words []string
	env   []string // beside the deployer's own
	said  *speaker
	undo  []func() // in the order of their making
}

// Open fetches the artifact, starts the command and waits until it is ready.
func (d *Deployer) Open(ctx context.Context, open backend.Open) (_ backend.Server, err error) {
	if open.Task.Run == nil {
		return nil, messages.Errorf(messages.CodeBadRequest, "task %q brings nothing that could be run", open.Task.Name)
	}
	if err := open.Task.Run.Check("run."); err != nil {
		return nil, err
	}
	l := &launch{d: d, open: open, run: *open.Task.Run, stop: execio.DefaultStopTimeout}
	if l.run.StopTimeout > 0 {
		l.stop = messages.Millis(l.run.StopTimeout)
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if err := l.prepare(ctx); err != nil {
		return nil, err
	}
	l.say("starts " + strings.Join(l.words, " "))
	open.Note("starts %s", filepath.Base(l.words[0]))
	defer func() {
		if err != nil && ctx.Err() == nil {
			l.say("failed: " + messages.AsError(err, messages.CodeBackendFailed).Message)
		}
	}()
	if l.run.Kind() == messages.ServeExec {
		return l.openExec(ctx)
	}
	return l.openServer(ctx)
}

// prepare makes all that the command needs.
func (l *launch) prepare(ctx context.Context) error {
	path, port := "", ""
	if l.run.Kind() != messages.ServeExec && !strings.Contains(l.run.URL, messages.RunPort) {
		if err := free(ctx, l.run.URL); err != nil {
			return err
		}
	}
	if l.run.Warmup != "" {
		// It is small: what is told of is how much of the model is there.
		file, err := l.fetch(ctx, l.run.Warmup, func(float64) {})
		if err != nil {
			return err
		}
		if l.warm, err = observation(file); err != nil {
			return err
		}
	}
	if l.run.Artifact != "" {
		var err error
		path, err = l.fetch(ctx, l.run.Artifact, func(done float64) {
			if l.open.Fetched != nil {
				l.open.Fetched(done)
			}
		})
		if err != nil {
			return err
		}
	}
	if l.run.Names(messages.RunPort) || strings.Contains(l.run.URL, messages.RunPort) {
		var err error
		if port, err = l.d.port(ctx, l.run.URL); err != nil {
			return err
		}
		l.undo = append(l.undo, func() { l.d.returnPort(port) })
	}
	task, suffix, err := messages.ParseReplica(l.open.Replica)
	if err != nil {
		return err
	}
	// Names have no dots.
	l.dir = filepath.Join(l.d.o.Dir, workDir, task+"."+suffix)
	err = removeAll(l.dir)
	if err == nil {
		err = os.MkdirAll(l.dir, 0o700)
	}
	if err != nil {
		return messages.Errorf(messages.CodeBackendFailed, "working directory of replica %s: %v", l.open.Replica, err)
	}
	l.undo = append(l.undo, func() { _ = removeAll(l.dir) }) // what stays is removed by the next start

	fill := strings.NewReplacer(messages.RunArtifact, path, messages.RunPort, port)
	for _, w := range l.run.Command {
		l.words = append(l.words, fill.Replace(w))
	}
	t := l.open.Task
	l.env = append(l.env, "FLEETBUS_REPLICA="+l.open.Replica, "FLEETBUS_TASK="+t.Name, "FLEETBUS_CLASS="+string(t.Class), "FLEETBUS_AGENT="+l.open.Environment.ID,
		"FLEETBUS_SLOTS="+strconv.Itoa(t.Slots()), "FLEETBUS_MAX_BATCH="+strconv.Itoa(t.Batch()))
	if path != "" {
		l.env = append(l.env, "FLEETBUS_ARTIFACT="+path)
	}
	if port != "" {
		l.env = append(l.env, "FLEETBUS_PORT="+port)
	}
	for _, k := range slices.Sorted(maps.Keys(l.run.Env)) {
		l.env = append(l.env, k+"="+fill.Replace(l.run.Env[k]))
	}
	l.run.URL = strings.ReplaceAll(l.run.URL, messages.RunPort, port)
	l.run.ReadyURL = strings.ReplaceAll(l.run.ReadyURL, messages.RunPort, port)

	s := l.d.b.Subject(messages.KindTaskLog, l.d.o.Site)
	s.Agent, s.Task, s.ID = l.d.o.Agent, task, suffix
	l.said = speak(l.d.b, s.String(), l.d.o.Logger)
	l.undo = append(l.undo, l.said.close)
	return nil
}

// fetch returns the path of an artifact, which stays until the launch is closed.
func (l *launch) fetch(ctx context.Context, digest string, fetched func(float64)) (string, error) {
	path, release, err := l.d.cache.get(ctx, digest, func(text string) { l.open.Note("%s", text) }, fetched)
	if err != nil {
		return "", err
	}
	l.undo = append(l.undo, release)
	if path, err = filepath.Abs(path); err != nil {
		return "", messages.Errorf(messages.CodeInternal, "artifact: %v", err)
	}
	return path, nil
}

// observation reads an artifact that is one.
func observation(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, messages.Errorf(messages.CodeInternal, "warm-up observation: %v", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, openpi.DefaultMaxBody+1))
	switch {
	case err != nil:
		return nil, messages.Errorf(messages.CodeInternal, "warm-up observation: %v", err)
	case len(data) == 0 || len(data) > openpi.DefaultMaxBody:
		return nil, messages.Errorf(messages.CodeBadRequest, "warm-up observation: artifact %s is empty or larger than %d bytes; run.warmup is the SHA-256 of one observation, as a client sends it", artifact.Short(filepath.Base(path)), openpi.DefaultMaxBody)
	}
	return data, nil
}

// say adds a line of ours to what the command says.
func (l *launch) say(text string) { l.said.say("[fleetbus] " + text) }

// close gives everything back.
func (l *launch) close() {
	for _, f := range slices.Backward(l.undo) {
		f()
	}
	l.undo = nil
}

func (l *launch) ready() time.Duration { return messages.Millis(l.run.ReadyTimeout) }

// openExec starts a command that is asked with frames.
func (l *launch) openExec(ctx context.Context) (backend.Server, error) {
	h := execio.New(execio.Options{
		Name: l.open.Task.Name, Command: l.words, Dir: l.dir, Environ: l.d.local, Env: l.env, ReadyTimeout: l.ready(), StopTimeout: l.stop,
		Guard: l.d.o.Guard, Lines: l.said.say, Logger: l.d.o.Logger,
	})
	inner, err := h.Open(ctx, l.open)
	if err != nil {
		return nil, err
	}
	return serve(l, inner, nil), nil
}

// openServer starts a command that is a server, and waits until that is ready.
func (l *launch) openServer(ctx context.Context) (_ backend.Server, err error) {
	cmd := exec.Command(l.words[0], l.words[1:]...)
	cmd.Dir, cmd.Env = l.dir, append(slices.Clone(l.d.local), l.env...)
	p, err := startProgram(cmd, l.d.o.Guard, l.said.say, l.d.o.Logger)
	if err != nil {
		return nil, messages.Errorf(messages.CodeBackendFailed, "cannot start %s: %v; check the command, and whether this machine has it", strings.Join(l.words, " "), err)
	}
	defer func() {
		if err != nil {
			_ = p.stop(l.stop) // why it was not ready says more
		}
	}()
	waiting, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-p.done:
			cancel()
		case <-waiting.Done():
		}
	}()
	inner, err := l.handler().Open(waiting, l.open)
	cancel()
	<-watched
	switch {
	case err == nil:
		return serve(l, inner, p), nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case p.ended():
		return nil, messages.Errorf(messages.CodeBackendFailed, "%s ended before it was ready: %v", p.name, p.err)
	}
	return nil, messages.Errorf(messages.CodeOf(err), "%s: %s%s", p.name, messages.AsError(err, messages.CodeBackendFailed).Message, p.lastWords())
}

// handler is what asks the server.
func (l *launch) handler() backend.Handler {
	name, log, hang := l.open.Task.Name, l.d.o.Logger, messages.Millis(l.run.HangTimeout)
	if l.run.Kind() == messages.ServeOpenPI {
		return openpi.New(openpi.Options{Name: name, URL: l.run.URL, Warmup: l.warm, Sessions: l.run.Sessions, ReadyTimeout: l.ready(), HangTimeout: hang, Logger: log})
	}
	return httpio.New(httpio.Options{
		Name: name, URL: l.run.URL, OIP: l.run.Kind() == messages.ServeOIP, ReadyURL: l.run.ReadyURL, ReadyTimeout: l.ready(), HangTimeout: hang, Logger: log,
	})
}

// lastWords is the last line that a program has said, for an error message.
func (p *program) lastWords() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == "" {
		return ""
	}
	return fmt.Sprintf("; its last line: %s", p.last)
}
