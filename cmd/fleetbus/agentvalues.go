package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/agent/backend/execio"
	"github.com/fleetbus/fleetbus/agent/backend/simulate"
	"github.com/fleetbus/fleetbus/messages"
)

// labelValue collects KEY=VALUE.
type labelValue map[string]string

func (l labelValue) Set(s string) error {
	key, value, ok := strings.Cut(s, "=")
	if !ok || key == "" {
		return fmt.Errorf("found %q, expected KEY=VALUE, for example gpu=yes", s)
	}
	l[key] = value
	return nil
}

func (l labelValue) Type() string { return "KEY=VALUE" }

func (l labelValue) String() string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(l)) {
		list = append(list, key+"="+l[key])
	}
	return strings.Join(list, ",")
}

// command serves a handler with a child process.
type command struct{ name, line string }

// commands collects NAME=COMMAND.
type commands []command

func (c *commands) Set(s string) error {
	name, line, ok := strings.Cut(s, "=")
	if !ok || strings.TrimSpace(line) == "" {
		return fmt.Errorf("found %q, expected NAME=COMMAND, for example grasp='python3 grasp.py'", s)
	}
	if err := messages.CheckName("handler", name); err != nil {
		return fmt.Errorf("found %q: %w", s, plain(err))
	}
	for _, other := range *c {
		if other.name == name {
			return fmt.Errorf("found %q twice; one command serves a handler", name)
		}
	}
	*c = append(*c, command{name, line})
	return nil
}

func (c *commands) Type() string { return "NAME=COMMAND" }

func (c *commands) String() string {
	var list []string
	for _, one := range *c {
		list = append(list, one.name+"="+one.line)
	}
	return strings.Join(list, ",")
}

// hooks collects NAME=COMMAND for the loss of a robot's link.
type hooks []command

func (h *hooks) Set(s string) error {
	name, line, ok := strings.Cut(s, "=")
	if !ok || strings.TrimSpace(line) == "" {
		return fmt.Errorf("found %q, expected NAME=COMMAND, for example retract='python3 retract.py'", s)
	}
	if err := messages.CheckName("hook", name); err != nil {
		return fmt.Errorf("found %q: %w", s, plain(err))
	}
	if slices.ContainsFunc(*h, func(c command) bool { return c.name == name }) {
		return fmt.Errorf("found %q twice; a hook is one command", name)
	}
	*h = append(*h, command{name, line})
	return nil
}

func (h *hooks) Type() string { return "NAME=COMMAND" }

func (h *hooks) String() string { return (*commands)(h).String() }

// functions are the hooks as an agent runs them.
func (h hooks) functions() (map[string]agent.LinkHook, error) {
	all := make(map[string]agent.LinkHook, len(h))
	for _, c := range h {
		words, err := splitWords(c.line)
		if err != nil {
			return nil, usagef("--on-link-loss %s: %v", c.name, err)
		}
		all[c.name] = func(ctx context.Context, loss agent.LinkLoss) error {
			return execio.Run(ctx, words, []string{
				"FLEETBUS_ROBOT=" + loss.Robot, "FLEETBUS_TASK=" + loss.Task.Name, "FLEETBUS_REPLICA=" + loss.Replica, "FLEETBUS_REASON=" + loss.Reason,
			})
		}
	}
	return all, nil
}

// plain strips the code off an error that will be wrapped in a sentence.
func plain(err error) error {
	var ours *messages.Error
	if errors.As(err, &ours) {
		return errors.New(ours.Message)
	}
	return err
}

// handlers are what the flags say that the agent can serve.
func (g *agentFlags) handlers(log *slog.Logger) ([]agent.Handler, error) {
	var list []agent.Handler
	for _, c := range g.commands {
		words, err := splitWords(c.line)
		if err != nil {
			return nil, usagef("--exec %s: %v", c.name, err)
		}
		list = append(list, execio.New(execio.Options{Name: c.name, Command: words, ReadyTimeout: g.backends.ready, Logger: log}))
	}
	servers, err := g.backends.handlers(log)
	if err != nil {
		return nil, err
	}
	list = append(list, servers...)
	if g.simulate {
		// With the link: the processes of a demonstration stand on one machine, and what
		// the network would take is to be seen all the same.
		list = append(list, simulate.New(simulate.Options{Link: true}))
	}
	if len(list) == 0 && !g.deploy.allow {
		return nil, usagef("agent %s: it can serve nothing; add --simulate, --exec NAME=COMMAND, or a model server with --http, --oip or --openpi NAME=URL; or --allow-run, for tasks that bring what serves them", g.id)
	}
	return list, nil
}

// splitWords splits a command line as a shell does with words and quotes; nothing is
// expanded. `sh -c '…'` has the rest.
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote, escaped := false, rune(0), false
	for _, c := range line {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			inWord, escaped = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			inWord, quote = true, c
		case c == ' ' || c == '\t' || c == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			inWord = true
			word.WriteRune(c)
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("found %q, a quote or a backslash has no end", line)
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, fmt.Errorf("found %q, expected a command", line)
	}
	return words, nil
}
