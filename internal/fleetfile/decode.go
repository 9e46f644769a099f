package fleetfile

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
	"go.yaml.in/yaml/v3"
)

// decoder walks the nodes of a file and collects everything that is wrong.
type decoder struct {
	name string
	errs Errors
}

// maxErrors bounds what is collected: a file of another kind would give one a line.
const maxErrors = 100

func (d *decoder) fail(n *yaml.Node, path, format string, args ...any) {
	if len(d.errs) < maxErrors {
		d.errs = append(d.errs, Error{File: d.name, Line: n.Line, Field: path, Text: fmt.Sprintf(format, args...)})
	}
}

// failErr reports an error of package messages.
func (d *decoder) failErr(n *yaml.Node, path string, err error) {
	d.fail(n, path, "%s", messages.AsError(err, messages.CodeBadRequest).Message)
}

// field is one key that a mapping may have.
type field struct {
	name string
	read func(n *yaml.Node, path string)
}

// join makes the path of a field.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// object reads a mapping with the fields given, and returns the node of each key that
// it has.
func (d *decoder) object(n *yaml.Node, path string, fields []field) map[string]*yaml.Node {
	keys := make(map[string]*yaml.Node)
	n = follow(n)
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "found %s, expected a mapping with %s", describe(n), strings.Join(names, ", "))
		return keys
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		at := slices.Index(names, k.Value)
		switch {
		case k.Kind != yaml.ScalarNode || at < 0:
			hint := "allowed are " + strings.Join(names, ", ")
			if s := nearest(k.Value, names); s != "" {
				hint = "did you mean " + s + "? " + hint
			}
			d.fail(k, join(path, shorten(k.Value)), "unknown field; %s", hint)
		case keys[k.Value] != nil:
			d.fail(k, join(path, k.Value), "found a second time; the first is in line %d", keys[k.Value].Line)
		default:
			keys[k.Value] = k
			fields[at].read(v, join(path, k.Value))
		}
	}
	return keys
}

// list reads a sequence.
func (d *decoder) list(n *yaml.Node, path string, read func(n *yaml.Node, path string)) {
	n = follow(n)
	if n.Kind != yaml.SequenceNode {
		d.fail(n, path, "found %s, expected a list", describe(n))
		return
	}
	for i, item := range n.Content {
		read(item, fmt.Sprintf("%s[%d]", path, i))
	}
}

// scalar returns the text of a single value; ok is false, and the error reported, for
// anything else.
func (d *decoder) scalar(n *yaml.Node, path, expected string) (string, bool) {
	n = follow(n)
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		d.fail(n, path, "found %s, expected %s", describe(n), expected)
		return "", false
	}
	return n.Value, true
}

// text reads a word that check accepts.
func (d *decoder) text(into *string, expected string, check func(string) error) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		s, ok := d.scalar(n, path, expected)
		if !ok {
			return
		}
		if err := check(s); err != nil {
			// The check names the field itself; the path does so already.
			text := messages.AsError(err, messages.CodeBadRequest).Message
			d.fail(n, path, "%s", strings.TrimPrefix(text, ": "))
			return
		}
		*into = s
	}
}

// label reads a name of what.
func (d *decoder) label(into *string, what string) func(*yaml.Node, string) {
	return d.text(into, "a name", func(s string) error { return messages.CheckName(what, s) })
}

// number reads a number without a unit from 0 to hi.
func (d *decoder) number(into *float64, hi float64, unit string) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		s, ok := d.scalar(n, path, "a number")
		if !ok {
			return
		}
		digits, rest := splitNumber(s)
		v, err := strconv.ParseFloat(digits, 64)
		if err != nil || rest != "" {
			d.fail(n, path, "found %q, expected a number without a unit", shorten(s))
			return
		}
		d.amount(n, path, into, v, 0, hi, unit)
	}
}

// quantity reads a number with or without a unit.
func (d *decoder) quantity(into *float64, u Unit, hi float64) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		s, ok := d.scalar(n, path, "a number with or without a unit ("+strings.Join(u.Names(), ", ")+")")
		if !ok {
			return
		}
		v, err := u.Parse(s)
		if err != nil {
			d.failErr(n, path, err)
			return
		}
		d.amount(n, path, into, v, 0, hi, u.Base())
	}
}

// amount checks a number's range and keeps it.
func (d *decoder) amount(n *yaml.Node, path string, into *float64, v, lo, hi float64, unit string) {
	if err := messages.CheckAmount("", v, lo, hi, unit); err != nil {
		d.fail(n, path, "%s", strings.TrimPrefix(messages.AsError(err, messages.CodeBadRequest).Message, ": "))
		return
	}
	*into = v
}

// optional is quantity for a value whose absence means something.
func (d *decoder) optional(into **float64, u Unit) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		v := math.NaN() // stays so if the value is refused
		d.quantity(&v, u, math.MaxFloat64)(n, path)
		if !math.IsNaN(v) {
			*into = &v
		}
	}
}

// whole reads a whole number from lo to hi.
func (d *decoder) whole(into *int, lo, hi int) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		s, ok := d.scalar(n, path, "a whole number")
		if !ok {
			return
		}
		v, err := strconv.Atoi(s)
		if err != nil || v < lo || v > hi {
			d.fail(n, path, "found %q, allowed are whole numbers from %d to %d", shorten(s), lo, hi)
			return
		}
		*into = v
	}
}

// flag reads true or false.
func (d *decoder) flag(into *bool) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		s, ok := d.scalar(n, path, "true or false")
		if !ok {
			return
		}
		if s != "true" && s != "false" {
			d.fail(n, path, "found %q, allowed are true, false", shorten(s))
			return
		}
		*into = s == "true"
	}
}

// maxLabels bounds the labels of one environment or task.
const maxLabels = 64

// labels reads a mapping of texts.
func (d *decoder) labels(into *map[string]string) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		n = follow(n)
		if n.Kind != yaml.MappingNode {
			d.fail(n, path, "found %s, expected a mapping of labels, like {gpu: \"yes\"}", describe(n))
			return
		}
		if len(n.Content) > 2*maxLabels {
			d.fail(n, path, "found %d labels, allowed are %d", len(n.Content)/2, maxLabels)
			return
		}
		out := make(map[string]string)
		lines := make(map[string]int)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, ok := d.scalar(n.Content[i], path, "a label")
			v, ok2 := d.scalar(n.Content[i+1], join(path, shorten(k)), "a text")
			if !ok || !ok2 {
				continue
			}
			if line := lines[k]; line > 0 {
				d.fail(n.Content[i], join(path, shorten(k)), "found a second time; the first is in line %d", line)
			}
			out[k], lines[k] = v, n.Content[i].Line
		}
		*into = out
	}
}

// names reads a list of names.
func (d *decoder) names(into *[]string, what string) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		d.list(n, path, func(n *yaml.Node, path string) {
			var s string
			if d.label(&s, what)(n, path); s != "" {
				*into = append(*into, s)
			}
		})
	}
}

// follow resolves an alias.
func follow(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	return n
}

// describe says what a node is, for "found …".
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "nothing"
		}
		return fmt.Sprintf("%q", shorten(n.Value))
	}
	return "something else"
}
