package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// agentFields are the fields of an agent's --config file: the flags of the same names,
// read by the same code. labels, exec and the like are mappings of what the flags repeat.
var agentFields = []string{
	"id", "tier", "site", "labels", "compute", "storage", "network", "latency", "price", "billing",
	"simulate", "exec", "drain_timeout", "state_dir", "data_dir", "re_engage", "on_link_loss", "foreign_use",
	"http", "oip", "openpi", "ready_url", "authorization_file", "warmup_file", "sessions", "max_concurrency", "ready_timeout", "hang_timeout",
	"allow_run", "artifact_dir", "artifact_cache",
}

// repeated are the fields that are mappings, and their flags.
var repeated = map[string]string{
	"labels": "label", "exec": "exec", "on_link_loss": "on-link-loss", "http": "http", "oip": "oip", "openpi": "openpi",
	"ready_url": "ready-url", "authorization_file": "authorization-file", "warmup_file": "warmup-file", "sessions": "sessions", "max_concurrency": "max-concurrency",
}

// maxAgentFile bounds the file, bytes: thousands of labels fit, a disk image does not.
const maxAgentFile = 1 << 20

// loadFlags sets the flags that an agent's file names and that the command line does not.
// The error is fleetfile.Errors for what the file says.
func loadFlags(path string, flags *pflag.FlagSet) error {
	return loadFields("--config", path, agentFields, flags)
}

// loadFields sets the flags that a file names, which may be those of fields; flag is the
// one that names the file.
func loadFields(flag, path string, fields []string, flags *pflag.FlagSet) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxAgentFile+1))
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	l := fileLoader{path: path, fields: fields, flags: flags}
	if len(data) > maxAgentFile {
		l.fail(0, "", "found more than %d bytes; the file of an agent is smaller", maxAgentFile)
		return l.errs
	}
	var document yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	err = dec.Decode(&document)
	switch {
	case errors.Is(err, io.EOF):
		l.fail(0, "", "it is empty; allowed are %s", strings.Join(fields, ", "))
	case err != nil:
		l.errs = append(l.errs, fleetfile.NotYAML(path, data, err))
	case dec.Decode(new(yaml.Node)) == nil:
		l.fail(0, "", "found a second document; the file of an agent is one")
	default:
		l.mapping(document.Content[0])
	}
	if len(l.errs) > 0 {
		return l.errs
	}
	return nil
}

// fileLoader collects what is wrong with the file, all of it.
type fileLoader struct {
	path   string
	fields []string // that it may name
	flags  *pflag.FlagSet
	errs   fleetfile.Errors
}

func (l *fileLoader) fail(line int, field, format string, args ...any) {
	l.errs = append(l.errs, fleetfile.Error{File: l.path, Line: line, Field: field, Text: fmt.Sprintf(format, args...)})
}

// pairs calls each with the keys and values of a mapping, once a key.
func (l *fileLoader) pairs(n *yaml.Node, field string, each func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		l.fail(n.Line, field, "found %q, expected a mapping of names to values", n.Value)
		return
	}
	lines := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		if line := lines[key.Value]; line > 0 {
			l.fail(key.Line, key.Value, "found a second time; the first is in line %d", line)
			continue
		}
		lines[key.Value] = key.Line
		each(key, value)
	}
}

func (l *fileLoader) mapping(root *yaml.Node) {
	l.pairs(root, "", func(key, value *yaml.Node) {
		field := key.Value
		switch {
		case !slices.Contains(l.fields, field):
			l.fail(key.Line, field, "unknown field; allowed are %s", strings.Join(l.fields, ", "))
		case repeated[field] != "":
			given := l.given(repeated[field])
			l.pairs(value, field, func(key, value *yaml.Node) {
				l.set(value, field+"."+key.Value, repeated[field], key.Value+"=", given)
			})
		default:
			flag := strings.ReplaceAll(field, "_", "-")
			l.set(value, field, flag, "", l.given(flag))
		}
	})
}

// given reports whether the command line or the environment has said it, and the file
// comes too late.
func (l *fileLoader) given(flag string) bool {
	variable := environment[flag]
	return l.flags.Changed(flag) || variable != "" && os.Getenv(variable) != ""
}

// set gives a value to a flag; one that the command line gives is only checked for its
// form.
func (l *fileLoader) set(n *yaml.Node, field, flag, prefix string, given bool) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		l.fail(n.Line, field, "found no value, expected one")
		return
	}
	if given {
		return
	}
	if err := l.flags.Lookup(flag).Value.Set(prefix + n.Value); err != nil {
		text := err.Error()
		if !strings.HasPrefix(text, "found ") {
			text = fmt.Sprintf("found %q, expected %s", n.Value, expected(l.flags.Lookup(flag)))
		}
		l.fail(n.Line, field, "%s", text)
	}
}
